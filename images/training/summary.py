"""The table at the end of a run, out of its events. Figures only: judging is the orchestrator's."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

Event = dict[str, Any]


def rates(events: Iterable[Event]) -> tuple[dict[int, float], dict[int, float]]:
    """Return samples/s by rank, (alone, all together): all windows of a rank in one ratio."""
    samples: dict[tuple[str, int], float] = defaultdict(float)
    seconds: dict[tuple[str, int], float] = defaultdict(float)
    for event in events:
        if event.get("kind") == "window":
            key = (event["phase"], event["rank"])
            samples[key] += event["samples"]
            seconds[key] += event["elapsed_s"]
    found = {key: samples[key] / seconds[key] for key in samples if seconds[key] > 0}
    return (
        {rank: rate for (phase, rank), rate in sorted(found.items()) if phase == "solo"},
        {rank: rate for (phase, rank), rate in sorted(found.items()) if phase == "all"},
    )


def table(events: Iterable[Event], workload: str) -> list[str]:
    """Return the lines of the table, none when nothing was measured; `workload` is what judges such figures."""
    alone, together = rates(events)
    if not alone and not together:
        return []
    lines = ["", "rank   alone samples/s   together samples/s"]
    lines += [
        f"{rank:>4}   {_figure(alone.get(rank)):>15}   {_figure(together.get(rank)):>18}"
        for rank in sorted(alone | together)
    ]
    if alone and set(alone) == set(together):
        total = sum(together.values())
        mean = sum(alone.values()) / len(alone)
        lines.append(f" all   {_figure(sum(alone.values())):>15}   {_figure(total):>18}")
        lines.append(
            f"weak scaling efficiency: {total:.1f} / ({len(alone)} x {mean:.1f}) = {total / len(alone) / mean:.1%}"
        )
    lines.append(f"These are measurements, not a verdict: `vaultcube bench {workload}` judges them.")
    return lines


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
