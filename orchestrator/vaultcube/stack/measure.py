"""`vaultcube bench WORKLOAD --instance NAME`: a service that runs already is measured as it is."""

from __future__ import annotations

import os
from pathlib import Path

from vaultcube.errors import NotFoundError, UsageError
from vaultcube.results.envelope import LAUNCHER_RANK
from vaultcube.results.events import EventLog, ModelEvent, ServerReady
from vaultcube.results.profile import load_profile
from vaultcube.results.store import EVENTS, RunDirectory
from vaultcube.stack.assets import PROFILES
from vaultcube.stack.bench import Session, Watcher
from vaultcube.stack.collect import read_events
from vaultcube.stack.docker import Docker, EngineInfo, Probe
from vaultcube.stack.ending import read_plan
from vaultcube.stack.instances import Instance, instances, pick
from vaultcube.stack.machine import Machine
from vaultcube.stack.measurement import plan_measurement
from vaultcube.stack.plan import Plan, Request
from vaultcube.stack.reservation import Reservation
from vaultcube.stack.signals import Stop
from vaultcube.workloads import Service, Workload


class MeasureSession(Session):
    """One measurement of a running instance; see Session for the other arguments.

    Args:
        instance: its name, or its run id.
    """

    def __init__(
        self,
        workload: Workload,
        request: Request,
        *,
        profile: str,
        results_root: Path,
        instance: str,
        probe: Probe | None = None,
    ) -> None:
        super().__init__(workload, request, profile=profile, results_root=results_root, probe=probe)
        self.instance = instance
        self._target: RunDirectory | None = None
        if not isinstance(workload, Service):
            raise UsageError(f"{workload.name} is no service: no instance of it runs")
        self._service: Service = workload

    def plan(self) -> Plan:
        """Decide everything; starts nothing and writes nothing.

        Raises:
            VaultCubeError: there is no such instance, or it cannot be measured.
        """
        return self._measurement(Docker())

    def _measurement(self, docker: Docker) -> Plan:
        found = pick(_services(docker, self.workload.name), self.instance)
        if found.state not in {"ready", "unhealthy"}:
            raise NotFoundError(
                f"{found.called} is {found.state}, and only an instance that answers can be measured",
                next_step="Wait for it: vaultcube ps.",
            )
        self._target = RunDirectory(Path(found.directory))
        target = read_plan(self._target)
        with Machine() as machine:
            inventory = machine.inventory()
        return plan_measurement(
            self._service,
            self.request,
            target,
            profile=load_profile(self.profile, PROFILES),
            inventory=inventory,
            run_id=self.run_id,
            created=self.now,
        )

    def _prepare(self, docker: Docker, stop: Stop, watcher: Watcher) -> tuple[Plan, EngineInfo, Reservation | None]:
        engine = (self.probe or docker.begin_probe()).finish(docker)
        plan = self._measurement(docker)
        images = set(engine.images)
        for image in plan.images:
            self._build(image, images, docker, stop, watcher)
        watcher.note(f"measuring {self.instance}, run {plan.target}")
        return plan, engine, None

    def _made(self, plan: Plan, directory: RunDirectory) -> None:
        """Take over what the servers said of their model and their start: a run is complete in itself."""
        if self._target is None:
            return
        directory.write(EVENTS, adopted(read_events(self._target)))
        uid, _, gid = plan.user.partition(":")
        if int(uid) != os.getuid():
            # The client goes on writing to it.
            os.chown(directory.events, int(uid), int(gid))


def adopted(log: EventLog) -> str:
    """Return the events of servers that a measurement needs, numbered anew, a line each."""
    numbers: dict[int, int] = {}
    lines = []
    for event in log.events:
        if isinstance(event, ModelEvent | ServerReady) and event.rank != LAUNCHER_RANK:
            numbers[event.rank] = numbers.get(event.rank, -1) + 1
            one = event.model_copy(update={"seq": numbers[event.rank]})
            lines.append(one.model_dump_json(by_alias=True) + "\n")
    return "".join(lines)


def _services(docker: Docker, workload: str) -> list[Instance]:
    return [one for one in instances(docker) if one.name and one.workload == workload]
