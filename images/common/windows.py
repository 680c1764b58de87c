"""The measuring protocol, free of any framework: warm up until steps are even, then time windows.

The caller brings three callables: `step()` runs one training step and may return before the device is done with
it, `sync()` returns when the device is done with everything, `barrier()` returns when every rank has come to it.
Both edges cost something, so they stand around windows and never inside: overlap of compute and communication
survives, and a window is as long as real work is.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PLATEAU_SPREAD = 0.05
"""Steps count as even when (slowest - fastest) / median of the last mini windows is at most this."""
PLATEAU_WINDOWS = 3
"""How many mini windows in a row have to be even."""
MINI_WINDOW_STEPS = 5
"""Most steps in a mini window, so that a cut at one never wastes much."""


@dataclass(frozen=True)
class Warmup:
    """How a warm-up ended: after `steps` steps, even or not, at `step_time_s` seconds a step."""

    steps: int
    plateau: bool
    step_time_s: float


@dataclass(frozen=True)
class Window:
    """One timed window: `steps` steps took `elapsed_s` seconds on this rank, from sync to sync."""

    index: int
    steps: int
    elapsed_s: float


def is_even(step_times_s: Sequence[float], spread: float = PLATEAU_SPREAD, count: int = PLATEAU_WINDOWS) -> bool:
    """Say whether the last `count` step times (seconds) lie within `spread` of their median."""
    last = step_times_s[-count:]
    if len(last) < count:
        return False
    return max(last) - min(last) <= spread * statistics.median(last)


def mini_window_steps(max_steps: int) -> int:
    """Return the steps of a mini window: few enough that four of them fit into `max_steps`."""
    return max(1, min(MINI_WINDOW_STEPS, max_steps // (PLATEAU_WINDOWS + 1)))


def warm_up(
    step: Callable[[], None],
    sync: Callable[[], None],
    *,
    min_steps: int,
    max_steps: int,
    agree: Callable[[bool], bool] = lambda even: even,
    clock: Callable[[], float] = time.perf_counter,
) -> Warmup:
    """Run at least `min_steps` and at most `max_steps` steps, ending as soon as they are even.

    `agree` turns this rank's opinion into everybody's: ranks that step together have to stop together.

    Raises:
        ValueError: the bounds leave no step, or contradict each other.
    """
    if not 1 <= min_steps <= max_steps:
        raise ValueError(f"warm-up needs 1 <= min_steps <= max_steps, not {min_steps} and {max_steps}")
    size = mini_window_steps(max_steps)
    times: list[float] = []
    steps = 0
    plateau = False
    sync()
    while steps < max_steps and not plateau:
        count = min(size, max_steps - steps)
        start = clock()
        for _ in range(count):
            step()
        sync()
        times.append((clock() - start) / count)
        steps += count
        plateau = agree(steps >= min_steps and is_even(times))
    return Warmup(steps, plateau, statistics.median(times[-PLATEAU_WINDOWS:]))


def measure(
    step: Callable[[], None],
    sync: Callable[[], None],
    *,
    windows: int,
    steps: int,
    report: Callable[[Window], None],
    barrier: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Window]:
    """Time `windows` windows of `steps` steps and hand each to `report` between two windows, off the clock.

    A window starts when every rank has synchronised and met at the barrier; it ends when this rank's device is done.

    Raises:
        ValueError: no window or no step was asked for.
    """
    if windows < 1 or steps < 1:
        raise ValueError(f"windows and steps have to be at least 1, not {windows} and {steps}")
    done = []
    for index in range(windows):
        sync()
        barrier()
        start = clock()
        for _ in range(steps):
            step()
        sync()
        window = Window(index, steps, clock() - start)
        report(window)
        done.append(window)
    return done
