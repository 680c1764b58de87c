"""A gate between the launcher and the process that loads: shut, the load waits. One byte in a shared file."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Gate:
    """Open or shut, for both processes."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Map the file at `path`; `create` makes it anew, and shut.

        Raises:
            OSError: it can be neither opened nor made.
        """
        fd = os.open(path, os.O_RDWR | (os.O_CREAT | os.O_TRUNC if create else 0), 0o600)
        try:
            if create:
                os.ftruncate(fd, 1)
            self._map = mmap.mmap(fd, 1)
        finally:
            os.close(fd)

    @property
    def shut(self) -> bool:
        """Say whether the load has to wait."""
        return self._map[0] == 0

    def set(self, *, shut: bool) -> None:
        """Open it, or shut it."""
        self._map[0] = 0 if shut else 1
