"""Why a server died, from the last lines it logged. Pure.

The sentences are vLLM's, PyTorch's, transformers' and argparse's own: recorded from 0.32.0, and for 0.8.5.post1 and
0.10.2 read in their sources; those have not been seen on a GPU yet.
"""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, NamedTuple

from common.outcome import BAD_PARAMETERS, CANNOT_RUN_HERE, FAILED, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN_LINES = 15
_LONGEST_LINE = 300


class Cause(NamedTuple):
    """A sentence that names the cause, and what is said of it. `message` may be {line}, the sentence itself."""

    pattern: re.Pattern[str]
    code: str
    exit_code: int
    message: str
    next_step: str


def _cause(pattern: str, code: str, exit_code: int, message: str, next_step: str) -> Cause:
    return Cause(re.compile(pattern), code, exit_code, message, next_step)


_SHORTER = "use a shorter context (--max-model-len), more GPUs (--tensor-parallel) or a smaller model"
_AGAIN = "download the model again"

CAUSES = (
    _cause(
        r"unrecognized arguments:|ambiguous option:|invalid choice:|error: argument |expected (?:one|at least one) argument",
        "bad-parameter",
        BAD_PARAMETERS,
        "vLLM does not take this flag: {line}",
        "see the flags of this version: vllm serve --help",
    ),
    _cause(
        r"no kernel image is available|is not compatible with the current PyTorch installation",
        "flavour-unsupported",
        CANNOT_RUN_HERE,
        "this image carries no kernels for this GPU",
        "use the flavour made for it: cu128 from compute capability 10.0 on, cu124 below",
    ),
    _cause(
        r"HeaderTooLarge|HeaderTooSmall|MetadataIncompleteBuffer|InvalidHeader|incomplete metadata|SafetensorError",
        "model-unreadable",
        CANNOT_RUN_HERE,
        "the weights are damaged: {line}",
        _AGAIN,
    ),
    _cause(
        r"JSONDecodeError",
        "model-unreadable",
        CANNOT_RUN_HERE,
        "one of the model's files (tokenizer, configuration) is damaged: {line}",
        _AGAIN,
    ),
    _cause(
        r"larger than the maximum number of tokens that can be stored in KV cache"
        r"|No available memory for the cache blocks|larger than the available KV cache memory",
        "gpu-memory",
        FAILED,
        "{line}",
        _SHORTER,
    ),
    _cause(
        r"Free memory on device .* is less than desired GPU memory utilization",
        "gpu-memory",
        FAILED,
        "{line}",
        "free the GPU, or let vLLM use less of it: -- --gpu-memory-utilization 0.5",
    ),
    # As an out of memory of the other kind, but what takes the memory are the most requests at once.
    _cause(
        r"out of memory occurred when warming up (?:sampler|pooler)",
        "gpu-memory",
        FAILED,
        "{line}",
        "answer fewer requests at once (-- --max-num-seqs 64), or let vLLM use less of the GPU "
        "(-- --gpu-memory-utilization 0.8)",
    ),
    _cause(
        r"CUDA out of memory|CUDA error: out of memory|CUDNN_STATUS_ALLOC_FAILED|OutOfMemoryError",
        "gpu-memory",
        FAILED,
        "{line}",
        _SHORTER,
    ),
    _cause(
        r"Bfloat16 is only supported on GPUs",
        "model-unsupported",
        CANNOT_RUN_HERE,
        "{line}",
        "let vLLM compute in float16: -- --dtype half",
    ),
    _cause(
        r"quantization method .* is not supported for the current GPU",
        "model-unsupported",
        CANNOT_RUN_HERE,
        "{line}",
        "use the model in another quantisation, or in 16 bits",
    ),
    _cause(
        r"does not recognize this architecture|Model architectures \[.*\] (?:are not supported|failed to be inspected)"
        r"|has no attribute '?all_special_tokens_extended|Unrecognized (?:model|configuration class)"
        r"|has no vLLM implementation|Model architecture \S+ was supported in vLLM until|Cannot find model module\."
        r"|The Transformers implementation of \S+ is not compatible with vLLM|Tokenizer class \S+ does not exist",
        "model-unsupported",
        CANNOT_RUN_HERE,
        "this vLLM does not know the model: {line}",
        "use a model that vLLM's list of supported models names for this version",
    ),
    _cause(
        r"User-specified max_model_len .* is greater than the derived max_model_len",
        "bad-parameter",
        BAD_PARAMETERS,
        "{line}",
        "give a --max-model-len that the model was made for",
    ),
    _cause(
        r"must be divisible by tensor parallel size|\d is not divisible by (?:\d|weight quantization block)"
        r"|too large tensor parallel size",
        "bad-parameter",
        BAD_PARAMETERS,
        "{line}",
        "choose another --tensor-parallel",
    ),
    _cause(
        r"Pipeline parallelism is not supported for this model",
        "bad-parameter",
        BAD_PARAMETERS,
        "{line}",
        "divide the model by --tensor-parallel alone",
    ),
    _cause(
        r"[Aa]ddress already in use",
        "port-taken",
        CANNOT_RUN_HERE,
        "the port in the container is taken: {line}",
        "choose another --port",
    ),
    _cause(
        r"No space left on device",
        "disk-too-small",
        CANNOT_RUN_HERE,
        "{line}",
        "free space: the model cache is a volume (docker system df -v shows its size)",
    ),
    _cause(
        r"Cannot allocate memory|DefaultCPUAllocator: can't allocate memory|std::bad_alloc|^MemoryError",
        "container-out-of-memory",
        FAILED,
        "the host's memory ran out: {line}",
        "raise the container's memory limit, or use a smaller model",
    ),
)

# "(EngineCore_DP0 pid=123) ERROR 11-25 04:19:23 [core.py:718] text" of 0.10 on, "ERROR 05-01 12:00:00 [core.py:396] text"
# before; there workers are "(VllmWorker rank=0 pid=123) ERROR ...".
_PREFIX = re.compile(
    r"^(?:\([\w. +=-]+ pid=\d+\)\s?)?(?:(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:]+ \[[^\]]*\]\s?)?"
)
# Frames of a traceback, the code below them and marks under that; pydantic indents what it has to say.
_FRAME = re.compile(r"^\s{2,}(?!Value error)|^\s*Traceback \(most recent call last\)")
_EMPTY_WORDS = ("During handling of the above exception", "The above exception was the direct cause", "nanobind:")
_EXCEPTION = re.compile(r"^(?:[a-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit)\b")
_LONGEST_CONTEXT = re.compile(r"estimated maximum model length is (\d+)|can be stored in KV cache \((\d+)\)")
# uvicorn on its own doings, progress bars, warnings of libraries.
_CHATTER = re.compile(r"^INFO:\s|\d+% Completed \||\d+%\|.*\||^\[?W\d{4} |\b\w*Warning: ")
_SUPPORTED = re.compile(r" Supported architectures: .*")
_VAGUE = re.compile(
    r"Engine core initialization failed|Engine process failed to start|WorkerProc initialization failed"
    r"|EngineDeadError|See root cause"
)


def bare(line: str) -> str:
    """Return a line of the log without vLLM's prefix."""
    return _PREFIX.sub("", line, count=1)


def telling(lines: Sequence[str], most: int = SHOWN_LINES) -> list[str]:
    """Return the last `most` lines that say something: no frames of tracebacks, no progress, nothing twice."""
    found: list[str] = []
    for line in lines:
        match = _PREFIX.match(line)
        text = bare(line).rstrip()
        if match and match["level"] in {"INFO", "DEBUG", "WARNING"}:
            continue
        if (
            not text.strip()
            or _FRAME.match(text)
            or _CHATTER.search(text)
            or any(word in text for word in _EMPTY_WORDS)
        ):
            continue
        # pydantic's word for it, and a list of everything that would be supported.
        text = _SUPPORTED.sub("", text.strip().removeprefix("Value error, "))[:_LONGEST_LINE]
        if text not in found:
            found.append(text)
    return found[-most:]


def explain(lines: Sequence[str], code: int, *, ready: bool, oom_killed: bool = False) -> Problem:
    """Return the problem of a server that ended by itself.

    Args:
        lines: the last ones it logged, secrets struck out.
        code: its exit code, negative for a signal.
        ready: it had answered before.
        oom_killed: the kernel has killed a process of the container for want of memory.
    """
    said = telling(lines)
    if oom_killed or code == -signal.SIGKILL:
        how = "a process was killed" if oom_killed else "it was killed by SIGKILL, which is mostly the kernel's doing"
        next_step = "raise the container's memory limit (--memory), or use a smaller model"
        return Problem("container-out-of-memory", f"the server ran out of host memory: {how}", next_step)
    # The root comes first, what it took along after it.
    for cause in CAUSES:
        for text in telling(lines, len(lines)):
            if cause.pattern.search(text):
                return Problem(cause.code, cause.message.format(line=text), _next_step(cause, text), cause.exit_code)
    when = "while it was used" if ready else "while it loaded"
    how = f"it was killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    reason = root(said)
    message = f"the server ended {when} ({how})" + (f": {reason}" if reason else "")
    return Problem("server-died", message, "read its last lines above")


def _next_step(cause: Cause, text: str) -> str:
    """Return what to do about it, with vLLM's own figure where it gives one."""
    match = _LONGEST_CONTEXT.search(text)
    if cause.code != "gpu-memory" or match is None:
        return cause.next_step
    return f"use --max-model-len {next(filter(None, match.groups()))} or less, or more GPUs (--tensor-parallel)"


def root(said: Sequence[str]) -> str:
    """Return the line that names the exception everything began with; "" when there is none."""
    exceptions = [line for line in said if _EXCEPTION.match(line) and not _VAGUE.search(line)]
    return exceptions[0] if exceptions else said[-1] if said else ""
