"""One rank: joins the others, is measured alone, then together with them. Started by torchrun (ddp.agent)."""

from __future__ import annotations

import gc
import os
import sys
import time
from typing import TYPE_CHECKING

from common.events import EventWriter, finite_or_none
from common.outcome import DONE
from common.processes import die_with_parent
from ddp.program import DdpParams
from training.allreduce import wrong_sums
from training.lifeline import Lifeline, open_events, to_the_end
from training.outcome import explain
from training.params import Job
from training.phases import Phases
from training.program import JOB

if TYPE_CHECKING:
    from ddp.step import Training


class Rank:
    """Everything one rank does, in order."""

    def __init__(self, job: Job[DdpParams], rank: int, events: EventWriter) -> None:
        self._params = job.params
        self._rank = rank
        self._events = events
        self._started = time.monotonic()
        self._lifeline = Lifeline(job.board, [rank], job.params.hang_timeout_s, events)
        self._watchdog = self._lifeline.watchdog

    def run(self) -> None:
        """Measure and write the events.

        Raises:
            Problem: it cannot be done, or failed. EventError: an event could not be written.
        """
        self._watchdog.start()
        with self._watchdog.doing("starting", self._params.startup_limit_s):
            # After the watchdog has started: a framework that hangs while it loads is noticed as well.
            from ddp import gpu, groups, step

            images = step.set_up(self._params)
            device = gpu.select(self._params, int(os.environ["LOCAL_RANK"]))
            if self._rank == 0:
                self._events.write("frameworks", versions=gpu.versions())
            self._events.write("device", **gpu.describe(device, int(os.environ["LOCAL_RANK"])))
            comms = groups.Groups(self._params, device)
        self._lifeline.ready()
        with self._watchdog.doing("all-reducing", self._params.allreduce_timeout_s, "allreduce-timeout"):
            outcome = comms.check_allreduce(device)
            self._events.write("allreduce", **outcome)
            mismatches = comms.gather(outcome["mismatches"])
        if any(mismatches):
            raise wrong_sums(mismatches)

        def build(*, together: bool) -> Training:
            with self._watchdog.doing("building the model"):
                rank, ranks = (comms.rank, comms.world) if together else (0, 1)
                return step.Training(self._params, device, images, rank=rank, ranks=ranks, ddp=together)

        phases = Phases(self._params, self._watchdog)
        for subject in range(comms.world):
            if subject == self._rank:
                phases.measure(build(together=False), subject, [self._events], self._events)
                # The next phase starts from an empty device.
                gc.collect()
            with self._watchdog.waiting(f"rank {subject} is measured alone"):
                comms.barrier()
        everybody = build(together=True)
        speaker = self._events if self._rank == 0 else None
        phases.measure(everybody, None, [self._events], speaker, agree=comms.all_agree, barrier=comms.barrier)
        loss, memory = everybody.loss(), gpu.peak_memory(device)
        with self._watchdog.doing("leaving"):
            # Nobody has finished as long as anybody is still in a window.
            comms.barrier()
            self._finish(loss, memory)
            comms.close()
        self._lifeline.leave()

    def _finish(self, loss: float, memory_peak_bytes: int | None) -> None:
        self._events.write(
            "finished",
            elapsed_s=time.monotonic() - self._started,
            loss=finite_or_none(loss),
            memory_peak_bytes=memory_peak_bytes,
        )


def main() -> int:
    """Run the rank that the environment names. Does not return when it fails."""
    die_with_parent()
    job = Job.from_json(os.environ[JOB], DdpParams)
    rank = int(os.environ["RANK"])
    events = open_events(job, rank)
    to_the_end(lambda: Rank(job, rank, events).run(), lambda error: explain(error, job.params), events)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
