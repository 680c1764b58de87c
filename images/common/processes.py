"""Starting and ending processes so that none is ever left over."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess  # noqa: TID251 - the rule is the package's; a launcher launches
import sys
from typing import IO

PARENT = "VAULTCUBE_PARENT_PID"
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it is gone, even if this one is stopped."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Too late if the parent went before the call above.
    if os.getppid() != int(os.environ[PARENT]):
        os._exit(1)


def start(
    module: str,
    environment: dict[str, str],
    *argv: str,
    talks: bool = False,
    stderr: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `python3 -m module` with `environment`; it calls `die_with_parent` first.

    One that `talks` has its stdin and stdout on pipes; `stderr` is the file its stderr goes to, None for our own.
    """
    pipe = subprocess.PIPE if talks else None
    return subprocess.Popen(
        [sys.executable, "-m", module, *argv],
        stdin=pipe,
        stdout=pipe,
        stderr=stderr,
        env=environment | {PARENT: str(os.getpid())},
        # Ctrl-C in a terminal reaches this process alone, which then ends the others in order.
        start_new_session=True,
    )


def ended(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait at most `timeout_s` seconds; say whether `process` has ended."""
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def death(code: int) -> str:
    """Return how a process ended that said nothing of it, by its return code."""
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code} and no word why"


def stop(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """End `process`: ask, wait `grace_s` seconds, kill. What it started dies with it."""
    if process.poll() is None:
        process.terminate()
        if not ended(process, grace_s):
            process.kill()
            process.wait()
