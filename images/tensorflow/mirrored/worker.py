"""The process that trains: TensorFlow drives all devices from one. Started by training.launcher."""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.events import finite_or_none
from common.outcome import DONE
from common.processes import die_with_parent
from mirrored.outcome import explain
from mirrored.program import MirroredParams, read_log
from training.allreduce import wrong_sums
from training.lifeline import Lifeline, open_events, to_the_end
from training.params import Job
from training.phases import Phases
from training.program import JOB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from common.events import EventWriter
    from common.outcome import Problem
    from mirrored.devices import Found
    from mirrored.images import Images
    from mirrored.step import Training


_BUILD_LIMIT_S = 900.0
"""Tracing and compiling show no progress, and take minutes for a large model on few cores."""


class Worker:
    """Everything the run does, in order. Every rank has a writer of events, and all of them this process."""

    def __init__(self, job: Job[MirroredParams], writers: Sequence[EventWriter]) -> None:
        self._params = job.params
        self._writers = writers
        self._log = Path(job.log_path)
        self._totals: dict[int, int] = {}
        self._proven = False
        self._started = time.monotonic()
        self._lifeline = Lifeline(job.board, range(job.params.ranks), job.params.hang_timeout_s, writers[0])
        self._watchdog = self._lifeline.watchdog

    def explain(self, error: BaseException) -> Problem:
        """Turn whatever stopped the work into a problem."""
        return explain(error, self._params, read_log(self._log), self._totals, proven=self._proven)

    def run(self) -> None:
        """Measure and write the events.

        Raises:
            Problem: it cannot be done, or failed. EventError: an event could not be written.
        """
        params = self._params
        self._watchdog.start()
        with self._watchdog.doing("starting", params.startup_limit_s):
            # After the watchdog has started: a framework that hangs while it loads is noticed as well.
            from mirrored import devices, images, step

            step.check_model(params)
            devices.set_up(params)
            found = devices.find(params)
            files = images.open_images(params) if params.data else None
            self._writers[0].write("frameworks", versions=devices.versions())
            self._writers[0].write("detection", wanted=found.wanted, found=len(found.listed), names=found.listed)
            if len(found.names) < params.ranks:
                raise devices.fewer(found, read_log(self._log))
            devices.start()
            for rank, writer in enumerate(self._writers):
                fields = devices.describe(params, found, rank)
                self._totals[rank] = fields["memory_bytes"]
                writer.write("device", **fields)
            self._lifeline.ready()
            self._prove(found)
        strategy = devices.all_together(found)
        with self._watchdog.doing("all-reducing", params.allreduce_timeout_s, "allreduce-timeout"):
            self._check_sums(strategy)
        self._proven = True

        phases = Phases(params, self._watchdog)
        for subject, writer in enumerate(self._writers):
            alone = self._build(devices.one(found, subject), [found.names[subject]], files, [subject])
            phases.measure(alone, subject, [writer], writer)
            # The next phase starts from an empty device.
            del alone
            gc.collect()
        together = self._build(strategy, found.names, files, range(params.ranks))
        phases.measure(together, None, self._writers, self._writers[0])
        losses = together.losses()
        for rank, writer in enumerate(self._writers):
            writer.write(
                "finished",
                elapsed_s=time.monotonic() - self._started,
                loss=finite_or_none(losses[rank]),
                memory_peak_bytes=devices.peak_memory(found.names[rank]),
            )
        self._lifeline.leave()

    def _prove(self, found: Found) -> None:
        """Write what each device computes and remembers. Raises the problem of one that does it wrongly."""
        from mirrored import checks, devices

        for device, writer in zip(found.names, self._writers, strict=True):
            for operation in checks.operations(device):
                writer.write("operation", **operation)
                if operation["mismatches"]:
                    raise checks.wrong_result(device, operation["name"], operation["mismatches"])
            fields, wrong = checks.allocation(self._params, device, devices.peak_memory)
            writer.write("allocation", **fields)
            if wrong:
                raise checks.wrong_result(device, "memory", wrong)
            self._watchdog.beat()

    def _check_sums(self, strategy: Any) -> None:
        from mirrored import checks

        outcomes = checks.allreduce(strategy, self._params)
        for writer, outcome in zip(self._writers, outcomes, strict=True):
            writer.write("allreduce", **outcome)
        if not all(outcome["correct"] for outcome in outcomes):
            raise wrong_sums([outcome["mismatches"] for outcome in outcomes])

    def _build(self, strategy: Any, names: Sequence[str], files: Images | None, ranks: Sequence[int]) -> Training:
        from mirrored import step

        with self._watchdog.doing("building the model", max(_BUILD_LIMIT_S, self._params.hang_timeout_s)):
            return step.Training(self._params, strategy, names, files, ranks=ranks)


def main() -> int:
    """Run the job in the environment. Does not return when it fails."""
    die_with_parent()
    job = Job.from_json(os.environ[JOB], MirroredParams)
    writers = [open_events(job, rank) for rank in range(job.params.ranks)]
    worker = Worker(job, writers)
    to_the_end(worker.run, worker.explain, writers[0])
    return DONE


if __name__ == "__main__":
    sys.exit(main())
