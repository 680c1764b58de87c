"""Carries out what stress.guard decides: shuts the gate, tells people and the events, marks a worker as stopped."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from common.outcome import say
from stress import guard, marks, progress
from stress.outcome import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from common.events import EventWriter
    from stress.gate import Gate
    from stress.guard import Stop
    from stress.params import Params

_PERIOD_S = 0.5
"""Twice as often as the recorder writes: no beat is missed."""
SETTLE_S = 6.0
"""So long a failure may wait for the recorder's word that the GPU is lost."""


class Sentry:
    """Looks after one session's load."""

    def __init__(
        self,
        folder: Path,
        params: Params,
        uuid: str | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch the folder of a soak for the GPU `uuid`, None on the CPU."""
        self._folder = folder
        self._params = params
        self._uuid = uuid
        self._clock = clock
        self._guard = guard.Guard(params.limits, clock())
        self._next = clock()
        self._paused = False

    def look(self, events: EventWriter | None, gate: Gate | None) -> None:
        """Look, unless it was done just now, and let the load run, wait or end.

        Args:
            events: for what is told; None where there is no session to tell of.
            gate: of the load; None where there is none.

        Raises:
            Stopped: the load has to end; it is told, and the worker is marked. EventError: it could not be told.
        """
        now = self._clock()
        if now < self._next:
            return
        self._next = now + _PERIOD_S
        seen = marks.look(self._folder, self._params.gpu, self._params.on_fault)
        decision = self._guard.look(now, seen, self._uuid)
        if isinstance(decision, guard.Stop):
            stop(self._folder, self._params.gpu, decision, events)
        if gate:
            gate.set(shut=decision == "wait")
        if events:
            self._tell(events, paused=decision == "wait" and self._guard.overdue)

    def settle(self, check: Callable[[], None], events: EventWriter | None) -> None:
        """Give the recorder a moment to say that the GPU is lost, when the load has failed: then that is why.

        Args:
            check: raises when there is no time for it.
            events: as for `look`.

        Raises:
            Stopped: it is lost. EventError: it could not be told.
        """
        if self._uuid is None:
            return
        until, beats = self._clock() + SETTLE_S, self._guard.beats
        while self._clock() < until:
            check()
            self.look(events, None)
            sound = self._guard.beats - beats > guard.LOST_BEATS and not self._guard.losing
            silent = self._guard.silent_s > guard.LOST_BEATS and not self._guard.losing
            if sound or silent:
                return
            time.sleep(_PERIOD_S / 2)

    def _tell(self, events: EventWriter, *, paused: bool) -> None:
        if paused == self._paused:
            return
        self._paused = paused
        name, silent_s = self._params.gpu, self._guard.silent_s
        if paused:
            self._since = self._clock() - silent_s
            message = f"the recorder has said nothing new in {self._folder / marks.BEAT} for {silent_s:.0f} s"
            events.write("paused", reason=guard.RECORDER_LOST, message=message)
            sys.stderr.write(
                f"PAUSED [{guard.RECORDER_LOST}]: {name}: {message}, and no load runs unwatched\n"
                f"  next: see the recorder's log, and start it again with `up`; the load then goes on by itself\n"
            )
            sys.stderr.flush()
        else:
            lasted = progress.duration(self._clock() - self._since)
            events.write("resumed", reason=guard.RECORDER_LOST)
            say(f"{name}  the recorder is back after {lasted}: the load goes on")


def stop(folder: Path, key: str, decision: Stop, events: EventWriter | None) -> None:
    """Mark the worker `key` as stopped and tell of it.

    Raises:
        Stopped: always. EventError: it could not be told.
    """
    problem = Stopped(decision.code, decision.message, decision.next_step)
    try:
        marks.write(folder, key, decision)
    except OSError as error:
        sys.stderr.write(f"{key}: {marks.own(folder, key)} cannot be written: {error.strerror}\n")
    if events:
        problem.record(events)
    raise problem


def admit(folder: Path, key: str, on_fault: str) -> None:
    """Let a worker begin, unless it, or everybody, was stopped before.

    Raises:
        Stopped: it may not. No event is written: nothing began.
    """
    mark = marks.own(folder, key)
    why = marks.said(mark)
    if why is not None:
        message = f"{key} was stopped before, and does not go on by itself: {why or 'nobody said why'}"
        raise Stopped("stopped", message, f"see to it, then start the soak with `up`, which removes {mark}")
    seen = marks.look(folder, key, on_fault)
    decision = guard.Guard(guard.Limits(on_fault=on_fault), 0.0).look(0.0, seen, None)
    if isinstance(decision, guard.Stop):
        stop(folder, key, decision, None)
