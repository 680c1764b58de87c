"""The phases of a run: one rank alone after the other, then all together; the same for every framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from common import windows
from common.outcome import say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from common.events import EventWriter
    from common.watchdog import Watchdog
    from training.params import Params


class Trainee(Protocol):
    """What is measured."""

    def step(self) -> None:
        """Train on one batch; may return before the device is done with it."""

    def sync(self) -> None:
        """Return when the device has done everything it was given."""


class Phases:
    """Measures the phases of a run, and writes what they say."""

    def __init__(self, params: Params, watchdog: Watchdog) -> None:
        self._params = params
        self._watchdog = watchdog

    def measure(
        self,
        trainee: Trainee,
        subject: int | None,
        writers: Sequence[EventWriter],
        speaker: EventWriter | None,
        *,
        agree: Callable[[bool], bool] = lambda even: even,
        barrier: Callable[[], None] = lambda: None,
    ) -> None:
        """Warm up, then time the windows: of rank `subject` alone, or (None) of all ranks together.

        A window goes to each of `writers`, those of the ranks that this process trains; what is true of all ranks
        goes to `speaker`, where another process does not say it. `agree` and `barrier` join processes.

        Raises:
            EventError: an event could not be written.
        """
        params = self._params
        phase = "all" if subject is None else "solo"
        name = "all ranks" if subject is None else f"rank {subject} alone"
        about = {"phase": phase, "subject_rank": subject}
        total = (params.ranks + 1) * (params.windows + 1)
        done = (params.ranks if subject is None else subject) * (params.windows + 1)

        def tell(line: str) -> None:
            nonlocal done
            done += 1
            if speaker:
                speaker.write("progress", done=done, total=total)
                say(f"[{done}/{total}] {name}: {line}")

        def step() -> None:
            trainee.step()
            self._watchdog.beat()

        def report(window: windows.Window) -> None:
            samples = window.steps * params.batch_size
            for writer in writers:
                writer.write(
                    "window",
                    **about,
                    index=window.index,
                    steps=window.steps,
                    samples=samples,
                    elapsed_s=window.elapsed_s,
                )
            rate = samples / window.elapsed_s
            each = " on rank 0" if subject is None else ""
            tell(f"window {window.index + 1} of {params.windows}, {rate:.1f} samples/s{each}")

        with self._watchdog.doing(f"measuring {name}"):
            if speaker:
                speaker.write("phase", **about)
            warmup = windows.warm_up(
                step,
                trainee.sync,
                min_steps=params.warmup_steps,
                max_steps=params.max_warmup_steps,
                agree=agree,
            )
            if speaker:
                speaker.write(
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
                trainee.sync,
                windows=params.windows,
                steps=params.steps_per_window,
                report=report,
                barrier=barrier,
            )
