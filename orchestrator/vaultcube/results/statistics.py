"""Throughput, weak scaling and their confidence intervals, from timed windows. Pure functions."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

RESAMPLES = 2000
# A fixed seed: judging the same run twice gives the same interval.
SEED = 20260101


class Rate(NamedTuple):
    """One window: how many samples in how many seconds."""

    samples: int
    seconds: float


class Estimate(NamedTuple):
    """A figure and its 95 % confidence interval (null when there are too few windows to say)."""

    value: float
    ci95: tuple[float, float] | None


MIN_WINDOWS_FOR_CI = 3


def throughput(windows: Sequence[Rate]) -> float:
    """Return samples per second over all windows: all samples over all seconds, so that long windows weigh more.

    Raises:
        ValueError: no windows.
    """
    if not windows:
        raise ValueError("no windows")
    return sum(w.samples for w in windows) / sum(w.seconds for w in windows)


def group_windows(per_rank: Sequence[Sequence[Rate]]) -> list[Rate]:
    """Join the windows of ranks that ran together: samples add up, the slowest rank sets the time.

    Args:
        per_rank: one list of windows a rank, window k of each being the same window.

    Raises:
        ValueError: ranks with different numbers of windows.
    """
    return [Rate(sum(w.samples for w in same), max(w.seconds for w in same)) for same in zip(*per_rank, strict=True)]


def throughput_estimate(windows: Sequence[Rate]) -> Estimate:
    """Return `throughput` with a percentile bootstrap over windows (Efron 1979; 2000 resamples)."""
    return _bootstrap(throughput(windows), [windows], lambda groups: throughput(groups[0]))


def weak_scaling(solo: Sequence[Sequence[Rate]], together: Sequence[Rate]) -> Estimate:
    """Return the weak-scaling efficiency E = T_N / (N * T_1).

    T_N is the throughput of all N ranks together; T_1 is the mean over the ranks, each measured alone with the same
    batch per rank. Every rank's windows are resampled separately from the others'.

    Args:
        solo: one list of windows a rank, in rank order; N is their number.
        together: the windows of all ranks together (`group_windows`).

    Raises:
        ValueError: no ranks, or a list without windows.
    """
    count = len(solo)
    if count == 0:
        raise ValueError("no ranks")

    def efficiency(groups: Sequence[Sequence[Rate]]) -> float:
        alone = sum(throughput(windows) for windows in groups[1:]) / count
        return throughput(groups[0]) / (count * alone)

    groups = [together, *solo]
    return _bootstrap(efficiency(groups), groups, efficiency)


def _bootstrap(
    value: float, groups: Sequence[Sequence[Rate]], statistic: Callable[[Sequence[Sequence[Rate]]], float]
) -> Estimate:
    if min(len(group) for group in groups) < MIN_WINDOWS_FOR_CI:
        return Estimate(value, None)
    rng = random.Random(SEED)  # noqa: S311 - resampling, not secrecy
    draws = sorted(statistic([rng.choices(group, k=len(group)) for group in groups]) for _ in range(RESAMPLES))
    low, high = draws[round(0.025 * (RESAMPLES - 1))], draws[round(0.975 * (RESAMPLES - 1))]
    return Estimate(value, (low, high))
