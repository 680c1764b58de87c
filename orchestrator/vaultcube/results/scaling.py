"""Measurements of a data-parallel training run from its events: throughput, weak scaling, and what spoils them.

Shared by every training workload; it knows nothing of a framework. Windows that contradict each other, lost lines and
a warm-up that never settled are disturbances: the figures are shown, and no verdict is built on them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vaultcube.results.events import (
    AllReduce,
    AnyEvent,
    Finished,
    Garbled,
    Started,
    Warmup,
    Window,
    sequence_gaps,
    unreadable,
)
from vaultcube.results.judge import Measurement
from vaultcube.results.schema import Metric, Status
from vaultcube.results.statistics import Rate, group_windows, throughput, throughput_estimate, weak_scaling

# A window may claim this much more than the time since the one before it (the event is written after the window).
CLOCK_SLACK = 1.05
# ... and this much less, in times and in seconds on top: writing events and meeting the others take their time.
IDLE_FACTOR, IDLE_S = 2.0, 2.0


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the plan asked for: ranks, samples a rank and step, timed windows a phase."""

    world_size: int
    batch_size: int
    windows: int


def measure_training(
    events: Sequence[AnyEvent], garbled: Sequence[Garbled], expected: Expected, status: Status
) -> Measurement:
    """Turn the events of a training run into metrics.

    Args:
        events: in file order.
        garbled: lines that could not be read.
        expected: what the plan asked for.
        status: how the run ended; a rank that had no time to finish is not a lost one.

    Returns:
        Metrics, reasons for those that are missing, and disturbances. Never raises on what events say.
    """
    started = next((event for event in events if isinstance(event, Started)), None)
    if started is None:
        reason = "the workload never started"
        return Measurement(missing=dict.fromkeys(NAMES, reason), disturbances=unreadable(garbled))

    metrics: dict[str, Metric] = {}
    missing: dict[str, str] = {}
    _completion(events, expected, status, metrics, missing)
    _allreduce(events, expected, metrics, missing)

    solo = [_windows(events, "solo", rank) for rank in range(expected.world_size)]
    together = [_windows(events, "all", rank) for rank in range(expected.world_size)]
    disturbances = [
        *unreadable(garbled),
        *sequence_gaps(list(events)),
        *_contradictions(events, expected, started),
        *_unsettled(events),
    ]
    _timings(solo, together, expected, metrics, missing)
    return Measurement(metrics=metrics, missing=missing, disturbances=disturbances)


NAMES = (
    "throughput_samples_per_s",
    "scaling_efficiency",
    "ranks_lost",
    "allreduce_mismatches",
    "losses_not_finite",
)


def _completion(
    events: Sequence[AnyEvent],
    expected: Expected,
    status: Status,
    metrics: dict[str, Metric],
    missing: dict[str, str],
) -> None:
    # Only ranks that were planned count: a stranger's word must not stand in for a lost rank.
    ends = [event for event in events if isinstance(event, Finished) and event.rank in range(expected.world_size)]
    came = len({end.rank for end in ends})
    if status is Status.INTERRUPTED:
        missing["ranks_lost"] = "the run was interrupted"
    else:
        metrics["ranks_lost"] = Metric(value=expected.world_size - came, unit="ranks")
    if came < expected.world_size:
        missing["losses_not_finite"] = f"only {came} of {expected.world_size} ranks came to their end"
    else:
        lost = len({end.rank for end in ends if end.loss is None})
        metrics["losses_not_finite"] = Metric(value=lost, unit="ranks")
    peaks = [end.memory_peak_bytes for end in ends if end.memory_peak_bytes is not None]
    if peaks:
        metrics["memory_peak_bytes"] = Metric(value=max(peaks), unit="bytes")


def _allreduce(
    events: Sequence[AnyEvent], expected: Expected, metrics: dict[str, Metric], missing: dict[str, str]
) -> None:
    told = [event for event in events if isinstance(event, AllReduce) and event.rank in range(expected.world_size)]
    # `correct` and `mismatches` are told separately: either one is enough to condemn.
    wrong = sum(max(event.mismatches, int(not event.correct)) for event in told)
    reported = len({event.rank for event in told})
    if wrong or reported == expected.world_size:
        metrics["allreduce_mismatches"] = Metric(value=wrong, unit="elements")
    else:
        missing["allreduce_mismatches"] = f"only {reported} of {expected.world_size} ranks reported it"


def _windows(events: Sequence[AnyEvent], phase: Literal["solo", "all"], rank: int) -> list[Window]:
    return [event for event in events if isinstance(event, Window) and event.phase == phase and event.rank == rank]


def _rates(windows: Sequence[Window]) -> list[Rate]:
    return [Rate(window.samples, window.elapsed_s) for window in windows]


def _timings(
    solo: list[list[Window]],
    together: list[list[Window]],
    expected: Expected,
    metrics: dict[str, Metric],
    missing: dict[str, str],
) -> None:
    complete_solo = all(len(windows) >= expected.windows for windows in solo)
    complete_all = all(len(windows) == len(together[0]) >= expected.windows for windows in together)
    if complete_solo:
        alone = [throughput(_rates(windows)) for windows in solo]
        metrics["solo_throughput_samples_per_s"] = Metric(value=sum(alone) / len(alone), unit="samples/s")
        metrics["solo_throughput_slowest_samples_per_s"] = Metric(value=min(alone), unit="samples/s")
    if not complete_all:
        had = min(len(windows) for windows in together)
        reason = f"{had} of {expected.windows} windows of all ranks together were timed"
        missing["throughput_samples_per_s"] = missing["scaling_efficiency"] = reason
        return
    group = group_windows([_rates(windows) for windows in together])
    total = throughput_estimate(group)
    metrics["throughput_samples_per_s"] = Metric(value=total.value, unit="samples/s", ci95=total.ci95)
    seconds = [sum(window.elapsed_s for window in windows) for windows in together]
    steps = sum(window.steps for window in together[0])
    metrics["step_time_s"] = Metric(value=max(seconds) / steps, unit="s")
    metrics["rank_time_spread_ratio"] = Metric(value=max(seconds) / min(seconds), unit="ratio")
    if expected.world_size == 1:
        missing["scaling_efficiency"] = "there is one rank, and nothing to scale over"
    elif not complete_solo:
        missing["scaling_efficiency"] = "not every rank was timed alone"
    else:
        scaling = weak_scaling([_rates(windows) for windows in solo], group)
        metrics["scaling_efficiency"] = Metric(value=scaling.value, unit="ratio", ci95=scaling.ci95)


def _contradictions(events: Sequence[AnyEvent], expected: Expected, started: Started) -> list[str]:
    found: list[str] = []
    if sum(isinstance(event, Started) for event in events) > 1:
        found.append("the workload started more than once in one run")
    if started.world_size != expected.world_size:
        found.append(f"{started.world_size} ranks started and {expected.world_size} were planned")
    strangers = {event.rank for event in events if event.rank >= expected.world_size}
    found += [f"rank {rank} reported, and there are {expected.world_size}" for rank in sorted(strangers)]
    by_series: dict[tuple[str, int], list[Window]] = defaultdict(list)
    for event in events:
        if isinstance(event, Window):
            by_series[event.phase, event.rank].append(event)
    for (phase, rank), windows in by_series.items():
        found += _contradicting(f"{phase} windows of rank {rank}", windows, expected)
    found += [
        f"rank {event.rank} reported a window of rank {event.subject_rank} alone"
        for event in events
        if isinstance(event, Window) and event.phase == "solo" and event.rank != event.subject_rank
    ]
    return found + _too_short(events)


def _too_short(events: Sequence[AnyEvent]) -> list[str]:
    """Return a sentence for the first window that claims far less time than passed since the one before it.

    Of ranks together the slowest counts: the others wait for it.
    """
    ends: dict[str, dict[int, float]] = defaultdict(dict)
    longest: dict[str, dict[int, float]] = defaultdict(dict)
    for event in events:
        if isinstance(event, Window):
            series = f"window of rank {event.rank} alone" if event.phase == "solo" else "window of all ranks together"
            ends[series][event.index] = max(event.mono, ends[series].get(event.index, event.mono))
            longest[series][event.index] = max(event.elapsed_s, longest[series].get(event.index, 0))
    for series, monos in ends.items():
        for index, mono in monos.items():
            passed, claimed = mono - monos.get(index - 1, mono), longest[series][index]
            if passed > claimed * IDLE_FACTOR + IDLE_S:
                return [f"a {series} claims {claimed:.3f} s, and {passed:.3f} s passed"]
    return []


def _contradicting(series: str, windows: list[Window], expected: Expected) -> list[str]:
    if [window.index for window in windows] != list(range(len(windows))):
        return [f"the {series} are numbered {[window.index for window in windows]}"]
    for before, window in zip([None, *windows], windows, strict=False):
        if window.samples != window.steps * expected.batch_size:
            said = f"counts {window.samples} samples in {window.steps} steps of {expected.batch_size}"
            return [f"the {series}: window {window.index} {said}"]
        if before and window.elapsed_s > (window.mono - before.mono) * CLOCK_SLACK:
            said = f"claims {window.elapsed_s:.3f} s, {window.mono - before.mono:.3f} s after the one before it"
            return [f"the {series}: window {window.index} {said}"]
    return []


def _unsettled(events: Sequence[AnyEvent]) -> list[str]:
    return [
        f"the step time {f'of rank {event.subject_rank} alone' if event.phase == 'solo' else 'of all ranks together'} "
        f"was not flat after {event.steps} warm-up steps"
        for event in events
        if isinstance(event, Warmup) and not event.plateau
    ]
