"""What TensorFlow's own log says of its GPUs: which it took, and why it took none.

TensorFlow goes on without a GPU that it cannot use, and says why on stderr only. Pure functions over that text; the
sentences are those of the log lines in tests/data/tensorflow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.outcome import CANNOT_RUN_HERE, FAILED, Problem, first_line

if TYPE_CHECKING:
    from collections.abc import Callable

_MIB = 1 << 20
# TensorFlow also looks for what it can do without (TensorRT, other vendors' libraries).
_CUDA_LIBRARY = re.compile(
    r"lib(?:cudart|cublas|cublasLt|cufft|curand|cusolver|cusparse|cudnn\w*|nccl|cupti|nvJitLink|nvrtc)\.so[.\d]*"
)
_NOT_LOADED = re.compile(r"Could not load dynamic library '([^']+)'; dlerror: ([^;\n]*)")
_NOT_FOUND = re.compile(r"(lib[\w.+-]+): cannot open shared object file")
_CREATED = re.compile(
    r"Created device \S*/device:GPU:(\d+) with (\d+) MB memory:\s+-> device: \d+, name: (.*?), "
    r"pci bus id: ([0-9a-fA-F:.]+), compute capability: (\d+)\.(\d+)"
)
_CUINIT = re.compile(r"failed call to cuInit: ([^\n]+)")
_MISMATCH = re.compile(r"kernel version ([\d.]+) does not match DSO version ([\d.]+)")
_CUDNN = re.compile(r"Loaded runtime CuDNN library: ([\d.]+) but source was compiled with:? ([\d.]+\d)")
_IGNORED = re.compile(r"Ignoring visible gpu device \(([^)]*)\) with ([^\n]*)")
_NOT_BUILT_FOR = re.compile(r"not built with CUDA kernel binaries compatible with compute capability (\d+)\.(\d+)")
_FATAL = re.compile(r"^(?:\S+ \S+: )?F(?:\d{4} \S+ +\d+)? ([^\n]*)$", re.MULTILINE)
_CONTEXT = re.compile(r"failed call to cuDevicePrimaryCtxRetain: ([^;\n]+)")
_ORDINAL = re.compile(r"CUDA device ordinal (\d+)")
_MEMORY = re.compile(
    r"(?:cuDevicePrimaryCtxRetain|failed to allocate|GPU:\d+ failed|Failed to load in-memory CUBIN)[^\n]*"
    r"(?:CUDA_ERROR_OUT_OF_MEMORY|[Oo]ut of memory)[^\n]*"
)
_BLACKWELL = (10, 0)
_TOOLS = {
    "libdevice not found": "libdevice.10.bc",
    "libdevice is required by this HLO module but was not found": "libdevice.10.bc",
    "No PTX compilation provider is available": "ptxas",
    "ptxas not found": "ptxas",
}


@dataclass(frozen=True)
class Created:
    """A GPU that TensorFlow took: its number here, and the `memory_bytes` that it may use of it."""

    index: int
    memory_bytes: int
    name: str
    pci_bus_id: str
    compute_capability: tuple[int, int]


def created(text: str) -> list[Created]:
    """Return the GPUs that TensorFlow says it took, in its order; each once."""
    found = {}
    for match in _CREATED.finditer(text):
        index, megabytes, name, bus, major, minor = match.groups()
        found[int(index)] = Created(int(index), int(megabytes) * _MIB, name, bus, (int(major), int(minor)))
    return [found[index] for index in sorted(found)]


def missing_libraries(text: str) -> dict[str, str]:
    """Return the CUDA libraries that could not be loaded, each with the library that is not there.

    The two differ where a library is there, and one that it needs is not.
    """
    found = {}
    for library, why in _NOT_LOADED.findall(text):
        if _CUDA_LIBRARY.fullmatch(library):
            absent = _NOT_FOUND.search(why)
            found[library] = absent[1] if absent else library
    return found


def cause(text: str) -> Problem | None:
    """Return why GPUs cannot be used, None where the log does not say; the first causes come first."""
    for look in _CAUSES:
        problem = look(text)
        if problem:
            return problem
    return None


def _library(text: str) -> Problem | None:
    missing = missing_libraries(text)
    if missing:
        told = ", ".join(name if name == absent else f"{name} (needs {absent})" for name, absent in missing.items())
        return _incomplete(f"TensorFlow cannot load {told}")
    if "Cannot dlopen some GPU libraries" in text and "libcuda.so.1" not in text:
        return _incomplete("TensorFlow cannot load some CUDA libraries, and does not say which")
    if match := _CUDNN.search(text):
        return _incomplete(f"cuDNN {match[1]} was loaded, and TensorFlow was built with {match[2]}")
    return None


def _tool(text: str) -> Problem | None:
    names = [name for sentence, name in _TOOLS.items() if sentence in text]
    return _incomplete(f"XLA cannot find {names[0]}") if names else None


def _incomplete(message: str) -> Problem:
    return Problem("library-missing", message, "build the image again: `vaultcube images build`", CANNOT_RUN_HERE)


def _driver(text: str) -> Problem | None:
    cuinit = _CUINIT.search(text)
    if match := _MISMATCH.search(text):
        message = f"the driver's kernel module is {match[1]}, its library {match[2]}"
        next_step = "restart the machine: the driver was updated under the running system"
    elif "Could not find cuda drivers" in text or "library 'libcuda.so.1'" in text:
        message, next_step = "no CUDA driver can be seen from here", "give the container its GPUs, or use --device cpu"
    elif (context := _CONTEXT.search(text)) and "OUT_OF_MEMORY" not in context[1]:
        message = f"{_which(text)} does not start: {first_line(context[1])}"
        next_step = (
            "see `nvidia-smi` and the kernel log on the host: another process may have it to itself, or it is lost"
        )
    elif cuinit:
        message = f"the CUDA driver does not start: {first_line(cuinit[1])}"
        next_step = "see `nvidia-smi` on the host: the driver may be too old for this image, or the GPU lost"
    else:
        return None
    return Problem("cuda-unavailable", message, next_step, CANNOT_RUN_HERE)


def memory(text: str) -> Problem | None:
    """Return the problem of a GPU that has no memory to give, None where the text says nothing of it."""
    match = _MEMORY.search(text)
    if not match:
        return None
    return memory_taken(first_line(match[0]), _which(text))


def _which(text: str) -> str:
    ordinal = _ORDINAL.search(text)
    return f"GPU {ordinal[1]}" if ordinal else "a GPU"


def memory_taken(what: str, gpu: str = "a GPU") -> Problem:
    """Return the problem of a GPU whose memory another process holds; `what` says how it showed."""
    return Problem(
        "gpu-memory",
        f"{gpu} has no memory left: {what}",
        "see `nvidia-smi` on the host for the process that holds it, and stop that one",
        FAILED,
    )


def _kernels(text: str) -> Problem | None:
    if match := _IGNORED.search(text):
        message = f"TensorFlow passes over a GPU ({match[1]}) with {match[2]}"
        # A GPU too old, or too small: a slice of one, as MIG makes them.
        code = "no-kernels" if "capability" in match[2] else "fewer-devices"
        return Problem(code, first_line(message), "use another GPU", CANNOT_RUN_HERE)
    built = _NOT_BUILT_FOR.search(text)
    # Below Blackwell the driver compiles what is missing, which takes minutes and works.
    if "CUDA_ERROR_INVALID_PTX" in text or (built and (int(built[1]), int(built[2])) >= _BLACKWELL):
        which = f"compute capability {built[1]}.{built[2]}" if built else "this GPU"
        return Problem(
            "no-kernels",
            f"this image carries no kernels for {which}",
            "use the image flavour cu128",
            CANNOT_RUN_HERE,
        )
    return None


def fatal(text: str) -> Problem | None:
    """Return the problem of a line with which TensorFlow ended the process, None when there is none."""
    match = _FATAL.search(text)
    if not match:
        return None
    return Problem("rank-failed", f"TensorFlow gave up: {first_line(match[1])}", "see the container's log")


_CAUSES: tuple[Callable[[str], Problem | None], ...] = (_library, _driver, memory, _kernels, _tool, fatal)
