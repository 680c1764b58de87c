"""How a process that works for a launcher shows that it lives, and how it ends with a word why."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from common.events import EventError, EventWriter
from common.outcome import Problem
from common.watchdog import Board, Watchdog, dump_stacks
from training.outcome import EVENTS_LOST, UNEXPLAINED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from training.params import Job, P


class Lifeline:
    """Beats on the launcher's `board` for `ranks`, and ends this process when its work stands still.

    Attributes:
        watchdog: to be told of every step.
    """

    def __init__(self, board: Board, ranks: Sequence[int], hang_timeout_s: float, events: EventWriter) -> None:
        """Watch; no progress for `hang_timeout_s` seconds is a hang, which is written to `events`."""
        self._board = board
        self._ranks = ranks
        self._events = events
        self._ready = False
        self.watchdog = Watchdog(hang_timeout_s, self._hang, alive=self._beat)

    def ready(self) -> None:
        """Begin to beat. Loading libraries keeps the interpreter to itself for seconds: blank until that is over."""
        self._ready = True
        self._beat()

    def leave(self) -> None:
        """Say that the work is done."""
        self.watchdog.stop()
        for rank in self._ranks:
            self._board.leave(rank)

    def _beat(self) -> None:
        if self._ready:
            for rank in self._ranks:
                self._board.beat(rank)

    def _hang(self, what: str, silent_s: float, code: str) -> None:
        """End this process from the watchdog's thread: nothing else gets past a call stuck in a driver."""
        dump_stacks()
        problem = Problem(
            code,
            f"no progress for {silent_s:.0f} s while {what}",
            "see the stacks in the container's log, and the host's kernel log for the GPU",
        )
        end(problem, self._events)


def end(problem: Problem, events: EventWriter) -> NoReturn:
    """Write the error event and leave at once: ordinary clean-up would wait for others that no longer answer."""
    code = problem.exit_code
    try:
        problem.record(events)
    except EventError:
        code = EVENTS_LOST
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def open_events(job: Job[P], rank: int) -> EventWriter:
    """Return the writer of `rank`'s events. Does not return when the file cannot be written."""
    try:
        return EventWriter(Path(job.events_path), rank)
    except EventError:
        os._exit(EVENTS_LOST)


def to_the_end(work: Callable[[], None], explain: Callable[[BaseException], Problem], events: EventWriter) -> None:
    """Do `work`. Does not return when it fails: `explain` says why, and `events` gets it."""
    try:
        work()
    except EventError:
        os._exit(EVENTS_LOST)
    except BaseException as error:  # noqa: BLE001 - whatever it was, it ends this process with a word why
        problem = explain(error)
        if problem.code in UNEXPLAINED:
            traceback.print_exc()
        end(problem, events)
