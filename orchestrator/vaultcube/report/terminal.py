"""Plain text for people: tables of fixed columns, a result, a dry run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from vaultcube.report.levels import split
from vaultcube.report.table import table
from vaultcube.results.schema import Check, Evidence, Metric, Result, Verdict
from vaultcube.stack.assets import asset
from vaultcube.stack.override import make_override, up_args
from vaultcube.stack.plan import Plan
from vaultcube.stack.summary import Summary

# Units of figures that only the checks need.
COUNTED = frozenset(
    {"ranks", "elements", "devices", "GPUs", "events", "requests", "answers", "restarts", "digests", "sessions"}
)
COLORS = {Verdict.PASS: 32, Verdict.FAIL: 31, Verdict.INVALID: 33, Verdict.UNAVAILABLE: 36}


def result(found: Result, directory: Path, *, color: bool) -> str:
    """Return a run's result for a person: what ran, figures, checks, verdict, and where it is kept."""
    run = found.run
    seconds = (run.finished - run.started).total_seconds()
    where = f"{len(found.gpus)} GPU(s): {', '.join(gpu.name for gpu in found.gpus)}" if found.gpus else "the CPU"
    parts = [f"{run.workload} on {where}: {run.status} after {seconds:.0f} s\n"]
    if found.simulated:
        parts.append("SIMULATED: the GPUs are not real ones\n")
    whole, levels = split(found.metrics)
    shown = {name: metric for name, metric in whole.items() if metric.unit not in COUNTED}
    if shown:
        parts.append(
            "\n" + table([("METRIC", "VALUE", "95 % INTERVAL"), *(_metric_row(*item) for item in shown.items())])
        )
    if levels:
        parts.append("\n" + levels)
    parts.append("\n" + _checks(found.checks, color=color))
    parts += [f"disturbed: {text}\n" for text in found.disturbances]
    parts += [f"{one.check}: {one.text}{_where(one)}\n" for one in found.evidence]
    parts.append(f"\nverdict {paint(found.verdict, color=color)}   kept in {directory}\n")
    return "".join(parts)


def _where(one: Evidence) -> str:
    """Return in which slot and when it was seen, as far as that is known."""
    known = [f"slot {one.pci_bus_id}"] if one.pci_bus_id else []
    if one.first is not None:
        known.append(f"{one.first:%Y-%m-%d %H:%M:%S}")
        if one.last is not None and one.last - one.first >= timedelta(seconds=1):
            known[-1] += f" to {one.last:%Y-%m-%d %H:%M:%S}"
        known[-1] += " UTC"
    return f" ({', '.join(known)})" if known else ""


def paint(verdict: Verdict, *, color: bool) -> str:
    """Return a verdict, coloured if asked."""
    return f"\x1b[1;{COLORS[verdict]}m{verdict}\x1b[0m" if color else str(verdict)


def paint_line(line: str, verdicts: Sequence[Verdict]) -> str:
    """Return a line with these verdicts coloured, which stand in it one after the other."""
    done = ""
    for verdict in verdicts:
        before, word, line = line.partition(verdict)
        done += before + (paint(verdict, color=True) if word else "")
    return done + line


def dry_run(plan: Plan, directory: Path, *, as_json: bool) -> str:
    """Return the plan, the override and the docker command of a run that is not started."""
    override = make_override(plan, directory)
    argv = ["docker", *up_args(plan, asset("compose"), directory)]
    if as_json:
        document = {"plan": plan.model_dump(mode="json", by_alias=True), "override": override, "command": argv}
        return json.dumps(document, indent=2) + "\n"
    import shlex

    return f"# plan\n{plan.to_json()}\n# {directory}/compose.override.yml\n{override}\n# command\n{shlex.join(argv)}\n"


def number(value: float) -> str:
    """Return a figure with four significant digits, never in exponents where people count."""
    if value == int(value) and abs(value) < 1e15:  # noqa: PLR2004 - all digits of a double
        return str(int(value))
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"  # noqa: PLR2004


def _metric_row(name: str, metric: Metric) -> tuple[str, str, str]:
    interval = f"{number(metric.ci95[0])} .. {number(metric.ci95[1])}" if metric.ci95 else ""
    return name, f"{number(metric.value)} {metric.unit}", interval


def _checks(checks: Sequence[Check], *, color: bool) -> str:
    rows = [("CHECK", "TARGET", "MEASURED", "VERDICT", "WHY")]
    rows += [
        (
            check.name,
            f"{check.target.op} {number(check.target.value)} {check.target.unit}",
            "-" if check.measured is None else number(check.measured),
            str(check.verdict),
            check.reason,
        )
        for check in checks
    ]
    text = table(rows)
    if not color:
        return text
    lines = text.splitlines(keepends=True)
    painted = [paint_line(line, [check.verdict]) for line, check in zip(lines[1:], checks, strict=True)]
    return "".join([lines[0], *painted])


def run_row(found: Summary) -> tuple[str, str, str, str, str]:
    """Return a kept run as a row of `runs list`."""
    return found.id, found.workload, found.started, found.status, found.verdict
