"""Looking in a thread of its own, so that a driver or an engine that hangs does not keep a view from its user."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from datetime import datetime
from time import monotonic
from typing import Self

from vaultcube.stack.watch import Frame, Watch

# How long the first look waits for the engine, in seconds: the first picture should say who holds what.
FIRST_S = 1.0
# How long the end waits for a look that is under way, in seconds.
LEAVE_S = 1.0


class Sampler:
    """Frames at a steady pace. As a context manager.

    Args:
        watch: what looks; it belongs to the thread from now on.
        interval_s: from one look to the next. Looks that take longer leave some out, and never pile up.

    Attributes:
        frame: the last one, None before the first.
        began: when (local time).
    """

    def __init__(self, watch: Watch, interval_s: float) -> None:
        self.frame: Frame | None = None
        self.began = datetime.now().astimezone()
        self._watch, self._interval_s = watch, interval_s
        self._error: BaseException | None = None
        self._end = threading.Event()
        self._seen_at = monotonic()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        # One that hangs in the driver is left to the end of the process, and its pipe with it.
        self._thread.join(LEAVE_S)
        if not self._thread.is_alive():
            os.close(self._read)
            os.close(self._write)

    def fileno(self) -> int:
        """Return what becomes readable with every new frame, for `select`."""
        return self._read

    def heed(self) -> None:
        """Take note of the frames since the last call.

        Raises:
            Exception: whatever ended the thread, a bug of ours.
        """
        with suppress(BlockingIOError):
            os.read(self._read, 4096)
        if self._error is not None:
            raise self._error

    def silent_s(self) -> float:
        """Return for how many seconds there should have been a frame and was none; 0 while all is well."""
        late = monotonic() - self._seen_at - self._interval_s
        return late if late > max(2 * self._interval_s, FIRST_S + 1) else 0.0

    def _run(self) -> None:
        due, patience_s = monotonic(), FIRST_S
        try:
            while not self._end.is_set():
                self.frame = self._watch.look(patience_s)
                patience_s = 0.0
                self._seen_at = monotonic()
                self._tell()
                due = max(due + self._interval_s, self._seen_at)
                self._end.wait(due - self._seen_at)
            self._watch.close()
        except BaseException as error:  # noqa: BLE001 - told to the thread that shows
            self._error = error
            self._tell()

    def _tell(self) -> None:
        # A full pipe is as good as one more byte in it.
        with suppress(BlockingIOError):
            os.write(self._write, b".")
