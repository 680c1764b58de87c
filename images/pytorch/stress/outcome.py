"""How a worker can end: whatever stopped it, turned into a problem. Goes by texts: torch is not imported here."""

from __future__ import annotations

from common.outcome import DONE, Problem, first_line

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED", "Cannot allocate memory")
_DEVICE_FAILED = ("CUDA error", "CUDA driver error", "CUBLAS_STATUS")


class Unrecorded(Problem):
    """A problem that has no place in the events: the worker has written it already, or they are another's."""


class Stopped(Unrecorded):
    """The load was ended for its safety, or because somebody said so. What is in its place is in the events already.

    The exit code is 0: the container's restart policy must not begin it again, a person decides.
    """

    def __init__(self, code: str, message: str, next_step: str) -> None:
        super().__init__(code, message, next_step, DONE)


def explain(error: BaseException) -> Problem:
    """Return the problem that `error` is."""
    if isinstance(error, Problem):
        return error
    name, text = type(error).__name__, str(error)
    if isinstance(error, MemoryError) or name == "OutOfMemoryError" or any(mark in text for mark in _OUT_OF_MEMORY):
        return no_room(first_line(text))
    if any(mark in text for mark in _DEVICE_FAILED):
        next_step = "see the host's kernel log for NVRM and Xid lines; if this GPU fails again, reseat or replace it"
        return Problem("device-failed", first_line(text), next_step)
    return Problem("worker-failed", f"{name}: {first_line(text)}", "see the traceback in the container's log")


def no_room(why: str) -> Problem:
    """Return the problem of a device, or the host, that has too little memory."""
    next_step = "end what else uses this GPU, or take less: --memory-fraction 0.5"
    return Problem("out-of-memory", f"too little memory for the load: {why}", next_step)
