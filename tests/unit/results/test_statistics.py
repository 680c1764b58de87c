from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultcube.results.statistics import (
    Rate,
    group_windows,
    throughput,
    throughput_estimate,
    weak_scaling,
)

rates = st.builds(Rate, st.integers(1, 10**6), st.floats(1e-3, 1e4))
windows = st.lists(rates, min_size=3, max_size=12)
# Two thousand resamples an example.
few = settings(max_examples=10)


def test_throughput_weighs_windows_by_their_length() -> None:
    # The mean of 10/s and 1/s would be 5.5/s: nobody saw that rate.
    assert throughput([Rate(10, 1.0), Rate(10, 10.0)]) == pytest.approx(20 / 11)


def test_nothing_measured_is_an_error_and_not_a_zero() -> None:
    with pytest.raises(ValueError, match="no windows"):
        throughput([])
    with pytest.raises(ValueError, match="no ranks"):
        weak_scaling([], [Rate(1, 1.0)])


def test_a_group_is_as_slow_as_its_slowest_rank() -> None:
    assert group_windows([[Rate(8, 1.0), Rate(8, 3.0)], [Rate(8, 2.0), Rate(8, 1.0)]]) == [Rate(16, 2.0), Rate(16, 3.0)]


def test_ranks_with_different_numbers_of_windows_are_no_group() -> None:
    with pytest.raises(ValueError, match="zip"):
        group_windows([[Rate(1, 1.0)], []])


def test_two_windows_are_too_few_for_an_interval() -> None:
    assert throughput_estimate([Rate(1, 1.0)] * 2).ci95 is None
    assert throughput_estimate([Rate(1, 1.0)] * 3).ci95 is not None


@few
@given(windows)
def test_the_interval_lies_within_the_windows_and_holds_the_value(measured: list[Rate]) -> None:
    found = throughput_estimate(measured)
    assert found.ci95 is not None
    low, high = found.ci95
    single = [throughput([window]) for window in measured]
    assert min(single) * (1 - 1e-9) <= low <= high <= max(single) * (1 + 1e-9)


@few
@given(st.lists(st.floats(0.99, 1.01), min_size=5, max_size=12))
def test_the_interval_of_ordinary_windows_holds_the_value(seconds: list[float]) -> None:
    found = throughput_estimate([Rate(100, second) for second in seconds])
    assert found.ci95 is not None
    assert found.ci95[0] <= found.value * (1 + 1e-12)
    assert found.ci95[1] >= found.value * (1 - 1e-12)


@few
@given(windows)
def test_the_same_windows_give_the_same_interval(measured: list[Rate]) -> None:
    assert throughput_estimate(measured) == throughput_estimate(list(measured))


def test_more_scatter_makes_a_wider_interval() -> None:
    def width(scatter: float) -> float:
        dice = random.Random(1)  # noqa: S311 - scatter, not secrecy
        found = throughput_estimate([Rate(100, 1 + dice.uniform(-scatter, scatter)) for _ in range(20)]).ci95
        assert found is not None
        return found[1] - found[0]

    assert width(0.01) < width(0.05) < width(0.2)


def test_nineteen_of_twenty_intervals_hold_the_true_rate() -> None:
    dice = random.Random(2)  # noqa: S311 - scatter, not secrecy
    held = 0
    for _ in range(40):
        found = throughput_estimate([Rate(100, 1 + dice.gauss(0, 0.02)) for _ in range(30)]).ci95
        assert found is not None
        held += found[0] <= 100 <= found[1]
    # A bootstrap over 30 windows covers a little less than it says.
    assert held >= 34


@few
@given(st.integers(1, 4), rates, st.integers(3, 6))
def test_identical_windows_scale_exactly(ranks: int, rate: Rate, count: int) -> None:
    solo = [[rate] * count] * ranks
    found = weak_scaling(solo, group_windows(solo))
    assert found.value == pytest.approx(1.0, rel=1e-12)
    assert found.ci95 == pytest.approx((1.0, 1.0), rel=1e-12)


@few
@given(st.integers(2, 4), st.floats(0.05, 1.0))
def test_scaling_is_the_share_of_its_own_rate_that_a_rank_keeps(ranks: int, share: float) -> None:
    solo = [[Rate(256, 0.125)] * 5] * ranks
    together = group_windows([[Rate(256, 0.125 / share)] * 5] * ranks)
    assert weak_scaling(solo, together).value == pytest.approx(share, rel=1e-9)


def test_scaling_divides_by_the_mean_of_the_single_gpus_and_not_by_itself() -> None:
    # One rank alone at 100/s, one at 50/s; both together 120/s: 120 / (2 * 75).
    solo = [[Rate(100, 1.0)] * 5, [Rate(50, 1.0)] * 5]
    assert weak_scaling(solo, [Rate(120, 1.0)] * 5).value == pytest.approx(0.8)
