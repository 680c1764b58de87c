"""The lock of a run directory: held for as long as an orchestrator looks after the run, and dying with its process."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from vaultcube.errors import RunActiveError
from vaultcube.results.writing import writing

LOCK = "run.lock"
PATIENCE, PAUSE_S = 10, 0.02


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of a run directory, and note our pid in it.

    Raises:
        RunActiveError: somebody else holds it.
        FileNotFoundError: there is no such directory.
        ResultsUnwritableError, DiskTooSmallError: the pid cannot be noted.
    """
    path = directory / LOCK
    # Without a buffer: what could not be written must not be tried again when the file is closed.
    with path.open("ab+", buffering=0) as file:
        _take(file)
        with writing(path):
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        yield


def _take(file: IO[bytes]) -> None:
    for _ in range(PATIENCE):
        # `keeper` holds it for a moment while it looks.
        with suppress(BlockingIOError):
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(PAUSE_S)
    raise RunActiveError("somebody else looks after this run", next_step="Look again in a moment: vaultcube ps.")


def keeper(directory: Path) -> int | None:
    """Return the pid of the orchestrator that looks after the run, or None when nobody does."""
    try:
        with (directory / LOCK).open("r", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _pid(file)
    except (OSError, ValueError):
        return None
    return None


def _pid(file: IO[str]) -> int | None:
    """Return the pid in a lock file that is held; whoever took it just now may not have written it yet."""
    for _ in range(PATIENCE):
        file.seek(0)
        if text := file.read():
            return int(text)
        time.sleep(PAUSE_S)
    return None
