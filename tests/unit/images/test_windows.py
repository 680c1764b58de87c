from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.windows import Window, is_even, measure, mini_window_steps, warm_up


class Machine:
    """A clock that `step` advances, with a log of what was called."""

    def __init__(self, step_s: Callable[[int], float]) -> None:
        self.time = 0.0
        self.steps = 0
        self.log = ""
        self._step_s = step_s

    def clock(self) -> float:
        return self.time

    def step(self) -> None:
        self.time += self._step_s(self.steps)
        self.steps += 1
        self.log += "."

    def sync(self) -> None:
        self.log += "s"

    def barrier(self) -> None:
        self.log += "b"


@pytest.mark.parametrize(
    ("times", "even"),
    [
        ([], False),
        ([1.0, 1.0], False),
        ([1.0, 1.0, 1.0], True),
        ([9.0, 1.0, 1.02, 1.04], True),
        ([1.0, 1.0, 1.06], False),
        ([1.0, 1.0, 1.0, 2.0], False),
        ([0.0, 0.0, 0.0], True),
    ],
)
def test_even_means_the_last_three_are_close(times: list[float], *, even: bool) -> None:
    assert is_even(times) is even


def test_warm_up_ends_at_the_plateau() -> None:
    machine = Machine(lambda number: 2.0 if number < 10 else 1.0)
    result = warm_up(machine.step, machine.sync, min_steps=1, max_steps=200, clock=machine.clock)
    assert (result.steps, result.plateau, result.step_time_s) == (25, True, 1.0)


def test_warm_up_takes_at_least_min_steps() -> None:
    machine = Machine(lambda _: 1.0)
    assert warm_up(machine.step, machine.sync, min_steps=37, max_steps=200, clock=machine.clock).steps == 40


def test_warm_up_says_when_there_was_no_plateau() -> None:
    machine = Machine(lambda number: 1.0 + number)
    result = warm_up(machine.step, machine.sync, min_steps=2, max_steps=22, clock=machine.clock)
    assert (result.steps, result.plateau) == (22, False)
    assert machine.steps == 22


def test_ranks_that_step_together_stop_together() -> None:
    machine = Machine(lambda _: 1.0)
    opinions: list[bool] = []

    def agree(even: bool) -> bool:  # noqa: FBT001 - a callback of one argument
        opinions.append(even)
        # Another rank is not there yet until the sixth time.
        return even and len(opinions) >= 6

    result = warm_up(machine.step, machine.sync, min_steps=1, max_steps=200, agree=agree, clock=machine.clock)
    assert opinions == [False, False, True, True, True, True]
    assert (result.steps, result.plateau) == (30, True)


@given(
    min_steps=st.integers(1, 60),
    more=st.integers(0, 60),
    times=st.lists(st.floats(1e-6, 10.0), min_size=121, max_size=121),
)
def test_warm_up_stays_within_its_bounds(min_steps: int, more: int, times: list[float]) -> None:
    machine = Machine(lambda number: times[number])
    max_steps = min_steps + more
    result = warm_up(machine.step, machine.sync, min_steps=min_steps, max_steps=max_steps, clock=machine.clock)
    assert result.steps == machine.steps
    assert result.steps <= max_steps
    assert result.steps >= min_steps if result.plateau else result.steps == max_steps
    assert min(times) * 0.999 <= result.step_time_s <= max(times) * 1.001


@pytest.mark.parametrize(("low", "high"), [(0, 5), (6, 5), (-1, -1)])
def test_warm_up_refuses_contradictions(low: int, high: int) -> None:
    with pytest.raises(ValueError, match="min_steps"):
        warm_up(lambda: None, lambda: None, min_steps=low, max_steps=high)


@given(st.integers(1, 10_000))
def test_four_mini_windows_fit(max_steps: int) -> None:
    size = mini_window_steps(max_steps)
    assert 1 <= size <= 5
    assert size * 4 <= max(4, max_steps)


def test_edges_stand_around_windows_and_never_inside() -> None:
    machine = Machine(lambda _: 0.5)
    seen: list[Window] = []

    def report(window: Window) -> None:
        machine.time += 100.0  # off the clock
        seen.append(window)

    done = measure(
        machine.step, machine.sync, windows=2, steps=3, report=report, barrier=machine.barrier, clock=machine.clock
    )
    assert machine.log == "sb...s" * 2
    assert seen == done == [Window(0, 3, 1.5), Window(1, 3, 1.5)]


@pytest.mark.parametrize(("windows", "steps"), [(0, 1), (1, 0)])
def test_measure_refuses_nothing_to_do(windows: int, steps: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        measure(lambda: None, lambda: None, windows=windows, steps=steps, report=lambda _: None)
