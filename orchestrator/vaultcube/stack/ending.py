"""The end of a run: containers are stopped and removed, and what was measured by then is judged and kept."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from pydantic import ValidationError

from vaultcube.errors import EngineLostError, InterruptedRunError, RefusedError, VaultCubeError
from vaultcube.results.events import EventLog
from vaultcube.results.profile import describe
from vaultcube.results.schema import Result
from vaultcube.results.store import LOG, PLAN, TELEMETRY, RunDirectory
from vaultcube.stack.collect import build_result, compose_sha256, read_events
from vaultcube.stack.docker import Docker, EngineInfo, Exit
from vaultcube.stack.dockerwords import checked, engine_is_gone
from vaultcube.stack.environment import provenance, utc_now
from vaultcube.stack.outcome import Outcome, classify
from vaultcube.stack.plan import RECORDER_SERVICE, Plan
from vaultcube.stack.secrets import forget_secrets

POLL_S = 0.2
# The compose files' stop_grace_period; the programs need under 2 s of it, a server with much memory to give back more.
STOP_GRACE_S = 10
SERVER_GRACE_S = 30
ENGINE_RETURN_S = 10.0


def workload_only(exits: list[Exit]) -> list[Exit]:
    """Return the containers that do the work: a recorder beside them goes on until it is stopped."""
    return [exit_ for exit_ in exits if exit_.service != RECORDER_SERVICE]


def ended_first(plan: Plan, exits: list[Exit]) -> list[Exit]:
    """Return the containers whose end says how a run went.

    A job's own. Of a service that was measured: the client; servers that ended before anybody stopped them come first,
    because what a client says then only follows from that.
    """
    work = workload_only(exits)
    if not plan.servers:
        return work
    servers = {server.service for server in plan.servers}
    fallen = [exit_ for exit_ in work if exit_.service in servers and not exit_.stopped and exit_.exit_code]
    return fallen or [exit_ for exit_ in work if plan.command and exit_.service == plan.service]


def grace_s(plan: Plan) -> int:
    """Return how long containers get to end by themselves: a server lets go of its GPUs in its own time."""
    return SERVER_GRACE_S if plan.servers else STOP_GRACE_S


def clean_up(plan: Plan, directory: RunDirectory, docker: Docker) -> list[Exit]:
    """Stop the containers of a run, keep their log, and remove everything; return how they ended.

    An engine that is just coming back is waited for. Nothing there is no error.

    Raises:
        VaultCubeError: the engine does not answer; containers may be left.
    """
    _wait_for_engine(docker)
    ids = [container.id for container in docker.containers(plan.run_id)]
    exits: list[Exit] = []
    if ids:
        running = [exit_.id for exit_ in docker.exits(ids) if exit_.running]
        if running:
            docker.call(["stop", "--time", str(grace_s(plan)), *running], timeout=grace_s(plan) + 30)
        exits = [exit_._replace(stopped=exit_.id in running) for exit_ in docker.exits(ids)]
        logs = docker.call(["compose", "--project-name", plan.run_id, "logs", "--no-color", "--timestamps"])
        # The log is a convenience: a full disk must not keep the containers.
        with contextlib.suppress(VaultCubeError):
            # Compose clears lines of a terminal even where there is none.
            directory.write(LOG, logs.stdout.replace("\x1b[2K", ""))
    docker.remove_project(plan.run_id, grace_s=grace_s(plan))
    forget_secrets(plan.run_id)
    # An `up` that was cut short may have left a request with the engine that it only now carries out.
    if docker.containers(plan.run_id):
        docker.remove_project(plan.run_id, grace_s=grace_s(plan))
    return exits


def _wait_for_engine(docker: Docker) -> None:
    deadline = time.monotonic() + ENGINE_RETURN_S
    while True:
        seen = docker.call(["version", "--format", "{{.Server.Version}}"])
        if seen.ok or time.monotonic() > deadline:
            checked(seen)
            return
        time.sleep(POLL_S)


def keep(plan: Plan, directory: RunDirectory, log: EventLog, outcome: Outcome, engine: EngineInfo | None) -> Result:
    """Build a run's result and write it.

    Raises:
        ResultsUnwritableError, DiskTooSmallError: as named.
    """
    _settle_telemetry(directory)
    source = provenance(engine, driver=plan.driver, images=outcome.images, compose_sha256=compose_sha256(directory))
    result = build_result(plan, directory, log, outcome, source, utc_now())
    directory.write_result(result)
    return result


def _settle_telemetry(directory: RunDirectory) -> None:
    """Make one plain file of what a recorder that was killed left in two, before it is read and hashed."""
    path = directory.path / TELEMETRY
    if path.is_file():
        from vaultcube.gpu.telemetry import settle

        settle(path)


def finish_orphan(directory: RunDirectory, docker: Docker) -> Result:
    """Clear a run whose orchestrator was killed, and judge what it had measured by then.

    Raises:
        VaultCubeError: the engine does not answer, or its plan cannot be read.
    """
    plan = read_plan(directory)
    was_running = any(container.state == "running" for container in docker.containers(plan.run_id))
    exits = clean_up(plan, directory, docker)
    log = read_events(directory)
    cause = None
    if was_running or not workload_only(exits):
        cause = InterruptedRunError("the vaultcube that looked after this run is gone, and the run was cleared")
    status, error = classify(ended_first(plan, exits), log.events, cause)
    outcome = Outcome(
        status=status,
        error=error,
        images=images_of(exits),
        disturbances=["nobody watched this run to its end: its vaultcube was killed"],
    )
    return keep(plan, directory, log, outcome, docker.begin_probe().finish(docker))


def read_plan(directory: RunDirectory) -> Plan:
    """Return a run's plan.

    Raises:
        RefusedError: plan.json cannot be read.
    """
    path: Path = directory.path / PLAN
    try:
        return Plan.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        why = describe(error) if isinstance(error, ValidationError) else error.strerror
        raise RefusedError(
            f"{path} cannot be read as a plan: {why}",
            next_step="Its containers can still be cleared with `vaultcube down --all`.",
        ) from error


def engine_lost(error: VaultCubeError) -> VaultCubeError:
    """Return the error, or that the engine went away if that is what it means."""
    if engine_is_gone(error):
        return EngineLostError("the Docker engine went away during the run")
    return error


def images_of(exits: list[Exit]) -> dict[str, str]:
    """Return the id of the image that each service ran."""
    return {exit_.service: exit_.image_id for exit_ in exits}
