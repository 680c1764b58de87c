"""Ctrl-C, SIGTERM and SIGHUP as something to ask for instead of an exception that may fly at any line."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from vaultcube.errors import InterruptedRunError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def put_off() -> Iterator[list[int]]:
    """Collect the signals that come meanwhile, for whoever entered this to raise again (`signal.raise_signal`).

    What must not be torn apart stands in it. Only handlers of Python wait, and only in the main thread.
    """
    came: list[int] = []
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: handler for number in SIGNALS if callable(handler := signal.getsignal(number))}
    for number in before:
        signal.signal(number, lambda number, _frame: came.append(number))
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Stop:
    """Remembers a stop signal while it is entered. Waits end at once when one arrives.

    Used as a context manager in the main thread; the handlers that were there before are put back.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._read, self._write = -1, -1

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        for number in SIGNALS:
            # A signal that was ignored from the start (nohup) stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)

    def ask(self) -> None:
        """Ask for a stop, as a SIGTERM would; also when this is not entered."""
        self.received = signal.SIGTERM

    def fileno(self) -> int:
        """Return what becomes readable at a stop, for `select`."""
        return self._read

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        # A full pipe is as good as one byte in it.
        try:
            os.write(self._write, b".")
        except BlockingIOError:
            return

    @property
    def requested(self) -> bool:
        """Say whether a stop was asked for."""
        return self.received is not None

    def wait(self, seconds: float) -> bool:
        """Wait, at most until a stop is asked for; say whether it was."""
        if not self.requested:
            select.select([self._read], [], [], seconds)
        return self.requested

    def check(self) -> None:
        """Raise when a stop was asked for.

        Raises:
            InterruptedRunError: it was.
        """
        if self.received is not None:
            raise InterruptedRunError(f"stopped by {self.received.name}")
