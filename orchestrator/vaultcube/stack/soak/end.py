"""The end of a soak that vaultcube started: its containers are cleared, and what was found by then is judged and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from vaultcube.errors import (
    ContainerKilledError,
    InterruptedRunError,
    RunTimeoutError,
    VaultCubeError,
    WorkloadError,
)
from vaultcube.results.events import ErrorEvent, Finished, Started, one_line
from vaultcube.results.lives import Worker
from vaultcube.results.schema import Failure, Result, RunInfo, Status, Verdict
from vaultcube.results.store import RunDirectory
from vaultcube.stack.collect import compose_sha256
from vaultcube.stack.docker import Docker, EngineInfo, Exit
from vaultcube.stack.ending import clean_up, engine_lost, images_of
from vaultcube.stack.environment import provenance, utc_now
from vaultcube.stack.outcome import EXIT_HARDWARE, EXIT_USAGE, Outcome, classify
from vaultcube.stack.plan import Plan
from vaultcube.stack.soak.weigh import read_workers, weigh
from vaultcube.workloads.stress import StressParams

GO_ON = "Go on with it where it stopped: vaultcube stress --resume --name {run}."


def end_soak(
    plan: Plan, directory: RunDirectory, docker: Docker, cause: VaultCubeError | None, engine: EngineInfo | None = None
) -> Result:
    """Stop what runs of a soak, remove it, judge what there is, and keep that as result.json.

    Args:
        plan: the soak's.
        directory: its run directory; its lock is held.
        docker: what no signal cuts short.
        cause: what ends it before its time, or None.
        engine: versions, if they are known already.

    Raises:
        ResultsUnwritableError, DiskTooSmallError: result.json cannot be written.
        VaultCubeError: the engine does not answer, and nothing else went wrong before.
    """
    exits: list[Exit] = []
    try:
        exits = clean_up(plan, directory, docker)
        engine = engine or docker.begin_probe().finish(docker)
    except VaultCubeError as error:
        cause = cause or engine_lost(error)
    result = soak_result(plan, directory, exits, cause, engine)
    directory.write_result(result)
    return result


def soak_result(
    plan: Plan,
    directory: RunDirectory,
    exits: Sequence[Exit],
    cause: VaultCubeError | None,
    engine: EngineInfo | None = None,
) -> Result:
    """Judge a soak by its files; see `end_soak` for the arguments. `exits` are its containers as they ended."""
    folder = directory.path / "results"
    workers = planned_workers(plan, read_workers(folder))
    outcome = outcome_of(workers, exits, cause)
    params = StressParams.model_validate(plan.params)
    found = weigh(folder, workers, plan.profile, planned=plan.gpus, seconds=params.seconds, device=plan.device)
    verdict = found.verdict
    if verdict is Verdict.PASS and (plan.simulated or outcome.status is not Status.COMPLETED):
        verdict = Verdict.UNAVAILABLE
    error = outcome.error
    if isinstance(error, InterruptedRunError):
        error = InterruptedRunError(error.message, next_step=GO_ON.format(run=plan.run_id))
    source = provenance(
        engine,
        driver=plan.driver or found.driver,
        images=images_of(list(exits)),
        compose_sha256=compose_sha256(directory),
    )
    return Result(
        run=RunInfo(
            id=plan.run_id,
            workload=plan.workload,
            status=outcome.status,
            started=plan.created,
            finished=utc_now(),
            error=Failure(code=error.code, message=error.message, next_step=error.next_step) if error else None,
        ),
        verdict=verdict,
        simulated=found.simulated or plan.simulated,
        device=plan.device,
        checks=list(found.checks),
        metrics=dict(found.measured.metrics),
        params=plan.params,
        gpus=list(plan.gpus),
        disturbances=[*plan.shared, *found.measured.disturbances],
        evidence=list(found.measured.evidence),
        provenance=source.model_copy(update={"frameworks": dict(found.versions)}),
        artifacts=directory.artifacts(),
    )


def planned_workers(plan: Plan, found: Mapping[str, Worker]) -> dict[str, Worker]:
    """Return the plan's workers, each with the GPU that it was given; those that wrote nothing too."""
    return {
        one.service: replace(found.get(one.service, Worker(())), uuid=next(iter(one.gpus), None))
        for one in plan.workers
    }


def outcome_of(workers: Mapping[str, Worker], exits: Sequence[Exit], cause: VaultCubeError | None) -> Outcome:
    """Return how a soak ended: by what stopped it, else by the first worker that did not cover its hours."""
    if isinstance(cause, InterruptedRunError):
        return Outcome(status=Status.INTERRUPTED, error=cause)
    if isinstance(cause, RunTimeoutError):
        return Outcome(status=Status.TIMEOUT, error=cause)
    if cause is not None:
        return Outcome(status=Status.FAILED, error=cause)
    by_service = {exit_.service: exit_ for exit_ in exits}
    ends = [_end_of(name, worker, by_service.get(name)) for name, worker in workers.items()]
    # That a worker failed is not hidden by somebody who then stopped the others.
    for status in (Status.FAILED, Status.INTERRUPTED):
        for end in ends:
            if end.status is status:
                return end
    return Outcome(status=Status.COMPLETED)


def _end_of(name: str, worker: Worker, exit_: Exit | None) -> Outcome:
    """Return how one worker ended."""
    last = last_word(worker)
    if isinstance(last, Finished):
        return Outcome(status=Status.COMPLETED)
    if exit_ is not None and isinstance(last, ErrorEvent) and last.exit_code in {EXIT_USAGE, EXIT_HARDWARE}:
        # Started again and again it was between two tries when it was stopped.
        exit_ = exit_._replace(exit_code=last.exit_code, stopped=False)
    if exit_ is not None and exit_.stopped:
        why = "the soak was stopped before its hours were covered"
        return Outcome(status=Status.INTERRUPTED, error=InterruptedRunError(why))
    if exit_ is not None and (exit_.exit_code or exit_.oom_killed):
        status, error = classify([exit_], worker.events, None)
        return Outcome(status=status, error=error)
    if isinstance(last, ErrorEvent):
        said = WorkloadError(f"{name}: {one_line(last.message)}", next_step=one_line(last.next_step) or None)
        return Outcome(status=Status.FAILED, error=said)
    return Outcome(status=Status.FAILED, error=ContainerKilledError(f"{name} ended without a word"))


def last_word(worker: Worker) -> Finished | ErrorEvent | None:
    """Return how a worker's last life ended by its own word; its last report may come after that."""
    for event in reversed(worker.events):
        if isinstance(event, Finished | ErrorEvent):
            return event
        if isinstance(event, Started):
            break
    return None


def finish_soak(plan: Plan, directory: RunDirectory, docker: Docker) -> Result:
    """End a soak that nobody looks after: it is done, or it is stopped now.

    Raises:
        VaultCubeError: the engine does not answer, or the result cannot be written.
    """
    docker.ask(["version", "--format", "{{.Server.Version}}"])
    return end_soak(plan, directory, docker, None)
