"""Being told to stop."""

from __future__ import annotations

import signal

from common.outcome import INTERRUPTED, Problem


class Signals:
    """Remembers the first SIGTERM or SIGINT.

    Attributes:
        name: which one came; None before.
    """

    def __init__(self, next_step: str) -> None:
        """Take both over; `next_step` tells people what to do after a stop."""
        self.name: str | None = None
        self._next_step = next_step
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: object) -> None:
        self.name = self.name or signal.Signals(number).name

    def check(self) -> None:
        """Raise the problem (exit code 75) of having been told to stop."""
        if self.name:
            raise Problem("interrupted", f"stopped by {self.name}", self._next_step, INTERRUPTED)
