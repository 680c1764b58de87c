"""What a write to a run directory that failed is called."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vaultcube.errors import DiskTooSmallError, ResultsUnwritableError, VaultCubeError

ROOM = "Free some space, or choose another place with --results-dir."


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Name what fails in it.

    Raises:
        ResultsUnwritableError, DiskTooSmallError: as named.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(target, error) from error


def unwritable(target: Path, error: OSError) -> VaultCubeError:
    """Name the error behind a failed write."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskTooSmallError(f"the disk of {target} is full", next_step=ROOM)
    return ResultsUnwritableError(f"cannot write {target}: {error.strerror or error}")
