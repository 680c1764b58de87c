"""A thread that ends the process when its work stands still, and a board on which all ranks show that they live."""

from __future__ import annotations

import contextlib
import faulthandler
import math
import mmap
import os
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_SLOT = struct.Struct("d")
_TICK_S = 0.5


class Board:
    """One monotonic time stamp a rank in a shared file: a stopped process cannot fake a beat, however it stopped.

    Slots hold CLOCK_MONOTONIC seconds, which all processes of a machine share; 0 means "not started yet".
    """

    def __init__(self, path: Path, ranks: int, *, create: bool = False) -> None:
        """Map the file at `path` with one slot for each of `ranks`; `create` makes it anew."""
        size = ranks * _SLOT.size
        flags = os.O_RDWR | (os.O_CREAT | os.O_TRUNC if create else 0)
        fd = os.open(path, flags, 0o600)
        try:
            if create:
                os.ftruncate(fd, size)
            self._map = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        self.ranks = ranks

    def beat(self, rank: int) -> None:
        """Stamp the slot of `rank` with the present time."""
        _SLOT.pack_into(self._map, rank * _SLOT.size, time.monotonic())

    def leave(self, rank: int) -> None:
        """Say that `rank` is done and will not beat again."""
        _SLOT.pack_into(self._map, rank * _SLOT.size, math.inf)

    def last(self, rank: int) -> float:
        """Return the last stamp of `rank` in CLOCK_MONOTONIC seconds, 0.0 before the first, infinity after the last."""
        return float(_SLOT.unpack_from(self._map, rank * _SLOT.size)[0])


class Watchdog:
    """Calls `on_hang(what, seconds, code)` when no `beat()` came for as long as the present limit allows."""

    def __init__(
        self,
        limit_s: float,
        on_hang: Callable[[str, float, str], None],
        *,
        alive: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch with `limit_s` seconds as the everyday limit; `alive` is called on every tick of the thread."""
        self._everyday_s = limit_s
        self._on_hang = on_hang
        self._alive = alive
        self._clock = clock
        self._limit_s: float | None = limit_s
        self._code = "hang"
        self._what = "starting"
        self._last = clock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._last = self._clock()
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; `on_hang` is not called after this returns."""
        self._stop.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def beat(self) -> None:
        """Say that a step is done. Cheap enough for the timed loop: one assignment."""
        self._last = self._clock()

    @contextlib.contextmanager
    def doing(self, what: str, limit_s: float | None = None, code: str = "hang") -> Iterator[None]:
        """Name what goes on, with a limit of its own in seconds (None: the everyday one)."""
        with self._switched(what, self._everyday_s if limit_s is None else limit_s, code):
            yield

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Do not bark: this rank waits for another one, which has a watchdog of its own."""
        with self._switched(what, None, "hang"):
            yield

    @contextlib.contextmanager
    def _switched(self, what: str, limit_s: float | None, code: str) -> Iterator[None]:
        before = (self._what, self._limit_s, self._code)
        # The stamp goes first: the thread may look between any two of these.
        self._last = self._clock()
        self._what, self._limit_s, self._code = what, limit_s, code
        try:
            yield
        finally:
            self._last = self._clock()
            self._what, self._limit_s, self._code = before

    def check(self) -> None:
        """Look once; the thread does this on every tick."""
        limit_s = self._limit_s
        silent_s = self._clock() - self._last
        if limit_s is not None and silent_s > limit_s and not self._stop.is_set():
            self._on_hang(self._what, silent_s, self._code)

    def _watch(self) -> None:
        while not self._stop.wait(_TICK_S):
            self._alive()
            self.check()


def dump_stacks() -> None:
    """Print where every thread stands to stderr: the only trace a hang leaves."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
