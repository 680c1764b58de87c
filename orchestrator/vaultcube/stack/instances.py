"""What is running, whoever started it. Always derived from the engine, never stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from vaultcube import workloads
from vaultcube.errors import NotFoundError, UsageError
from vaultcube.gpu.leases import leased
from vaultcube.gpu.nvml import Nvml
from vaultcube.gpu.readings import NvmlError
from vaultcube.results.lock import keeper
from vaultcube.results.service import ServiceRecord, read_record
from vaultcube.results.store import RunDirectory
from vaultcube.stack.docker import Container, Docker
from vaultcube.stack.leases import live_containers


@dataclass(frozen=True)
class HeldGpu:
    """A GPU that a run holds."""

    index: int
    uuid: str


@dataclass(frozen=True)
class Instance:
    """A run that has containers or networks.

    Attributes:
        run: its id.
        workload: what it runs; empty when only a network is left.
        state: `running`, or how its containers stand; `network left` when there are none.
        keeper: pid of the orchestrator that looks after it, or None for an orphan.
        directory: its run directory; empty when unknown.
        gpus: what it holds (`with_gpus`); None when it holds some and NVML does not say which.
        name: of a service; empty for a job.
        url: where a service answers, once it does.
        alone: it goes on by itself, and nobody has to look after it.
    """

    run: str
    workload: str
    state: str
    keeper: int | None
    directory: str
    gpus: tuple[HeldGpu, ...] | None = ()
    name: str = ""
    url: str = ""
    alone: bool = False

    @property
    def directory_path(self) -> Path:
        """The run directory."""
        return Path(self.directory)

    @property
    def called(self) -> str:
        """What people call it."""
        return self.name or self.run

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def instances(docker: Docker) -> list[Instance]:
    """Return everything of ours that the engine holds.

    Raises:
        VaultCubeError: the engine does not answer.
    """
    containers, networks = docker.everything()
    by_run: dict[str, list[Container]] = defaultdict(list)
    for container in containers:
        by_run[container.run].append(container)
    for run in networks:
        by_run.setdefault(run, [])
    return [_instance(run, found, docker) for run, found in sorted(by_run.items())]


def _instance(run: str, containers: list[Container], docker: Docker) -> Instance:
    if not containers:
        return Instance(run, "", "network left", None, "")
    first = containers[0]
    states = {container.state for container in containers}
    state = "running" if "running" in states else ", ".join(sorted(states))
    looked_after_by = keeper(Path(first.run_dir)) if first.run_dir else None
    found = Instance(run, first.workload, state, looked_after_by, first.run_dir, name=first.instance)
    if not found.name:
        return found
    record = read_record(RunDirectory(Path(first.run_dir))) if first.run_dir else None
    if record is None:
        if is_soak(first.workload):
            return replace(found, alone=True)
        return replace(found, state="loading" if looked_after_by and state == "running" else state)
    return replace(found, state=_standing(containers, record, docker), url=record.url, alone=True)


def is_soak(workload: str) -> bool:
    """Say whether a workload of that name is one that goes on by itself."""
    with suppress(NotFoundError):
        return isinstance(workloads.load(workload), workloads.Soak)
    return False


def _standing(containers: Sequence[Container], record: ServiceRecord, docker: Docker) -> str:
    """Return how a service that once answered stands: by the engine's health checks of its servers."""
    states = sorted({one.state for one in containers})
    if states != ["running"]:
        return ", ".join(states)
    if any("(unhealthy)" in one.status for one in containers):
        return "unhealthy"
    # Its first check may be due yet; one that started after it had answered was started again.
    young = docker.exits([one.id for one in containers if "(health: starting)" in one.status])
    if any(datetime.fromisoformat(one.started) > record.ready for one in young):
        return "loading again"
    # Several servers have a proxy in front of them.
    whole = record.servers + (record.servers > 1)
    return "ready" if len(containers) >= whole else "partly gone"


def with_gpus(found: Sequence[Instance], docker: Docker) -> list[Instance]:
    """Return the instances with the GPUs that their running containers hold. NVML is asked only where there are any.

    Raises:
        VaultCubeError: the engine does not answer.
    """
    holding = [one for one in live_containers(docker) if one.run and one.requests] if found else []
    if not holding:
        return list(found)
    try:
        with Nvml() as nvml:
            gpus = nvml.gpus()
    except NvmlError:
        runs = {one.run for one in holding}
        return [replace(one, gpus=None) if one.run in runs else one for one in found]
    held: dict[str, set[str]] = defaultdict(set)
    for container in holding:
        held[container.run].update(leased(container, gpus).uuids)
    return [
        replace(one, gpus=tuple(HeldGpu(gpu.index, gpu.uuid) for gpu in gpus if gpu.uuid in held[one.run]))
        for one in found
    ]


def pick(found: list[Instance], name: str | None) -> Instance:
    """Return the instance of that name or run id, or the only one whose run id begins so; None means the only one.

    Raises:
        NotFoundError: there is none.
        UsageError: more than one fits.
    """
    fitting = [one for one in found if name is None or (name and name in {one.run, one.name})] or [
        one for one in found if name and one.run.startswith(name)
    ]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise NotFoundError(f"nothing of the name {name!r} is running" if name else "nothing is running")
    names = ", ".join(one.called for one in fitting)
    raise UsageError(f"{len(fitting)} are there: {names}", next_step="Name one of them, or use --all.")
