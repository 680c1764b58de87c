"""Two kept runs side by side (`vaultcube.compare/1`). Pure. Its JSON Schema is published in docs/schema/."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from vaultcube.results.schema import Check, Metric, Model, Result, Status, Verdict


class Side(Model):
    """One of the two runs in short. `gpus` are names and how many of each."""

    id: str
    workload: str
    started: datetime
    status: Status
    verdict: Verdict
    simulated: bool
    device: Literal["cuda", "cpu"]
    gpus: str


class ComparedMetric(Model):
    """One figure of both runs; null where a run has it not.

    `ratio` is the second by the first; null without both, for different units, and when the first is 0. `overlap` says
    whether the 95 % confidence intervals have a value in common, and is null unless both have one: figures whose intervals
    overlap are not told apart.
    """

    name: str
    first: Metric | None
    second: Metric | None
    ratio: float | None = None
    overlap: bool | None = None


class ComparedCheck(Model):
    """One check of both runs; null where a run has it not."""

    name: str
    first: Check | None
    second: Check | None


class Difference(Model):
    """A parameter, or a part of what ran and on what, that is not the same; null where a run has it not."""

    what: str
    first: Any = None
    second: Any = None


class Comparison(Model):
    """Two runs side by side. `notes` are sentences on what makes figures hard to compare."""

    schema_: Literal["vaultcube.compare/1"] = Field(default="vaultcube.compare/1", alias="schema")
    first: Side
    second: Side
    metrics: list[ComparedMetric]
    checks: list[ComparedCheck]
    differences: list[Difference]
    notes: list[str]

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True, defer_build=True)

    def to_json(self) -> str:
        """Return the document as indented JSON with a newline at its end."""
        return self.model_dump_json(indent=2, by_alias=True) + "\n"


def compare(first: Result, second: Result) -> Comparison:
    """Put two runs side by side: figures and checks in the order of the first, then what only the second has."""
    checks = [{check.name: check for check in run.checks} for run in (first, second)]
    return Comparison(
        first=_side(first),
        second=_side(second),
        metrics=[
            _metric(name, first.metrics.get(name), second.metrics.get(name))
            for name in _names(first.metrics, second.metrics)
        ],
        checks=[
            ComparedCheck(name=name, first=checks[0].get(name), second=checks[1].get(name)) for name in _names(*checks)
        ],
        differences=_differences(_conditions(first), _conditions(second)),
        notes=[note for run in (first, second) for note in _notes(run)] + _apart(first, second),
    )


def _names(first: Iterable[str], second: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*first, *second]))


def _side(run: Result) -> Side:
    return Side(
        id=run.run.id,
        workload=run.run.workload,
        started=run.run.started,
        status=run.run.status,
        verdict=run.verdict,
        simulated=run.simulated,
        device=run.device,
        gpus=_gpus(run),
    )


def _gpus(run: Result) -> str:
    counted = Counter(gpu.name for gpu in run.gpus)
    return ", ".join(f"{count}x {name}" for name, count in sorted(counted.items()))


def _metric(name: str, first: Metric | None, second: Metric | None) -> ComparedMetric:
    if first is None or second is None or first.unit != second.unit:
        return ComparedMetric(name=name, first=first, second=second)
    overlap = None
    if first.ci95 is not None and second.ci95 is not None:
        overlap = first.ci95[0] <= second.ci95[1] and second.ci95[0] <= first.ci95[1]
    return ComparedMetric(name=name, first=first, second=second, ratio=_ratio(first, second), overlap=overlap)


def _ratio(first: Metric, second: Metric) -> float | None:
    """Return the second by the first, or None where that is no finite number."""
    try:
        ratio = second.value / first.value
    except ZeroDivisionError:
        return None
    return ratio if abs(ratio) < float("inf") else None


def _conditions(run: Result) -> dict[str, Any]:
    """Return what the run was asked to do, and what it ran on, by name.

    Left out is what differs between any two runs: ids, times, and the hash of a compose file that names the run.
    """
    provenance = run.provenance.model_dump(exclude={"compose_sha256"})
    found: dict[str, Any] = {"workload": run.run.workload, "device": run.device, "gpus": _gpus(run)}
    found |= {"gpu uuids": sorted(gpu.uuid for gpu in run.gpus)}
    found |= _flat("", run.params)
    return found | _flat("", provenance)


def _flat(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(f"{prefix}{name}.", value) if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    return [
        Difference(what=name, first=first.get(name), second=second.get(name))
        for name in _names(first, second)
        if first.get(name) != second.get(name)
    ]


def _notes(run: Result) -> list[str]:
    found = []
    if run.run.status is not Status.COMPLETED:
        found.append(f"{run.run.id} did not complete ({run.run.status}): its figures are of what it came to")
    if run.simulated:
        found.append(f"{run.run.id} is simulated: its figures are of no real GPU")
    if run.disturbances:
        more = f" (and {len(run.disturbances) - 1} more)" if run.disturbances[1:] else ""
        found.append(f"{run.run.id} was disturbed: {run.disturbances[0]}{more}")
    return found


def _apart(first: Result, second: Result) -> list[str]:
    if first.device != second.device:
        return ["one ran on GPUs and the other on the CPU"]
    if len(first.gpus) != len(second.gpus):
        return [f"one ran on {len(first.gpus)} GPU(s) and the other on {len(second.gpus)}"]
    return []
