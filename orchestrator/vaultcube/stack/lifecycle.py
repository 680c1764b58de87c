"""One run from start to result: up, follow, clean up, collect. Whatever happens, a result.json is left and no container."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence

from vaultcube.errors import (
    BugError,
    InterruptedRunError,
    PortTakenError,
    RefusedError,
    RunTimeoutError,
    StartError,
    VaultCubeError,
)
from vaultcube.results.events import AnyEvent, EventLog
from vaultcube.results.schema import Result, Status
from vaultcube.results.store import CONTAINERS, PLAN, RunDirectory
from vaultcube.stack.assets import asset
from vaultcube.stack.collect import RESOLVED
from vaultcube.stack.docker import LABEL_RUN, Docker, EngineInfo, Exit
from vaultcube.stack.dockerwords import known_error, last_line
from vaultcube.stack.ending import POLL_S, clean_up, ended_first, engine_lost, images_of, keep, workload_only
from vaultcube.stack.outcome import Outcome, classify
from vaultcube.stack.override import (
    OVERRIDE,
    PROXY_CONFIG,
    compose_args,
    copied_args,
    copied_service,
    make_override,
    proxy_config,
    up_args,
)
from vaultcube.stack.plan import Plan
from vaultcube.stack.process import Child, Finished
from vaultcube.stack.reservation import Reservation
from vaultcube.stack.secrets import keep_secrets
from vaultcube.stack.signals import Stop
from vaultcube.stack.telemetry import recording

START_LIMIT_S = 120.0

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
        secrets: what the containers are given, by name.
    """

    def __init__(
        self,
        plan: Plan,
        directory: RunDirectory,
        docker: Docker,
        stop: Stop,
        watch: Watcher,
        reservation: Reservation | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self.plan = plan
        self.directory = directory
        self.docker = docker
        self.stop = stop
        self.watch = watch
        self.reservation = reservation
        self.secrets = secrets or {}
        self.log = EventLog()
        self._offset = 0

    def execute(self, engine: EngineInfo) -> Result:
        """Run it, clean up, judge it, and keep the result.

        Raises:
            ResultsUnwritableError, DiskTooSmallError: result.json cannot be written.
        """
        cause: VaultCubeError | None = None
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
        return self._end(cause, disturbances, engine)

    def _end(self, cause: VaultCubeError | None, disturbances: Sequence[str], engine: EngineInfo) -> Result:
        """Clean up, judge, and keep the result."""
        seen: list[Exit] = []
        try:
            seen = clean_up(self.plan, self.directory, self.docker.shielded())
        except VaultCubeError as error:
            cause = cause if isinstance(cause, InterruptedRunError) else engine_lost(error)
        self._read()
        # The container is gone: what has no newline by now never gets one.
        for event in self.log.close():
            self.watch(event)
        status, told = classify(ended_first(self.plan, seen), self.log.events, cause)
        outcome = Outcome(status=status, error=told, images=images_of(seen), disturbances=list(disturbances))
        return keep(self.plan, self.directory, self.log, outcome, engine)

    def _abandon(self, engine: EngineInfo) -> None:
        """Clear up after a bug of ours, which is then reported as such; nothing here may hide it."""
        with contextlib.suppress(Exception):
            clean_up(self.plan, self.directory, self.docker.shielded())
        with contextlib.suppress(Exception):
            error = BugError("vaultcube itself failed while it looked after the run")
            keep(self.plan, self.directory, self.log, Outcome(status=Status.FAILED, error=error), engine)

    def _write_plan(self) -> None:
        """Write down what will be done, and make what the containers find there."""
        plan = self.plan
        self.directory.write(PLAN, plan.to_json())
        copied = None
        if plan.proxied:
            self.directory.write(PROXY_CONFIG, proxy_config(plan))
        if service := copied_service(plan):
            whole = json.loads(self.docker.ask(copied_args(plan, asset("compose"))))
            copied = whole["services"][service]
        self.directory.write(OVERRIDE, make_override(plan, self.directory.path, copied))
        if plan.servers:
            self.docker.ask(["volume", "create", plan.cache])
            uid, _, gid = plan.user.partition(":")
            keep_secrets(plan.run_id, self.secrets, (int(uid), int(gid)))

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
        ids = self._containers()
        while ids and self._wait(ids, deadline):
            # Somebody ended our `docker wait`, not the containers.
            self.stop.wait(POLL_S)

    def _containers(self) -> list[str]:
        """Return the ids of the containers that do the work, and note whose computing on the GPUs is ours."""
        containers = self.docker.containers(self.plan.run_id)
        if self.plan.gpus:
            # Whoever computes on them and is in none of these is a guest.
            ours = [*containers, *(self.docker.containers(self.plan.target) if self.plan.target else [])]
            self.directory.write(CONTAINERS, json.dumps({one.name: one.id for one in ours}, indent=2) + "\n")
        ids = [container.id for container in containers]
        if self.plan.recorder == "container":
            ids = [exit_.id for exit_ in workload_only(self.docker.exits(ids))]
        return ids

    def _wait(self, ids: list[str], deadline: float) -> bool:
        """Wait for the end of one of the containers, and say whether all are running all the same."""
        waiters = [self.docker.start(["wait", one]) for one in ids]
        try:
            while all(waiter.running for waiter in waiters) and not self._arrived():
                self._read()
                self.stop.wait(POLL_S)
                self.stop.check()
                if time.monotonic() > deadline:
                    raise self._late()
        finally:
            _end_all(waiters)
        self._read()
        if self._arrived():
            return False
        try:
            # One that was removed is not among them any more.
            return sum(exit_.running for exit_ in self.docker.exits(ids)) == len(ids)
        except VaultCubeError as error:
            raise engine_lost(error) from error

    def _arrived(self) -> bool:
        """Say whether there is nothing more to wait for, though containers run."""
        return False

    def _late(self) -> VaultCubeError:
        return RunTimeoutError(f"the run took longer than {self.plan.timeout_s:g} s")

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
        # An instance that is measured is no stranger to its own measurement.
        shared = sorted((others | set(started.split())) - {self.plan.run_id, self.plan.target})
        return [f"run {other} used the CPU at the same time" for other in shared]


def _end_all(children: Sequence[Child]) -> None:
    for child in children:
        child.end()


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
    if "port is already allocated" in low or "address already in use" in low:
        return PortTakenError(last_line(text))
    if "no such image" in low or "pull access denied" in low:
        return RefusedError(
            f"the image is not on this machine: {last_line(text)}", next_step="Build it with `vaultcube images build`."
        )
    return known_error(text) or StartError(f"docker compose up failed: {last_line(text)}")
