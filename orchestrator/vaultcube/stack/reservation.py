"""The lock between choosing GPUs and the start of the container that gets them: one holder a machine, all users.

It stores nothing: who holds which GPU is always asked of the engine and NVML. It only keeps two `vaultcube` from asking
at the same instant and both finding the same GPU free.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from vaultcube.errors import ReservationError
from vaultcube.stack.signals import Stop

NAME: Final = "vaultcube-gpus.lock"
# Not the temporary folder of the environment: that is another one for every user on some machines.
FOLDERS: Final = (Path("/run/lock"), Path("/tmp"))  # noqa: S108 - shared and sticky is what is wanted
LOCKS: Final = Path("/proc/locks")
POLL_S, PATIENCE_S = 0.05, 2.0
# A queue of starts: each takes a second or two, and one that hangs is ended after two minutes.
LIMIT_S: Final = 300.0
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Reservation:
    """The lock, held. It dies with its process and with what inherited it.

    `docker compose up` inherits it: were we killed while compose goes on, the lock stays until the container runs.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a child must inherit to hold it as well."""
        return () if self._descriptor is None else (self._descriptor,)

    def release(self) -> None:
        """Let the next one choose. Nothing happens when it was released."""
        if self._descriptor is not None:
            # Closing alone would leave it with a child that inherited it.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def reserve(
    stop: Stop, note: Callable[[str], None], *, limit_s: float = LIMIT_S, folders: Sequence[Path] = FOLDERS
) -> Reservation:
    """Take the lock, waiting for whoever has it.

    Args:
        stop: ends the waiting.
        note: gets one line when it takes longer than two seconds.
        limit_s: how long to wait at most, in seconds.
        folders: the first that every user may write to is where it is.

    Raises:
        ReservationError: there is no place for it, somebody put something else there, or it stays held.
        InterruptedRunError: a stop was asked for.
    """
    path = _folder(folders) / NAME
    began, told = time.monotonic(), False
    while True:
        descriptor = _open(path)
        try:
            if _locked(descriptor, path):
                return Reservation(descriptor)
            holder = _holder(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        waited = time.monotonic() - began
        if waited > limit_s:
            raise ReservationError(
                f"{holder} has been choosing GPUs for {waited:.0f} s",
                next_step=f"See what it does: sudo fuser -v {path}.",
            )
        if waited > PATIENCE_S and not told:
            told = True
            note(f"waiting: {holder} is starting a workload on GPUs")
        stop.wait(POLL_S)
        stop.check()


def _folder(folders: Sequence[Path]) -> Path:
    """Return the first folder that everybody may write to. Not the first that we may: root may write everywhere."""
    for folder in folders:
        with suppress(OSError):
            mode = folder.stat().st_mode
            if stat.S_ISDIR(mode) and mode & stat.S_IWOTH:
                return folder
    names = " nor ".join(map(str, folders))
    raise ReservationError(
        f"there is no place for the lock that all users share: neither {names} may be written by everybody",
        next_step=f"Give the last one its usual mode: sudo chmod 1777 {folders[-1]}.",
    )


def _open(path: Path) -> int:
    """Open the lock file, making it where there is none.

    First without O_CREAT: the kernel refuses that on another user's file in a sticky folder (fs.protected_regular).
    To lock a file it is enough to read it.
    """
    try:
        try:
            descriptor = os.open(path, _OPEN)
        except FileNotFoundError:
            descriptor = _create(path)
    except OSError as error:
        why = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise _unusable(path, why) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _unusable(path, "it is no plain file")
    return descriptor


def _create(path: Path) -> int:
    # Readable for everybody from its first moment, whatever this user's umask is.
    before = os.umask(0o022)
    try:
        return os.open(path, _OPEN | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return os.open(path, _OPEN)
    finally:
        os.umask(before)


def _unusable(path: Path, why: str | None) -> ReservationError:
    return ReservationError(f"{path} cannot be used as a lock: {why}", next_step=f"Remove it: sudo rm {path}.")


def _locked(descriptor: int, path: Path) -> bool:
    """Take the lock if it is free, and if its file is still the one that others find."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> str:
    """Return who holds the lock, as far as the kernel tells."""
    inode = f":{os.fstat(descriptor).st_ino}"
    with suppress(OSError):
        for line in LOCKS.read_text(encoding="ascii").splitlines():
            words = line.split()
            # `1: FLOCK ADVISORY WRITE 1234 00:19:5678 0 EOF`; a line with `->` is one that waits.
            if words[1] == "FLOCK" and words[5].endswith(inode):
                return f"another vaultcube (pid {words[4]})"
    return "another vaultcube"
