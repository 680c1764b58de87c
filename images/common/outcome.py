"""How a program ends: exit codes, and problems that say what happened, what to do next, and which code."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.events import EventWriter

DONE = 0
BAD_PARAMETERS = 64
CANNOT_RUN_HERE = 69
FAILED = 70
CANNOT_WRITE = 74
INTERRUPTED = 75


class Problem(Exception):  # noqa: N818 - it is the user's problem as often as an error of ours
    """Ends the run with `exit_code`; `code` is a slug for programs, `next_step` tells people what to do."""

    def __init__(self, code: str, message: str, next_step: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.next_step = next_step
        self.exit_code = exit_code

    def record(self, events: EventWriter) -> None:
        """Append this as an `error` event. Raises EventError when the file cannot be written."""
        events.write("error", code=self.code, message=self.message, next_step=self.next_step, exit_code=self.exit_code)

    def tell(self) -> None:
        """Print this for people, on stderr."""
        sys.stderr.write(f"error [{self.code}]: {self.message}\n  next: {self.next_step}\n")
        sys.stderr.flush()


def say(line: str) -> None:
    """Print a progress line in one write: several ranks share one stdout. Nobody has to listen."""
    with contextlib.suppress(OSError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def bad_parameter(message: str, next_step: str) -> Problem:
    """Return the problem of a parameter that makes no sense (exit code 64)."""
    return Problem("bad-parameter", message, next_step, BAD_PARAMETERS)


def events_unwritable(why: object) -> Problem:
    """Return the problem of an events file that takes no more lines (exit code 74: it cannot tell in any other way)."""
    next_step = "free some disk space, or use another results folder"
    return Problem("events-unwritable", str(why), next_step, CANNOT_WRITE)


def out_of_host_memory(setting: str, otherwise: str = "") -> Problem:
    """Return the problem of a container in which the kernel has killed a process for want of memory.

    `setting` is the compose file's for the limit, `otherwise` what else may help, as the rest of a sentence.
    """
    message = "the container ran out of host memory: a process was killed"
    next_step = f"raise the container's memory limit (--memory, or {setting} with compose alone){otherwise}"
    return Problem("container-out-of-memory", message, next_step)


def first_line(text: str) -> str:
    """Return the first line of `text` that says something, at most 300 characters of it."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "no message")[:300]
