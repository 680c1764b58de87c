"""Tells events and people which stage a start is in, never more than twice a second."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from common.outcome import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from common.events import EventWriter
    from serve.log import Stage

INTERVAL_S = 0.5


class Progress:
    """Writes `stage` events. A new stage is told at once; how far it is, every half second and when it is done."""

    def __init__(self, events: EventWriter, started: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Count seconds from `started`, a reading of `clock`."""
        self._events = events
        self._started = started
        self._clock = clock
        self._stage = ""
        self._told = -INTERVAL_S

    def enter(self, stage: str, detail: str = "", fraction: float | None = None) -> None:
        """Say that the start is in `stage`. Raises EventError."""
        now = self._clock()
        fresh = stage != self._stage
        # What has no fraction is a finding, not a step on the way.
        if not fresh and fraction is not None and fraction < 1 and now - self._told < INTERVAL_S:
            return
        self._stage, self._told = stage, now
        self._events.write("stage", stage=stage, elapsed_s=now - self._started, detail=detail, fraction=fraction)
        if fresh and stage != "ready":
            say(f"vllm: {stage}")

    def follow(self, stages: Iterable[Stage]) -> None:
        """Tell what the server's log showed."""
        for stage in stages:
            self.enter(stage.stage, stage.detail, stage.fraction)
