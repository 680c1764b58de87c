"""When a workload measured: the stretches of time that telemetry is held against. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vaultcube.results.events import AnyEvent, Level, Window


@dataclass(frozen=True)
class Interval:
    """One measuring phase, from the beginning of its first window to the end of its last.

    Attributes:
        start_s, end_s: on the machine's monotonic clock, in seconds; containers share it.
        samples: how many samples were processed in it, by all ranks.
        rank: the only rank that worked, or None for all of them.
        unit: what a sample is: it names the figures of energy.
    """

    start_s: float
    end_s: float
    samples: int
    rank: int | None = None
    unit: Literal["sample", "token"] = "sample"


def training_intervals(events: Sequence[AnyEvent]) -> list[Interval]:
    """Return the measuring phases of a training run in the order of their beginnings: each rank alone, then all."""
    by_rank: dict[int | None, list[Window]] = defaultdict(list)
    for event in events:
        if isinstance(event, Window):
            by_rank[event.subject_rank if event.phase == "solo" else None].append(event)
    found = [
        Interval(
            start_s=min(window.mono - window.elapsed_s for window in windows),
            end_s=max(window.mono for window in windows),
            samples=sum(window.samples for window in windows),
            rank=rank,
        )
        for rank, windows in by_rank.items()
    ]
    return sorted(found, key=lambda interval: interval.start_s)


def serving_intervals(events: Sequence[AnyEvent]) -> list[Interval]:
    """Return the levels of load that a client put on, in the order of their beginnings; samples are output tokens."""
    found = [
        Interval(
            start_s=level.until_s - level.elapsed_s,
            end_s=level.until_s,
            samples=level.output_tokens,
            rank=level.replica,
            unit="token",
        )
        for level in events
        if isinstance(level, Level) and level.output_tokens
    ]
    return sorted(found, key=lambda interval: interval.start_s)
