"""How the worker can end: whatever TensorFlow raised, turned into a problem."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from common.outcome import Problem, first_line
from mirrored import startlog
from training.outcome import explain as explain_any
from training.outcome import out_of_memory

if TYPE_CHECKING:
    from training.params import Params

_SHORT = ("OOM when allocating", "CUDA_ERROR_OUT_OF_MEMORY", "failed to allocate memory", "Out of memory while trying")
# What TensorFlow says when it wraps another error, which comes later in the text.
_WRAPPERS = ("Graph execution error", "Detected at node", "Exception encountered when calling", "File ", "<", "[[")
_NODES = re.compile(r"^\{\{[^}]*\}\} ?|\[Op:[^\]]*\].*$")
_SPARE = 0.8
"""A GPU that gives TensorFlow less than this share of its memory is being used by somebody else."""


def explain(error: BaseException, params: Params, log: str, totals: dict[int, int], *, proven: bool) -> Problem:
    """Turn whatever stopped the worker into a problem. Goes by names and texts: TensorFlow is not imported here.

    `log` is what TensorFlow has logged, `totals` the memory of each GPU in bytes as far as it is known; `proven` says
    that every device has shown that there is memory to be had.
    """
    if isinstance(error, Problem):
        return error
    name, text = type(error).__name__, str(error)
    on_gpu = params.device == "cuda"
    if isinstance(error, MemoryError) or name == "ResourceExhaustedError" or any(mark in text for mark in _SHORT):
        if on_gpu and (problem := taken(log, totals)):
            return problem
        if proven or not on_gpu:
            return out_of_memory(params)
        return startlog.memory(text) or startlog.memory_taken(gist(text))
    if on_gpu and (problem := startlog.cause(text) or startlog.cause(log)):
        return problem
    return explain_any(error, params, gist(text))


def taken(log: str, totals: dict[int, int]) -> Problem | None:
    """Return the problem of a GPU that TensorFlow got too small a part of, None when it got what there is."""
    for gpu in startlog.created(log):
        total = totals.get(gpu.index)
        if total and gpu.memory_bytes < _SPARE * total:
            offered = f"{gpu.memory_bytes / 2**30:.1f} of {total / 2**30:.1f} GiB"
            return startlog.memory_taken(f"GPU {gpu.index} ({gpu.name}) had {offered} to offer")
    return None


def gist(text: str) -> str:
    """Return the line of an error's text that says what happened, without the names of TensorFlow's own nodes."""
    lines = [_NODES.sub("", line).strip() for line in text.splitlines()]
    telling = [line for line in lines if line and not line.startswith(_WRAPPERS)]
    return first_line("\n".join(telling) or text)
