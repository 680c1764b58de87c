"""Asking other programs, each with a time limit. The only file of this room with subprocess."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

# What a health check asks answers at once; a tool that hangs is itself a finding.
LIMIT_S: Final = 15.0
# Where root's tools are; the PATH of other users and of services lacks them.
ROOT_PATH: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")


class Answer(NamedTuple):
    """What a program answered.

    Attributes:
        argv: what was called.
        returncode: its exit status; None when there is no such program, or it was ended at its time limit.
        stdout: what it wrote.
        stderr: what it complained of.
        missing: whether there is no such program.
    """

    argv: tuple[str, ...]
    returncode: int | None
    stdout: str = ""
    stderr: str = ""
    missing: bool = False

    @property
    def ok(self) -> bool:
        """Say whether it ended with 0."""
        return self.returncode == 0

    @property
    def why(self) -> str:
        """Return why there is no good answer, in one phrase."""
        words = " ".join(self.argv[:3])
        if self.missing:
            return f"{self.argv[0]} is not installed"
        if self.returncode is None:
            return f"{words} did not answer in time"
        said = [line.strip() for line in (self.stderr or self.stdout).splitlines() if line.strip()]
        return f"{words}: {said[-1][:200]}" if said else f"{words} ended with {self.returncode}"


def search_path() -> str:
    """Return where programs are looked for: our PATH, and root's."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *ROOT_PATH])


def ask(argv: Sequence[str], *, limit_s: float = LIMIT_S, data: bytes = b"") -> Answer:
    """Run a program to its end and return what it said, whatever that is. Raises only what interrupts us.

    Args:
        argv: the program and its arguments.
        limit_s: how long it may take; then it is killed with all its children.
        data: what it reads from its standard input.
    """
    environment = {**os.environ, "PATH": search_path(), "LC_ALL": "C.UTF-8", "LANGUAGE": "C"}
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE if data else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except FileNotFoundError:
        return Answer(tuple(argv), None, missing=True)
    except OSError as error:
        return Answer(tuple(argv), 126, stderr=error.strerror or str(error))
    try:
        out, err = child.communicate(data or None, timeout=limit_s)
    except subprocess.TimeoutExpired:
        out, err = _end(child)
        return Answer(tuple(argv), None, _text(out), _text(err))
    except BaseException:
        _end(child)
        raise
    return Answer(tuple(argv), child.returncode, _text(out), _text(err))


def _end(child: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Kill a program with all its children and return what it had written."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    # A grandchild that left the session may hold the pipes open.
    with suppress(subprocess.TimeoutExpired):
        return child.communicate(timeout=1)
    return b"", b""


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", errors="replace")
