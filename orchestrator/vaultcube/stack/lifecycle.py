"""One run from start to result: up, follow, clean up, collect. Whatever happens, a result.json is left and no container."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from vaultcube.errors import (
    BugError,
    EngineLostError,
    InterruptedRunError,
    RefusedError,
    RunTimeoutError,
    StartError,
    VaultCubeError,
)
from vaultcube.results.events import AnyEvent, EventLog
from vaultcube.results.profile import describe
from vaultcube.results.schema import Result, Status
from vaultcube.results.store import CONTAINERS, LOG, PLAN, TELEMETRY, RunDirectory
from vaultcube.stack.assets import asset
from vaultcube.stack.collect import RESOLVED, build_result, compose_sha256, read_events
from vaultcube.stack.docker import LABEL_RUN, Docker, EngineInfo, Exit, checked, engine_is_gone, known_error, last_line
from vaultcube.stack.environment import provenance, utc_now
from vaultcube.stack.outcome import Outcome, classify
from vaultcube.stack.override import OVERRIDE, compose_args, make_override, up_args
from vaultcube.stack.plan import RECORDER_SERVICE, Plan
from vaultcube.stack.process import Finished
from vaultcube.stack.reservation import Reservation
from vaultcube.stack.signals import Stop
from vaultcube.stack.telemetry import recording

POLL_S = 0.2
START_LIMIT_S = 120.0
# The compose files' stop_grace_period; the programs need under 2 s of it.
STOP_GRACE_S = 10
ENGINE_RETURN_S = 10.0

Watcher = Callable[[AnyEvent], None]


class JobRun:
    """Executes the plan of a job, a workload that ends by itself.

    Args:
        plan: what to do.
        directory: a fresh run directory; its lock must be held.
        docker: stopped by `stop`.
        stop: Ctrl-C and friends.
        watch: called with every event as it comes.
        reservation: held by whoever chose the plan's GPUs; released as soon as the containers run.
    """

    def __init__(
        self,
        plan: Plan,
        directory: RunDirectory,
        docker: Docker,
        stop: Stop,
        watch: Watcher,
        reservation: Reservation | None = None,
    ) -> None:
        self.plan = plan
        self.directory = directory
        self.docker = docker
        self.stop = stop
        self.watch = watch
        self.reservation = reservation
        self.log = EventLog()
        self._offset = 0

    def execute(self, engine: EngineInfo) -> Result:
        """Run it, clean up, judge it, and keep the result.

        Raises:
            ResultsUnwritableError, DiskTooSmallError: result.json cannot be written.
        """
        cause: VaultCubeError | None = None
        seen: list[Exit] = []
        disturbances: list[str] = []
        since = f"{time.time():.3f}"
        try:
            self._write_plan()
            with recording(self.plan, self.directory):
                self._up()
                self._resolve()
                others = self._others()
                self._follow()
            disturbances = self._disturbances(others, since)
        except VaultCubeError as error:
            cause = error
        except BaseException:
            self._abandon(engine)
            raise
        try:
            seen = clean_up(self.plan, self.directory, self.docker.shielded())
        except VaultCubeError as error:
            cause = cause if isinstance(cause, InterruptedRunError) else _engine_lost(error)
        self._read()
        # The container is gone: what has no newline by now never gets one.
        for event in self.log.close():
            self.watch(event)
        status, told = classify(workload_only(seen), self.log.events, cause)
        outcome = Outcome(status=status, error=told, images=_images(seen), disturbances=disturbances)
        return keep(self.plan, self.directory, self.log, outcome, engine)

    def _abandon(self, engine: EngineInfo) -> None:
        """Clear up after a bug of ours, which is then reported as such; nothing here may hide it."""
        with contextlib.suppress(Exception):
            clean_up(self.plan, self.directory, self.docker.shielded())
        with contextlib.suppress(Exception):
            error = BugError("vaultcube itself failed while it looked after the run")
            keep(self.plan, self.directory, self.log, Outcome(status=Status.FAILED, error=error), engine)

    def _write_plan(self) -> None:
        self.directory.write(PLAN, self.plan.to_json())
        self.directory.write(OVERRIDE, make_override(self.plan, self.directory.path))

    def _up(self) -> None:
        args = up_args(self.plan, asset("compose"), self.directory.path)
        held = self.reservation.descriptors if self.reservation else ()
        seen = self.docker.call(args, timeout=START_LIMIT_S, inherit=held)
        if not seen.ok:
            raise start_error(seen)
        if self.reservation:
            self.reservation.release()

    def _resolve(self) -> None:
        """Keep the whole of what compose ran. After the start: it is a record, not a step."""
        args = compose_args(self.plan, asset("compose"), self.directory.path)
        self.directory.write(RESOLVED, self.docker.ask([*args, "config", "--format", "json"]))

    def _follow(self) -> None:
        """Wait for the end of the containers and pass on events as they come.

        Raises:
            InterruptedRunError, RunTimeoutError, EngineLostError: as named.
        """
        deadline = time.monotonic() + self.plan.timeout_s
        containers = self.docker.containers(self.plan.run_id)
        if self.plan.gpus:
            # Whoever computes on them and is in none of these is a guest.
            self.directory.write(CONTAINERS, json.dumps({one.name: one.id for one in containers}, indent=2) + "\n")
        ids = [container.id for container in containers]
        if self.plan.recorder == "container":
            ids = [exit_.id for exit_ in workload_only(self.docker.exits(ids))]
        if not ids:
            return
        while self._wait(ids, deadline):
            # Somebody ended our `docker wait`, not the containers.
            self.stop.wait(POLL_S)

    def _wait(self, ids: list[str], deadline: float) -> bool:
        """Wait for the end of containers, and say whether any is running all the same."""
        waiter = self.docker.start(["wait", *ids])
        try:
            while waiter.running:
                self._read()
                self.stop.wait(POLL_S)
                self.stop.check()
                if time.monotonic() > deadline:
                    raise RunTimeoutError(f"the run took longer than {self.plan.timeout_s:g} s")
        finally:
            waiter.end()
        self._read()
        try:
            return any(exit_.running for exit_ in self.docker.exits(ids))
        except VaultCubeError as error:
            raise _engine_lost(error) from error

    def _read(self) -> None:
        """Pass on what was appended to the events file."""
        chunk = self.directory.read_events(self._offset)
        self._offset += len(chunk)
        for event in self.log.feed(chunk):
            self.watch(event)

    def _others(self) -> set[str]:
        """Return the other runs that are going on."""
        containers = self.docker.containers()
        return {c.run for c in containers if c.state == "running" and c.run != self.plan.run_id}

    def _disturbances(self, others: set[str], since: str) -> list[str]:
        """Return a sentence for every other run that shared the CPU with a run on the CPU."""
        if self.plan.device == "cuda":
            return []
        args = [
            *("events", "--since", since, "--until", f"{time.time():.3f}"),
            *("--filter", "event=start", "--filter", f"label={LABEL_RUN}"),
            *("--format", f'{{{{index .Actor.Attributes "{LABEL_RUN}"}}}}'),
        ]
        try:
            # The run is over: a signal now must not take its result away.
            started = self.docker.shielded().ask(args)
        except VaultCubeError as error:
            return [f"whether another run used the CPU could not be found out: {error.message}"]
        shared = sorted((others | set(started.split())) - {self.plan.run_id})
        return [f"run {other} used the CPU at the same time" for other in shared]


def workload_only(exits: list[Exit]) -> list[Exit]:
    """Return the containers that do the work: a recorder beside them goes on until it is stopped."""
    return [exit_ for exit_ in exits if exit_.service != RECORDER_SERVICE]


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
            docker.call(["stop", "--time", str(STOP_GRACE_S), *running], timeout=STOP_GRACE_S + 30)
        exits = docker.exits(ids)
        logs = docker.call(["compose", "--project-name", plan.run_id, "logs", "--no-color", "--timestamps"])
        # The log is a convenience: a full disk must not keep the containers.
        with contextlib.suppress(VaultCubeError):
            directory.write(LOG, logs.stdout)
    docker.remove_project(plan.run_id, grace_s=STOP_GRACE_S)
    # An `up` that was cut short may have left a request with the engine that it only now carries out.
    if docker.containers(plan.run_id):
        docker.remove_project(plan.run_id, grace_s=STOP_GRACE_S)
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
    status, error = classify(workload_only(exits), log.events, cause)
    return keep(
        plan,
        directory,
        log,
        Outcome(
            status=status,
            error=error,
            images=_images(exits),
            disturbances=["nobody watched this run to its end: its vaultcube was killed"],
        ),
        docker.begin_probe().finish(docker),
    )


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


def start_error(seen: Finished) -> VaultCubeError:
    """Name what stood in the way of `docker compose up`."""
    text = seen.stderr
    low = text.lower()
    if "could not select device driver" in low or "unresolvable cdi devices" in low:
        return RefusedError(
            last_line(text),
            next_step="Install and configure the NVIDIA Container Toolkit (nvidia-ctk cdi generate), "
            "or run on the CPU with --gpus none.",
        )
    if "no such image" in low or "pull access denied" in low:
        return RefusedError(
            f"the image is not on this machine: {last_line(text)}", next_step="Build it with `vaultcube images build`."
        )
    return known_error(text) or StartError(f"docker compose up failed: {last_line(text)}")


def _engine_lost(error: VaultCubeError) -> VaultCubeError:
    if engine_is_gone(error):
        return EngineLostError("the Docker engine went away during the run")
    return error


def _images(exits: list[Exit]) -> dict[str, str]:
    return {exit_.service: exit_.image_id for exit_ in exits}
