"""The recorder's command line, and its words when a file cannot be written. Standard library only."""

import argparse
import errno
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

PERIOD_S: Final = (0.1, 60.0)
# What SQLite needs at least to go on: with less it may say anything.
_LEAST_BYTES: Final = 64 << 10


class _ArgumentParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(os.EX_USAGE, f"recorder: {message}\n")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line asks for; nonsense ends the process with exit code 64."""
    parser = _ArgumentParser(prog="recorder", description="Records GPUs into an SQLite file until SIGTERM or SIGINT.")
    parser.add_argument("--db", required=True, metavar="FILE", help="begun, or gone on with where it is there already")
    parser.add_argument("--stamp", action="store_true", help="put it into a folder of its own, recorder-<UTC time>")
    parser.add_argument("--period", type=float, default=1.0, metavar="SECONDS", help="between two readings (default 1)")
    parser.add_argument("--gpu", action="append", default=[], metavar="UUID", help="may be given again; default all")
    parser.add_argument("--processes", action="store_true", help="record who computes, too")
    parser.add_argument(
        "--beat", metavar="FILE", help="show in it, once a second, that this lives and how hot GPUs are"
    )
    parser.add_argument("--until", metavar="FILE", help="end when it is there; stopped before, the exit code is 75")
    parser.add_argument(
        "--with-parent", type=int, nargs="?", const=os.getppid(), metavar="PID", help="end when the parent process ends"
    )
    args = parser.parse_args(argv)
    low, high = PERIOD_S
    if not low <= args.period <= high:
        parser.error(f"--period is {low:g} to {high:g} seconds, not {args.period:g}")
    return args


def place(path: str, *, stamp: bool) -> str:
    """Return where the file is to be, its folder made.

    Raises:
        OSError: it cannot be made.
    """
    folder, name = os.path.split(path)
    if stamp:
        # Whoever owns the folder above (its group is inherited) can clear what a container's user wrote.
        os.umask(0o002)
        folder = str(Path(folder, time.strftime("recorder-%Y%m%dT%H%M%SZ", time.gmtime())))
    Path(folder or ".").mkdir(parents=True, exist_ok=True)
    return str(Path(folder, name))


def unwritable(path: str, error: Exception) -> str:
    """Return in one line why nothing is recorded any more; a full disk is called one, whatever SQLite calls it."""
    disk = _full(path, error)
    if disk is None:
        return f"{path} cannot be written: {error}"
    return f"RECORDING HAS ENDED: {path} cannot be written: the disk is full (the one of {disk})"


def _full(path: str, error: Exception) -> str | None:
    """Return where the disk of a file is mounted, if it is for want of space that nothing can be written."""
    folder = Path(path).absolute().parent
    while not folder.is_dir():
        folder = folder.parent
    named = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
    if isinstance(error, sqlite3.OperationalError):
        number = getattr(error, "sqlite_errorcode", 0) & 0xFF
        # Where there is no room for its memory-mapped index SQLite speaks of an I/O error.
        named = number == sqlite3.SQLITE_FULL or (number == sqlite3.SQLITE_IOERR and _free_bytes(folder) < _LEAST_BYTES)
    if not named:
        return None
    mounts = (one for one in (folder, *folder.parents) if os.path.ismount(one))
    return str(next(mounts, folder))


def _free_bytes(folder: Path) -> int:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return 0
    return disk.f_bavail * disk.f_frsize
