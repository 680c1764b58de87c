"""One rank: joins the others, is measured alone, then together with them. Started by torchrun (ddp.agent)."""

from __future__ import annotations

import gc
import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from common import windows
from common.events import EventError, EventWriter, finite_or_none
from common.outcome import DONE, Problem, say
from common.processes import die_with_parent
from common.watchdog import Board, Watchdog, dump_stacks
from ddp.agent import JOB
from ddp.outcome import EVENTS_LOST, explain
from ddp.params import Job

if TYPE_CHECKING:
    from ddp.groups import Groups
    from ddp.params import Params
    from ddp.training import Training


class Rank:
    """Everything one rank does, in order."""

    def __init__(self, job: Job, rank: int, events: EventWriter) -> None:
        self._params: Params = job.params
        self._rank = rank
        self._events = events
        self._board = Board(Path(job.board_path), job.params.ranks)
        self._started = time.monotonic()
        self._ready = False
        self._watchdog = Watchdog(job.params.hang_timeout_s, self._hang, alive=self._show_life)

    def _show_life(self) -> None:
        # Loading libraries keeps the interpreter to itself for seconds: the board stays blank until that is over.
        if self._ready:
            self._board.beat(self._rank)

    def _hang(self, what: str, silent_s: float, code: str) -> None:
        """End this process from the watchdog's thread: nothing else gets past a call stuck in a driver."""
        dump_stacks()
        problem = Problem(
            code,
            f"no progress for {silent_s:.0f} s while {what}",
            "see the stacks in the container's log, and the host's kernel log for the GPU",
        )
        end(problem, self._events)

    def run(self) -> None:
        """Measure and write the events.

        Raises:
            Problem: it cannot be done, or failed. EventError: an event could not be written.
        """
        self._watchdog.start()
        with self._watchdog.doing("starting", self._params.startup_limit_s):
            # After the watchdog has started: a framework that hangs while it loads is noticed as well.
            from ddp import gpu, groups, training

            images = training.set_up(self._params)
            device = gpu.select(self._params, int(os.environ["LOCAL_RANK"]))
            if self._rank == 0:
                self._events.write("frameworks", versions=gpu.versions())
            self._events.write("device", **gpu.describe(device, int(os.environ["LOCAL_RANK"])))
            comms = groups.Groups(self._params, device)
        self._ready = True
        self._show_life()
        with self._watchdog.doing("all-reducing", self._params.allreduce_timeout_s, "allreduce-timeout"):
            outcome = comms.check_allreduce(device)
            self._events.write("allreduce", **outcome)
            mismatches = comms.gather(outcome["mismatches"])
        if any(mismatches):
            raise groups.wrong_sums(mismatches)

        def build(*, together: bool) -> Training:
            with self._watchdog.doing("building the model"):
                rank, ranks = (comms.rank, comms.world) if together else (0, 1)
                return training.Training(self._params, device, images, rank=rank, ranks=ranks, ddp=together)

        for subject in range(comms.world):
            if subject == self._rank:
                self._measure(build(together=False), subject, position=subject)
                # The next phase starts from an empty device.
                gc.collect()
            with self._watchdog.waiting(f"rank {subject} is measured alone"):
                comms.barrier()
        everybody = build(together=True)
        self._measure(everybody, None, position=comms.world, comms=comms)
        loss, memory = everybody.loss(), gpu.peak_memory(device)
        with self._watchdog.doing("leaving"):
            # Nobody has finished as long as anybody is still in a window.
            comms.barrier()
            self._finish(loss, memory)
            comms.close()
        self._watchdog.stop()
        self._board.leave(self._rank)

    def _finish(self, loss: float, memory_peak_bytes: int | None) -> None:
        self._events.write(
            "finished",
            elapsed_s=time.monotonic() - self._started,
            loss=finite_or_none(loss),
            memory_peak_bytes=memory_peak_bytes,
        )

    def _measure(self, training: Training, subject: int | None, *, position: int, comms: Groups | None = None) -> None:
        """Warm up, then time the windows: of rank `subject` alone, or (None) of all ranks, which `comms` joins.

        `position` counts the phases before this one.
        """
        params, speaks = self._params, comms is None or self._rank == 0
        phase = "solo" if comms is None else "all"
        name = "all ranks" if subject is None else f"rank {subject} alone"
        about = {"phase": phase, "subject_rank": subject}
        total = (params.ranks + 1) * (params.windows + 1)
        done = position * (params.windows + 1)

        def tell(line: str) -> None:
            nonlocal done
            done += 1
            if speaks:
                self._events.write("progress", done=done, total=total)
                say(f"[{done}/{total}] {name}: {line}")

        def step() -> None:
            training.step()
            self._watchdog.beat()

        def report(window: windows.Window) -> None:
            samples = window.steps * params.batch_size
            self._events.write(
                "window",
                **about,
                index=window.index,
                steps=window.steps,
                samples=samples,
                elapsed_s=window.elapsed_s,
            )
            rate = samples / window.elapsed_s
            each = "" if comms is None else " on rank 0"
            tell(f"window {window.index + 1} of {params.windows}, {rate:.1f} samples/s{each}")

        with self._watchdog.doing(f"measuring {name}"):
            if speaks:
                self._events.write("phase", **about)
            warmup = windows.warm_up(
                step,
                training.sync,
                min_steps=params.warmup_steps,
                max_steps=params.max_warmup_steps,
                agree=comms.all_agree if comms else lambda even: even,
            )
            if speaks:
                self._events.write(
                    "warmup",
                    **about,
                    steps=warmup.steps,
                    plateau=warmup.plateau,
                    step_time_s=warmup.step_time_s,
                )
            even = "steady" if warmup.plateau else "not steady"
            tell(f"warmed up in {warmup.steps} steps, {even} at {warmup.step_time_s * 1000:.1f} ms a step")
            windows.measure(
                step,
                training.sync,
                windows=params.windows,
                steps=params.steps_per_window,
                report=report,
                barrier=comms.barrier if comms else lambda: None,
            )


def end(problem: Problem, events: EventWriter) -> NoReturn:
    """Write the error event and leave at once: ordinary clean-up would wait for a group that no longer answers."""
    code = problem.exit_code
    try:
        problem.record(events)
    except EventError:
        code = EVENTS_LOST
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> int:
    """Run the rank that the environment names. Does not return when it fails."""
    die_with_parent()
    job = Job.from_json(os.environ[JOB])
    rank = int(os.environ["RANK"])
    try:
        events = EventWriter(Path(job.events_path), rank)
    except EventError:
        os._exit(EVENTS_LOST)
    try:
        Rank(job, rank, events).run()
    except EventError:
        os._exit(EVENTS_LOST)
    except BaseException as error:  # noqa: BLE001 - whatever it was, it ends this rank with a word why
        problem = explain(error, job.params)
        if problem.code in ("rank-failed", "device-failed"):
            traceback.print_exc()
        end(problem, events)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
