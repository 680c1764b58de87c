"""Holds measurements against targets. Pure: the same measurements always give the same verdicts."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from vaultcube.results.schema import Check, Evidence, Metric, Operator, Target, Verdict

OPERATORS: dict[Operator, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
}


@dataclass(frozen=True, kw_only=True)
class CheckSpec:
    """A check before it is judged.

    Attributes:
        name: the check's name, also in reports.
        metric: which metric it looks at.
        target: what is asked for.
        timed: a disturbance during the measurement makes it INVALID.
        needs_gpu: on a CPU it is UNAVAILABLE whatever was measured.
    """

    name: str
    metric: str
    target: Target
    timed: bool = False
    needs_gpu: bool = False


def check(
    name: str, metric: str, op: Operator, value: float, unit: str, *, timed: bool = False, needs_gpu: bool = False
) -> CheckSpec:
    """Return a check of one metric against one figure."""
    target = Target(op=op, value=value, unit=unit)
    return CheckSpec(name=name, metric=metric, target=target, timed=timed, needs_gpu=needs_gpu)


@dataclass(frozen=True)
class Measurement:
    """What a run measured.

    Attributes:
        metrics: by name.
        missing: for a metric that could not be had, the reason.
        disturbances: what spoiled the timings, a sentence each.
        evidence: what counts against checks, with GPU and time.
    """

    metrics: Mapping[str, Metric] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    disturbances: Sequence[str] = ()
    evidence: Sequence[Evidence] = ()


def joined(*parts: Measurement) -> Measurement:
    """Return what several measurements of one run say; of a figure that two have, the later one's."""
    return Measurement(
        {name: metric for part in parts for name, metric in part.metrics.items()},
        {name: reason for part in parts for name, reason in part.missing.items()},
        [text for part in parts for text in part.disturbances],
        [one for part in parts for one in part.evidence],
    )


def judge(
    specs: Sequence[CheckSpec], measurement: Measurement, *, device: Literal["cuda", "cpu"], simulated: bool
) -> tuple[list[Check], Verdict]:
    """Judge every check and the run as a whole.

    The run's verdict is the gravest of its checks: FAIL, then INVALID, then UNAVAILABLE, then PASS. A simulated run,
    and one without checks, is never PASS.
    """
    checks = [_judge_one(spec, measurement, device) for spec in specs]
    verdicts = {check.verdict for check in checks}
    for grave in (Verdict.FAIL, Verdict.INVALID, Verdict.UNAVAILABLE):
        if grave in verdicts:
            return checks, grave
    return checks, Verdict.UNAVAILABLE if simulated or not checks else Verdict.PASS


def _judge_one(spec: CheckSpec, measurement: Measurement, device: str) -> Check:
    metric = measurement.metrics.get(spec.metric)
    if metric is None:
        reason = measurement.missing.get(spec.metric, "it was not measured")
        return Check(name=spec.name, target=spec.target, verdict=Verdict.UNAVAILABLE, reason=reason)

    def verdict(value: Verdict, reason: str) -> Check:
        return Check(
            name=spec.name,
            target=spec.target,
            measured=metric.value,
            ci95=metric.ci95,
            verdict=value,
            reason=reason,
        )

    if spec.needs_gpu and device != "cuda":
        return verdict(Verdict.UNAVAILABLE, "measured on the CPU, and the target is one for GPUs")
    if spec.timed and measurement.disturbances:
        return verdict(Verdict.INVALID, measurement.disturbances[0])
    bound, said = _deciding_bound(spec.target, metric)
    if OPERATORS[spec.target.op](bound, spec.target.value):
        return verdict(Verdict.PASS, f"{said} meets the target")
    return verdict(Verdict.FAIL, f"{said} misses the target")


def _deciding_bound(target: Target, metric: Metric) -> tuple[float, str]:
    """Return the end of the interval that is less in our favour: luck must not decide."""
    if metric.ci95 is None or target.op == "==":
        return metric.value, f"{metric.value:.6g}"
    if target.op == ">=":
        return metric.ci95[0], f"the lower bound {metric.ci95[0]:.6g}"
    return metric.ci95[1], f"the upper bound {metric.ci95[1]:.6g}"
