"""From what a run left behind to its result. Works on a run directory alone, also on another machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from vaultcube import workloads
from vaultcube.gpu.observed import observe
from vaultcube.results.events import AnyEvent, Device, EventLog, Frameworks, Started
from vaultcube.results.judge import Measurement, joined, judge
from vaultcube.results.schema import Failure, Provenance, Result, RunInfo, Status, Verdict
from vaultcube.results.store import CONTAINERS, TELEMETRY, RunDirectory
from vaultcube.stack.outcome import Outcome
from vaultcube.stack.plan import Plan
from vaultcube.stack.telemetry import recorder_said

RESOLVED = "compose.resolved.json"


def read_events(directory: RunDirectory) -> EventLog:
    """Read all events of a run; no file means no events."""
    log = EventLog()
    log.feed(directory.read_events())
    log.close()
    return log


def build_result(
    plan: Plan, directory: RunDirectory, log: EventLog, outcome: Outcome, provenance: Provenance, finished: datetime
) -> Result:
    """Measure and judge a run.

    Args:
        plan: what was to be done.
        directory: where it was done.
        log: its events.
        outcome: how it ended.
        provenance: what ran, and on what.
        finished: when it ended, UTC.
    """
    workload = workloads.load(plan.workload)
    up = plan.purpose == "up"
    # A service that only runs is judged by nobody; what its start took is measured as in a measurement.
    params = (
        workload.resolve(None, plan.params, plan.device) if up else workload.params_type.model_validate(plan.params)
    )
    measured = workload.measure(
        log.events, log.garbled, params, world_size=plan.world_size, status=outcome.status, gpus=plan.gpus
    )
    seen, simulated = telemetry_of(plan, directory, log.events)
    simulated = simulated or plan.simulated
    around = [*plan.shared, *outcome.disturbances, *strayed(plan, log.events)]
    measured = joined(Measurement(disturbances=around), measured, seen)
    checks, verdict = judge(
        [] if up else workload.checks(workload.targets(plan.profile)), measured, device=plan.device, simulated=simulated
    )
    if verdict is Verdict.PASS and outcome.status is not Status.COMPLETED:
        # Good figures of a run that then went wrong prove nothing.
        verdict = Verdict.UNAVAILABLE
    versions = next((event.versions for event in log.events if isinstance(event, Frameworks)), {})
    error = outcome.error
    return Result(
        run=RunInfo(
            id=plan.run_id,
            workload=plan.workload,
            status=outcome.status,
            started=plan.created,
            # A wall clock that was set back must not make a run end before it began.
            finished=max(finished, plan.created),
            error=Failure(code=error.code, message=error.message, next_step=error.next_step) if error else None,
        ),
        verdict=verdict,
        simulated=simulated,
        device=plan.device,
        checks=checks,
        metrics=dict(measured.metrics),
        params=plan.params,
        gpus=list(plan.gpus),
        disturbances=list(measured.disturbances),
        evidence=list(measured.evidence),
        provenance=provenance.model_copy(update={"frameworks": versions}),
        artifacts=directory.artifacts(),
    )


def telemetry_of(plan: Plan, directory: RunDirectory, events: Sequence[AnyEvent]) -> tuple[Measurement, bool]:
    """Return what the run's telemetry says about it, or why it says nothing; and whether it came from a simulator."""
    ranks = {event.rank: event.uuid for event in events if isinstance(event, Device) and event.uuid is not None}
    intervals = workloads.load(plan.workload).intervals(events)
    path = directory.path / TELEMETRY
    if not path.is_file():
        said = recorder_said(directory)
        why = f"no telemetry was recorded: {said}" if said else "no telemetry was recorded"
        return observe(plan.gpus, None, intervals, ranks, why_none=why), False
    from vaultcube.gpu.telemetry import Telemetry, TelemetryError

    try:
        with Telemetry.open(path) as telemetry:
            seen = observe(plan.gpus, telemetry, intervals, ranks, containers=containers_of(directory))
            return seen, telemetry.meta.simulated
    except TelemetryError:
        # Its text names the file's place, and a run that was copied is judged the same.
        return observe(plan.gpus, None, intervals, ranks, why_none="the recorded telemetry cannot be read"), False


def containers_of(directory: RunDirectory) -> list[str]:
    """Return the ids of the run's containers; none when it broke off before they were written down."""
    try:
        found = json.loads((directory.path / CONTAINERS).read_text(encoding="utf-8"))
        return [str(one) for one in dict(found).values()]
    except (OSError, ValueError, TypeError):
        return []


def strayed(plan: Plan, events: Sequence[AnyEvent]) -> list[str]:
    """Return a sentence for everything in which the workload that started was not the one that was planned."""
    found = []
    for event in events:
        if not isinstance(event, Started):
            continue
        if event.device != plan.device:
            found.append(f"the workload ran on {event.device}, and {plan.device} was planned")
        # Folders have other names inside the container.
        names = [
            name for name in plan.params if name in event.params and plan.params[name] not in plan.data_folders.values()
        ]
        found += [
            f"the workload ran with {name} {event.params[name]}, and {plan.params[name]} was planned"
            for name in names
            if event.params[name] != _as_json(plan.params[name])
        ]
    return found


def _as_json(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def compose_sha256(directory: RunDirectory) -> str | None:
    """Return the SHA-256 of the resolved compose file, or None when there is none."""
    import hashlib

    resolved: Path = directory.path / RESOLVED
    return hashlib.sha256(resolved.read_bytes()).hexdigest() if resolved.is_file() else None
