"""The process that loads the GPU. Started by stress.launcher, which outlives it and says how it ended."""

from __future__ import annotations

import os
import sys
import time
import traceback
from pathlib import Path

from common.events import EventError, EventWriter
from common.outcome import DONE, INTERRUPTED
from common.processes import die_with_parent
from common.signals import Signals
from common.watchdog import Board
from stress import fault
from stress.gate import Gate
from stress.outcome import explain
from stress.params import JOB, Job
from stress.session import Session
from training.lifeline import Lifeline, end
from training.outcome import EVENTS_LOST

_UNEXPLAINED = ("worker-failed", "device-failed")
"""Codes of errors whose traceback tells more than we can."""


class Worker:
    """Everything the process does, in order."""

    def __init__(self, job: Job, events: EventWriter, signals: Signals) -> None:
        self._job = job
        self._events = events
        self._signals = signals
        self._started = time.monotonic()
        self._lifeline = Lifeline(Board(Path(job.board_path), 1), [0], job.params.hang_timeout_s, events)
        self._watchdog = self._lifeline.watchdog

    def run(self) -> int:
        """Load the GPU until enough is covered, or it is told to stop; return the exit code.

        Raises:
            Problem: it cannot be done. EventError: an event could not be written. Whatever the device raises.
        """
        self._watchdog.start()
        with self._watchdog.doing("starting", self._job.params.startup_limit_s):
            # After the watchdog has started: a framework that hangs while it loads is noticed as well.
            from ddp import gpu
            from stress import engine

            device = engine.select(self._job.params)
            self._events.write("frameworks", versions=gpu.versions())
            self._events.write("device", **gpu.describe(device, 0))
        self._lifeline.ready()
        loads = engine.Device(self._job.params, device, fault.parse(self._job.fault))
        gate = Gate(Path(self._job.gate_path)) if self._job.gate_path else None
        session = Session(
            self._job,
            self._events,
            loads,
            self._watchdog,
            lambda: self._signals.name is not None,
            held=lambda: gate is not None and gate.shut,
        )
        session.run()
        if session.covered_s < self._job.params.seconds:
            return INTERRUPTED
        self._events.write("finished", elapsed_s=time.monotonic() - self._started, covered_s=session.covered_s)
        self._lifeline.leave()
        return DONE


def main() -> None:
    """Do the job that the environment names, and leave at once: the ordinary way out would wait for the device."""
    die_with_parent()
    signals = Signals("")
    job = Job.from_json(os.environ[JOB])
    try:
        events = EventWriter(Path(job.events_path), 0)
        code = Worker(job, events, signals).run()
    except EventError:
        code = EVENTS_LOST
    except BaseException as error:  # noqa: BLE001 - whatever it was, it ends this process with a word why
        problem = explain(error)
        if problem.code in _UNEXPLAINED:
            traceback.print_exc()
        end(problem, events)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
