"""Recording the GPUs while a run goes on, by a process of our own.

A process and not a thread: NVML blocks where a GPU hangs, and the run must be ended and judged all the same.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vaultcube.errors import VaultCubeError
from vaultcube.results.store import RECORDER_LOG, TELEMETRY, RunDirectory
from vaultcube.results.writing import unwritable
from vaultcube.stack.dockerwords import last_line
from vaultcube.stack.plan import Plan
from vaultcube.stack.process import Child


@contextmanager
def recording(plan: Plan, directory: RunDirectory) -> Iterator[Child | None]:
    """Record the plan's GPUs for as long as the context lasts, by a child, where no container does it.

    A recorder that cannot start or breaks off is no reason to end a run: what it said is kept, and checks that need
    telemetry become UNAVAILABLE.
    """
    if plan.recorder != "off":
        _make_room(plan, directory)
    if plan.recorder != "process":
        yield None
        return
    child = Child(recorder_args(plan, directory))
    try:
        yield child
    finally:
        said = _stop(child)
        if said:
            # A full disk must not hide how the run itself ended.
            with suppress(VaultCubeError):
                directory.write(RECORDER_LOG, said)


def _make_room(plan: Plan, directory: RunDirectory) -> None:
    """Make the folder of the recording; a container writes into it as a member of the workload's group.

    Raises:
        ResultsUnwritableError, DiskTooSmallError: it cannot be made.
    """
    folder = (directory.path / TELEMETRY).parent
    try:
        folder.mkdir(exist_ok=True)
        if plan.recorder == "container":
            os.chown(folder, -1, int(plan.user.partition(":")[2]))
            # Group too, and what is made in it belongs to that group.
            folder.chmod(0o2775)
    except OSError as error:
        raise unwritable(folder, error) from error


def recorder_args(plan: Plan, directory: RunDirectory) -> list[str]:
    """Return the recorder's argv. `-P`: a folder named vaultcube where the user stands is not ours."""
    argv = [sys.executable, "-P", "-m", "vaultcube.gpu.recorder", "--with-parent", str(os.getpid()), "--processes"]
    argv += ["--db", str(directory.path / TELEMETRY), "--period", f"{1 / plan.telemetry_hz:g}"]
    return argv + [word for gpu in plan.gpus for word in ("--gpu", gpu.uuid)]


def _stop(child: Child) -> str:
    """Ask it to stop, wait, and return what it complained of."""
    seen = child.stop()
    if seen is None:
        return "the recorder did not stop when asked and was killed: the driver may hang\n"
    # Stopped before it could listen: a run that short leaves nothing to record.
    if seen.returncode in {0, -signal.SIGTERM} or seen.stderr.strip():
        return seen.stderr
    return f"the recorder ended with exit status {seen.returncode}\n"


def recorder_said(directory: RunDirectory) -> str:
    """Return the last thing the recorder complained of, or nothing."""
    try:
        return last_line((directory.path / RECORDER_LOG).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
