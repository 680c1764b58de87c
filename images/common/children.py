"""A foreign program as a child that leaves nothing behind: neither its own children, nor itself when this process dies.

`start` puts it into a session of its own. Three things watch over it: the kernel kills it with its parent
(PR_SET_PDEATHSIG), a guard process kills the rest of its group when the parent is gone, and `end` kills what it
orphaned, which the kernel hands to this process (PR_SET_CHILD_SUBREAPER).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess  # noqa: TID251 - the rule is the package's; a launcher launches
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from common.processes import PARENT, die_with_parent, ended

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.02


class Child:
    """A program in a process group of its own; its stdout and stderr come out of one pipe.

    Attributes:
        process: the program itself.
    """

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start `argv`, the first of which is a file to execute.

        Raises:
            OSError: no process can be started.
        """
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
        env = {**environment, PARENT: str(os.getpid())}
        # -S: whoever only executes another program needs no packages.
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-m", "common.children", "run", *argv],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._guard = subprocess.Popen(
            [sys.executable, "-S", "-m", "common.children", "guard", str(self.process.pid)],
            env=env,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def end(self, grace_s: float) -> None:
        """End it: ask, wait `grace_s` seconds, kill. Nothing it started lives when this returns."""
        if self.process.poll() is None:
            self.process.terminate()
            ended(self.process, grace_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._guard.kill()
        self._guard.wait()
        if self._guard.stdin:
            self._guard.stdin.close()
        _reap()


def _reap() -> None:
    """Kill and collect what orphans are left; those that die make the next ones ours."""
    while True:
        for child in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            time.sleep(_POLL_S)


def _children() -> list[int]:
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in (task / "children").read_text(encoding="ascii").split()]
    return found


def main(argv: Sequence[str]) -> int:
    """Be the start of the program (`run`), or the guard of a process group (`guard`)."""
    what, *rest = argv
    if what == "run":
        die_with_parent()
        del os.environ[PARENT]
        os.execv(rest[0], list(rest))  # noqa: S606 - no shell is wanted
    # Empty when the parent is gone, however it went.
    sys.stdin.buffer.read()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(int(rest[0]), signal.SIGKILL)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
