"""`vaultcube bench`: from a request to a kept result, in the order in which things can be refused."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from vaultcube.errors import (
    VaultCubeError,
    VerdictError,
    WorkloadError,
    all_errors,
)
from vaultcube.gpu.inventory import Inventory
from vaultcube.gpu.pinning import PinningFacts
from vaultcube.gpu.selection import NOBODY, Held
from vaultcube.results.events import AnyEvent
from vaultcube.results.lock import locked
from vaultcube.results.profile import load_profile
from vaultcube.results.schema import Result, Verdict
from vaultcube.results.store import RunDirectory, RunStore
from vaultcube.stack.assets import PROFILES
from vaultcube.stack.buildlog import BuildLog
from vaultcube.stack.data import check_data, check_model
from vaultcube.stack.docker import Docker, EngineInfo, Probe
from vaultcube.stack.environment import container_user, cpu_ranks, kernel_log, new_run_id, utc_now
from vaultcube.stack.images import BuildOptions, build
from vaultcube.stack.lifecycle import JobRun
from vaultcube.stack.machine import Machine
from vaultcube.stack.plan import Plan, Request, make_plan
from vaultcube.stack.reservation import Reservation, reserve
from vaultcube.stack.signals import Stop
from vaultcube.workloads import Workload


class Watcher(Protocol):
    """Shows what goes on."""

    def note(self, text: str) -> None:
        """Show one line."""

    def building(self, log: BuildLog, lines: list[str]) -> None:
        """Show how far a build is."""

    def event(self, event: AnyEvent) -> None:
        """Show an event of the workload."""


class Begun(NamedTuple):
    """A run that may start: its plan, engine and directory, what ends it, and the lock under which its GPUs are free."""

    plan: Plan
    engine: EngineInfo
    docker: Docker
    stop: Stop
    directory: RunDirectory
    reservation: Reservation | None


class Session:
    """One `bench`.

    Args:
        workload: which one.
        request: what the user asked for.
        profile: a profile's name or path.
        results_root: the folder that runs are kept in.
        probe: a question to the engine that is under way already, or None.
        secrets: what the containers are given, by name.
    """

    def __init__(
        self,
        workload: Workload,
        request: Request,
        *,
        profile: str,
        results_root: Path,
        probe: Probe | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self.workload = workload
        self.secrets = secrets or {}
        self.request = request.model_copy(update={"secrets": tuple(sorted(self.secrets))})
        self.profile = profile
        self.probe = probe
        self.store = RunStore(results_root)
        self.now = utc_now()
        self.run_id = new_run_id(workload.name, self.now)

    def plan(self) -> Plan:
        """Decide everything; starts nothing and writes nothing. The engine is asked only where GPUs are chosen.

        Raises:
            VaultCubeError: the request cannot be met on this machine.
        """
        with Machine() as machine:
            draft = self._plan(machine.inventory())
            return self._place(machine, Docker()) if draft.gpus else draft

    def _plan(
        self,
        inventory: Inventory,
        held: Held = NOBODY,
        engine: PinningFacts | None = None,
        taken: Collection[str] = (),
    ) -> Plan:
        uid, gid = container_user()
        plan = make_plan(
            self.workload,
            self.request,
            profile=load_profile(self.profile, PROFILES),
            inventory=inventory,
            run_id=self.run_id,
            created=self.now,
            user=f"{uid}:{gid}",
            cpu_ranks=cpu_ranks(),
            held=held,
            engine=engine,
            kernel_log=kernel_log(),
            taken=taken,
        )
        check_data(plan)
        check_model(plan)
        return plan

    def _place(self, machine: Machine, docker: Docker) -> Plan:
        """Decide again, now with who holds which GPU and how the engine hands them out."""
        inventory = machine.inventory()
        return self._plan(inventory, machine.held(docker, inventory), machine.engine(docker))

    def directory_path(self) -> Path:
        """Return where the run will be kept."""
        return self.store.root / self.run_id

    def run(self, watcher: Watcher) -> tuple[Result, Path]:
        """Run to the end.

        Returns:
            The result, and the directory that keeps it.

        Raises:
            VaultCubeError: refused before anything was started, or the result cannot be written.
        """
        with self._begun(watcher) as begun:
            plan, directory = begun.plan, begun.directory
            watcher.note(f"run {plan.run_id} in {directory.path}")
            self._made(plan, directory)
            run = JobRun(plan, directory, begun.docker, begun.stop, watcher.event, begun.reservation, self.secrets)
            result = run.execute(begun.engine)
        return result, directory.path

    @contextlib.contextmanager
    def _begun(self, watcher: Watcher) -> Iterator[Begun]:
        """Prepare everything, and hold the lock of a fresh run directory for as long as the context lasts.

        Raises:
            VaultCubeError: refused before anything was started.
        """
        with Stop() as stop, contextlib.ExitStack() as held:
            docker = Docker(stop)
            plan, engine, reservation = self._prepare(docker, stop, watcher)
            if reservation is not None:
                held.enter_context(reservation)
            user = container_user()
            directory = self.store.create(plan.run_id, owner=user if user[0] != os.getuid() else None)
            held.callback(directory.remove_unplanned)
            with locked(directory.path):
                yield Begun(plan, engine, docker, stop, directory, reservation)

    def _made(self, plan: Plan, directory: RunDirectory) -> None:
        """Put into a fresh run directory what a session has to add."""

    def _prepare(self, docker: Docker, stop: Stop, watcher: Watcher) -> tuple[Plan, EngineInfo, Reservation | None]:
        """Return a plan whose image is there, and the reservation under which its GPUs were found free.

        A build takes minutes and must not hold up other runs, so GPUs are chosen again after it.
        """
        probe = self.probe or docker.begin_probe()
        with Machine() as machine:
            try:
                plan = self._plan(machine.inventory())
            except BaseException:
                probe.cancel()
                raise
            engine = probe.finish(docker)
            watcher.note(plan.flavour_reason)
            self._preflight(plan, docker, watcher)
            images = set(engine.images)
            while True:
                if not images.issuperset(plan.images):
                    # A busy machine, or one that cannot hand out GPUs, says so before the build.
                    plan = self._place(machine, docker) if plan.gpus else plan
                    for image in plan.images:
                        self._build(image, images, docker, stop, watcher)
                if not self._exclusive(plan):
                    return plan, engine, None
                reservation = reserve(stop, watcher.note)
                try:
                    plan = self._place(machine, docker)
                except BaseException:
                    reservation.release()
                    raise
                # On a machine of mixed cards others may be free by now, and want another image.
                if images.issuperset(plan.images):
                    if plan.gpus:
                        watcher.note(f"{'GPUs' if len(plan.gpus) > 1 else 'GPU'} {plan.indices}, {plan.pinning_reason}")
                    return plan, engine, reservation
                reservation.release()

    def _exclusive(self, plan: Plan) -> bool:
        """Say whether the run takes something that only one can have, and must be chosen under the lock."""
        return bool(plan.gpus)

    def _preflight(self, plan: Plan, docker: Docker, watcher: Watcher) -> None:
        """Refuse what cannot work before anything is built; a run on the CPU does not even import the checks."""
        if plan.gpus:
            from vaultcube.stack.doctor import preflight

            for note in preflight(plan, docker):
                watcher.note(note)

    def _build(self, image: str, images: set[str], docker: Docker, stop: Stop, watcher: Watcher) -> None:
        """Build an image if the engine has it not, and add it to what it has."""
        if image in images:
            return
        self.store.prove(self.run_id)
        watcher.note(f"building {image}: it is not on this machine yet")
        name, _, flavour = image.removeprefix("vaultcube/").partition(":")
        build(docker, stop, name, flavour, BuildOptions(), watcher.building)
        images.add(image)


class NamedSession(Session):
    """One that leaves something running which has a name; see Session for the arguments."""

    def _place(self, machine: Machine, docker: Docker) -> Plan:
        inventory = machine.inventory()
        taken = {one.instance for one in docker.containers() if one.instance}
        if not inventory.gpus:
            return self._plan(inventory, taken=taken)
        return self._plan(inventory, machine.held(docker, inventory), machine.engine(docker), taken)

    def _exclusive(self, plan: Plan) -> bool:  # noqa: ARG002 - a name is always taken
        return True


def conclude(result: Result, *, strict: bool, printed: bool = True) -> None:
    """Return when the run counts as done; the error of a run that failed is raised as it happened.

    Args:
        result: the run's.
        strict: UNAVAILABLE is not good enough.
        printed: the result was printed, and says what the error says.

    Raises:
        VaultCubeError: with the exit code of the run.
    """
    told = result.run.error
    if told is not None:
        kind = next((cls for cls in all_errors() if cls.code == told.code), WorkloadError)
        error = kind(told.message, next_step=told.next_step)
        raise _said(error) if printed else error
    bad = {Verdict.FAIL, Verdict.INVALID} | ({Verdict.UNAVAILABLE} if strict else set())
    if result.verdict in bad:
        step = f"See why: vaultcube runs show {result.run.id}"
        raise _said(VerdictError(f"the verdict is {result.verdict}", next_step=step))


def _said(error: VaultCubeError) -> VaultCubeError:
    error.in_result = True
    return error
