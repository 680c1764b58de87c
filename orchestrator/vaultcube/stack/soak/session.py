"""`vaultcube stress`: a soak is begun, gone on with, looked at and ended, whoever began it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from vaultcube.errors import NotFoundError, RunActiveError, SoakChangedError, UsageError, VaultCubeError
from vaultcube.gpu.selection import GpuRequest, choose
from vaultcube.results.lock import keeper, locked
from vaultcube.results.schema import Result, Status
from vaultcube.results.soakstatus import SoakStatus
from vaultcube.results.store import PLAN, RunDirectory, RunStore
from vaultcube.stack.bench import NamedSession
from vaultcube.stack.docker import Docker
from vaultcube.stack.ending import read_plan
from vaultcube.stack.instances import Instance, instances, is_soak
from vaultcube.stack.machine import Machine
from vaultcube.stack.plan import Plan
from vaultcube.stack.reservation import reserve
from vaultcube.stack.signals import Stop
from vaultcube.stack.soak.run import SoakRun, SoakWatcher, image_ids, images_before
from vaultcube.stack.soak.state import SoakState
from vaultcube.stack.takedown import settle, take_down


class SoakSession(NamedSession):
    """A soak that is begun; see Session for the arguments."""

    def soak(self, watcher: SoakWatcher, *, detach: bool) -> tuple[Result | SoakStatus, Path]:
        """Begin it, and look on to its end.

        Args:
            watcher: is shown what goes on.
            detach: return when every worker has begun.

        Returns:
            The result, or how it stands if it goes on by itself; and its run directory.

        Raises:
            VaultCubeError: refused before anything was started, or the result cannot be written.
        """
        with self._begun(watcher) as begun:
            plan, directory = begun.plan, begun.directory
            watcher.note(f"soak {plan.instance}: run {plan.run_id} in {directory.path}")
            run = SoakRun(plan, directory, begun.docker, begun.stop, watcher, begun.reservation)
            return run.start(begun.engine) or run.go_on(begun.engine, detach=detach), directory.path


@dataclass(frozen=True)
class Asked:
    """What somebody who goes on with a soak said besides; None is what he left open.

    Attributes:
        gpus: as for a new one; None for those that it has.
        hours: covered time in all.
        flavour: `auto` or a flavour.
    """

    gpus: GpuRequest | None = None
    hours: float | None = None
    flavour: str = "auto"


def resume(
    store: RunStore, name: str | None, asked: Asked, watcher: SoakWatcher, *, detach: bool
) -> tuple[Result | SoakStatus, Path]:
    """Go on with a soak that was broken off, or look on at one that runs by itself.

    Args:
        store: where runs are kept.
        name: the instance's or the run's; None means the last one that is not done.
        asked: what is wanted of it.
        watcher: is shown what goes on.
        detach: return when every worker has begun.

    Returns:
        As `SoakSession.soak` does.

    Raises:
        NotFoundError: there is none. RunActiveError: a vaultcube looks after it. SoakChangedError: it is not what was
        asked for, or what it ran on is not there any more.
        VaultCubeError: refused, or the result cannot be written.
    """
    with Stop() as stop, contextlib.ExitStack() as held:
        docker = Docker(stop)
        directory = unfinished(store, docker, name)
        if (pid := keeper(directory.path)) is not None:
            raise RunActiveError(f"{directory.id} is looked after by another vaultcube (pid {pid})")
        plan = read_plan(directory)
        engine = docker.begin_probe().finish(docker)
        refuse_changes(plan, asked)
        running = [one for one in docker.containers(plan.run_id) if one.state in {"running", "restarting"}]
        with Machine() as machine, locked(directory.path):
            reservation = None
            if not running and plan.gpus:
                reservation = held.enter_context(reserve(stop, watcher.note))
            refuse_other_machine(plan, directory, docker, machine, running=bool(running))
            watcher.note(f"soak {plan.instance}: going on with {plan.run_id} in {directory.path}")
            run = SoakRun(plan, directory, docker, stop, watcher, reservation)
            return run.start(engine) or run.go_on(engine, detach=detach), directory.path


def refuse_changes(plan: Plan, asked: Asked) -> None:
    """Refuse to go on with a soak as something else.

    Raises:
        SoakChangedError: other GPUs, hours or another flavour were asked for.
    """
    wanted = asked.gpus
    if wanted is not None:
        counts = {"count": wanted.count, "named": len(wanted.names), "none": 0}
        count = counts.get(wanted.kind)
        known = {str(gpu.index) for gpu in plan.gpus} | {gpu.uuid for gpu in plan.gpus}
        strange = [name for name in wanted.names if name not in known]
        if count is not None and (count != len(plan.gpus) or strange):
            what = f"GPU {', '.join(strange)}" if strange else f"{count} GPU(s)"
            raise SoakChangedError(f"{plan.run_id} runs on {said_gpus(plan)}, and {what} was asked for")
    if asked.hours is not None and asked.hours != plan.params["hours"]:
        raise SoakChangedError(
            f"{plan.run_id} is one of {plan.params['hours']:g} h, and {asked.hours:g} h was asked for"
        )
    if asked.flavour not in {"auto", plan.flavour}:
        raise SoakChangedError(f"{plan.run_id} runs the image {plan.image}, and {asked.flavour} was asked for")


def refuse_other_machine(
    plan: Plan, directory: RunDirectory, docker: Docker, machine: Machine, *, running: bool
) -> None:
    """Refuse to go on with a soak where its image or one of its GPUs is another by now.

    Raises:
        SoakChangedError: as named. GpuBusyError: somebody else took one of its GPUs meanwhile.
    """
    before, now = images_before(directory), image_ids(plan, docker)
    for name in plan.images:
        if name not in now:
            raise SoakChangedError(f"the image {name} of {plan.run_id} is not on this machine any more")
        if before.get(name, now[name]) != now[name]:
            raise SoakChangedError(f"the image {name} is another one than {plan.run_id} was begun with")
    if not plan.gpus:
        return
    inventory = machine.inventory()
    there = {gpu.uuid for gpu in inventory.gpus}
    for gpu in plan.gpus:
        if gpu.uuid not in there:
            raise SoakChangedError(
                f"GPU {gpu.index} of {plan.run_id} ({gpu.uuid}, slot {gpu.pci_bus_id}) is not in this machine any more"
            )
    if not running:
        named = GpuRequest("named", names=tuple(gpu.uuid for gpu in plan.gpus))
        choose(named, inventory.gpus, held=machine.held(docker, inventory))


def said_gpus(plan: Plan) -> str:
    """Return what a soak runs on."""
    return f"{len(plan.gpus)} GPU(s), {plan.indices}" if plan.gpus else f"the CPU ({len(plan.workers)} workers)"


def stop(store: RunStore, docker: Docker, name: str | None) -> tuple[Result, Path]:
    """End a soak, running or done: judge it, keep that, remove its containers.

    Raises:
        NotFoundError: there is none. RunActiveError: somebody else is ending it.
        VaultCubeError: the engine does not answer, or the result cannot be written.
    """
    live = {one.directory: one for one in running_soaks(docker)}
    directory = unfinished(store, docker, name)
    mine = live.get(str(directory.path))
    if mine is not None:
        take_down(mine, docker)
    elif directory.read_result() is None:
        settle(directory, docker)
    else:
        raise NotFoundError(f"{directory.id} is not running, and its result is kept")
    return directory.finished_result(), directory.path


def last_soak(store: RunStore) -> Result | None:
    """Return the result of the soak that was begun last, if it has one."""
    for directory in store.runs():
        if has_workers(directory):
            return directory.read_result()
    return None


def running_soaks(docker: Docker) -> list[Instance]:
    """Return the soaks that have containers.

    Raises:
        VaultCubeError: the engine does not answer.
    """
    return [one for one in instances(docker) if is_soak(one.workload) and one.directory]


def unfinished(store: RunStore, docker: Docker, name: str | None) -> RunDirectory:
    """Return the soak that can be gone on with.

    Raises:
        NotFoundError: there is none, it is none, or it is done.
        UsageError: more than one has containers, and none was named.
    """
    live = [one for one in running_soaks(docker) if name is None or name in {one.name, one.run}]
    if len(live) > 1:
        names = ", ".join(one.called for one in live)
        one = live[0].name
        how = f"Name one: vaultcube stress --resume --name {one}, or vaultcube stress stop {one}."
        raise UsageError(f"{len(live)} soaks are there: {names}", next_step=how)
    if live:
        return RunDirectory(live[0].directory_path)
    for directory in store.runs() if name is None else [store.find(name)]:
        if not has_workers(directory):
            if name is not None:
                raise NotFoundError(f"{directory.id} is no soak")
            continue
        result = directory.read_result()
        if result is None or result.run.status is not Status.COMPLETED:
            return directory
        raise NotFoundError(
            f"{directory.id} has covered its hours: {result.verdict}",
            next_step="Begin a new one: vaultcube stress --hours 24.",
        )
    raise NotFoundError("there is no soak to go on with", next_step="Begin one: vaultcube stress --hours 24.")


def has_workers(directory: RunDirectory) -> bool:
    """Say whether a run is a soak."""
    with contextlib.suppress(VaultCubeError):
        return (directory.path / PLAN).is_file() and bool(read_plan(directory).workers)
    return False


def soak_statuses(docker: Docker) -> list[SoakStatus]:
    """Return how every soak stands that has containers.

    Raises:
        VaultCubeError: the engine does not answer.
    """
    found = []
    for one in running_soaks(docker):
        directory = RunDirectory(one.directory_path)
        with contextlib.suppress(VaultCubeError):
            plan = read_plan(directory)
            if plan.workers:
                state = SoakState(plan, directory)
                found.append(state.status(running=one.state == "running", keeper=one.keeper))
    return found
