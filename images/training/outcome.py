"""How a rank can end: whatever stopped it, turned into a problem."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.outcome import CANNOT_RUN_HERE, CANNOT_WRITE, Problem, first_line

if TYPE_CHECKING:
    from training.params import Params

EVENTS_LOST = CANNOT_WRITE
"""Exit code of a rank that had no way to say why it ended."""

PEER_LOST = "peer-lost"
"""Code of an error that only says another rank went first: the cause is told elsewhere."""

UNEXPLAINED = ("rank-failed", "device-failed")
"""Codes of errors whose traceback tells more than we can."""

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED", "Cannot allocate memory")
_PEER_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "ncclRemoteError")
_SHARED_MEMORY = ("shared memory",)
_DEVICE_FAILED = ("CUDA error", "CUDA driver error", "cuDNN error", "CUBLAS_STATUS", "NCCL error")
_NO_KERNELS = "no kernel image is available"


def explain(error: BaseException, params: Params, words: str | None = None) -> Problem:
    """Turn whatever stopped a rank into a problem. Goes by names and texts: frameworks are not imported here.

    `words` are what the error says, where its own text buries them.
    """
    if isinstance(error, Problem):
        return error
    name, text = type(error).__name__, str(error) if words is None else words
    if isinstance(error, MemoryError) or name == "OutOfMemoryError" or any(mark in text for mark in _OUT_OF_MEMORY):
        return out_of_memory(params)
    if _NO_KERNELS in text:
        return Problem(
            "no-kernels",
            "this image carries no kernels for this GPU",
            "use the flavour made for it: cu128 from compute capability 10.0 on, cu124 below",
            CANNOT_RUN_HERE,
        )
    if any(mark in text for mark in _SHARED_MEMORY):
        return Problem(
            "shared-memory-too-small",
            f"no room in shared memory: {first_line(text)}",
            "give the container more: shm_size: 16g, or --shm-size 16g",
        )
    if any(mark in text for mark in _PEER_LOST):
        return Problem(PEER_LOST, f"another rank went away: {first_line(text)}", "see what the other ranks say")
    if params.data and (name == "UnidentifiedImageError" or isinstance(error, OSError)):
        return Problem("data-unreadable", first_line(text), f"mend or remove that file below {params.data}")
    if any(mark in text for mark in _DEVICE_FAILED):
        return Problem("device-failed", first_line(text), "see the host's kernel log for NVRM and Xid lines")
    return Problem("rank-failed", f"{name}: {first_line(text)}", "see the traceback in the container's log")


def out_of_memory(params: Params) -> Problem:
    """Return the problem of a device, or the host, that has too little memory for the batch."""
    smaller = params.batch_size // 2
    next_step = (
        f"use a smaller batch: --batch-size {smaller}"
        if smaller
        else "a batch of 1 does not fit: use a smaller model or image size"
    )
    return Problem(
        "out-of-memory",
        f"out of memory with {params.model}, batch {params.batch_size}, {params.image_size} px, {params.precision}",
        next_step,
    )
