"""Two runs side by side, as plain text: A is the first, B the second."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from vaultcube.report.table import table
from vaultcube.report.terminal import COUNTED, number, paint_line
from vaultcube.results.compare import ComparedCheck, ComparedMetric, Comparison, Side
from vaultcube.results.schema import Check, Metric

# What identifies by its beginning: a digest, a commit, a GPU.
_LONG = re.compile(r"((?:sha256:|GPU-)?[0-9a-f]{8})[0-9a-f-]{16,}")


def comparison(found: Comparison, *, color: bool) -> str:
    """Return a comparison for a person: the runs, figures, checks, what differs, and what to mind."""
    parts = [_side("A", found.first), _side("B", found.second)]
    shown = [one for one in found.metrics if not _is_count(one)]
    if shown:
        parts.append("\n" + table([("METRIC", "UNIT", "A", "B", "B / A", "INTERVALS"), *map(_metric_row, shown)]))
    if found.checks:
        parts.append("\n" + _checks(found.checks, color=color))
    if found.differences:
        rows = [(one.what, _word(one.first), _word(one.second)) for one in found.differences]
        parts.append("\n" + table([("DIFFERENT", "A", "B"), *rows]))
    else:
        parts.append("\nsame parameters, same machine, same software\n")
    parts += ["\n" if found.notes else "", *(f"note: {note}\n" for note in found.notes)]
    return "".join(parts)


def _side(letter: str, side: Side) -> str:
    where = "the CPU" if side.device == "cpu" else side.gpus
    simulated = ", SIMULATED" if side.simulated else ""
    return f"{letter}  {side.id}: {side.workload} on {where}, {side.status}, {side.verdict}{simulated}\n"


def _is_count(one: ComparedMetric) -> bool:
    return any(metric is not None and metric.unit in COUNTED for metric in (one.first, one.second))


def _metric_row(one: ComparedMetric) -> tuple[str, ...]:
    units = dict.fromkeys(metric.unit for metric in (one.first, one.second) if metric is not None)
    ratio = "-" if one.ratio is None else f"{one.ratio:.3f}"
    intervals = {None: "-", True: "overlap", False: "apart"}[one.overlap]
    return one.name, " / ".join(units), _figure(one.first), _figure(one.second), ratio, intervals


def _figure(metric: Metric | None) -> str:
    if metric is None:
        return "-"
    interval = f" ({number(metric.ci95[0])} .. {number(metric.ci95[1])})" if metric.ci95 else ""
    return number(metric.value) + interval


def _checks(checks: Sequence[ComparedCheck], *, color: bool) -> str:
    rows = [(one.name, _target(one), *(_verdict(check) for check in (one.first, one.second))) for one in checks]
    head, *lines = table([("CHECK", "TARGET", "A", "B"), *rows]).splitlines(keepends=True)
    if color:
        lines = [
            paint_line(line, [check.verdict for check in (one.first, one.second) if check is not None])
            for line, one in zip(lines, checks, strict=True)
        ]
    return "".join([head, *lines])


def _target(one: ComparedCheck) -> str:
    said = dict.fromkeys(
        f"{check.target.op} {number(check.target.value)} {check.target.unit}"
        for check in (one.first, one.second)
        if check is not None
    )
    return ", ".join(said)


def _verdict(check: Check | None) -> str:
    if check is None:
        return "-"
    return str(check.verdict) + ("" if check.measured is None else f" ({number(check.measured)})")


def _word(value: Any) -> str:
    if value is None or value in ("", []):
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(_word, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    return _LONG.sub(r"\1", str(value))
