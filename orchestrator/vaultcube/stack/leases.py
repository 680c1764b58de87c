"""Who holds which GPU now: asks the engine for its containers and NVML for its processes. Nothing is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vaultcube.errors import RefusedError
from vaultcube.gpu.leases import LABEL_ROLE, Card, DeviceRequest, GpuContainer, Leases, container_of, derive
from vaultcube.stack.docker import LABEL_RUN, Docker

if TYPE_CHECKING:
    from vaultcube.gpu.nvml import Nvml
    from vaultcube.gpu.readings import GpuProcess

PROC: Final = Path("/proc")
# A container that was made this long ago and never ran is one that failed to start: it holds nothing.
STARTING: Final = timedelta(seconds=60)


def read_leases(docker: Docker, nvml: Nvml, gpus: Sequence[Card]) -> Leases:
    """Return who holds which GPU, for a look at the machine. An engine that does not answer becomes a note.

    Args:
        docker: the engine.
        nvml: open.
        gpus: what its `gpus` returned, or the same ones in that order.

    Raises:
        InterruptedRunError: a stop was asked for.
    """
    try:
        containers = live_containers(docker)
    except RefusedError as error:
        found = _put_together(gpus, [], nvml)
        return Leases(found, (*found.notes, f"containers are not among the holders: {error.message}"))
    return _put_together(gpus, containers, nvml)


def take_leases(docker: Docker, nvml: Nvml, gpus: Sequence[Card]) -> Leases:
    """Return who holds which GPU, for a choice: what cannot be found out must not count as free.

    Raises:
        VaultCubeError: the engine does not answer, or a stop was asked for.
    """
    return _put_together(gpus, live_containers(docker), nvml)


def live_containers(docker: Docker) -> list[GpuContainer]:
    """Return the containers that run or are about to, without their processes.

    Raises:
        VaultCubeError: the engine does not answer, or a stop was asked for.
    """
    now = datetime.now(UTC)
    return [parse_container(raw) for raw in docker.live() if not stale(raw, now)]


def stale(raw: Mapping[str, Any], now: datetime) -> bool:
    """Say whether a container was only created, and too long ago to be about to start."""
    if raw["State"]["Status"] != "created":
        return False
    return now - datetime.fromisoformat(raw["Created"]) > STARTING


def parse_container(raw: Mapping[str, Any]) -> GpuContainer:
    """Read what `docker inspect` says of a container."""
    host, config = raw["HostConfig"], raw["Config"]
    labels = config.get("Labels") or {}
    env = dict(word.partition("=")[::2] for word in config.get("Env") or ())
    requests = (
        DeviceRequest(
            driver=one.get("Driver") or "",
            number=int(one.get("Count") or 0),
            ids=tuple(one.get("DeviceIDs") or ()),
            capabilities=tuple(tuple(each) for each in one.get("Capabilities") or ()),
        )
        for one in host.get("DeviceRequests") or ()
    )
    return GpuContainer(
        id=raw["Id"],
        name=raw["Name"].removeprefix("/"),
        run=labels.get(LABEL_RUN, ""),
        role=labels.get(LABEL_ROLE, ""),
        requests=tuple(requests),
        runtime=host.get("Runtime") or "",
        visible_devices=env.get("NVIDIA_VISIBLE_DEVICES"),
        driver_capabilities=env.get("NVIDIA_DRIVER_CAPABILITIES"),
        starting=raw["State"]["Status"] == "created",
    )


def _put_together(gpus: Sequence[Card], containers: Sequence[GpuContainer], nvml: Nvml) -> Leases:
    processes = {gpu.uuid: _processes(nvml, position) for position, gpu in enumerate(gpus)}
    pids = {one.pid for found in processes.values() for one in found if one.kind == "compute"}
    names = {pid: _read(pid, "comm").strip() for pid in pids}
    return derive(gpus, _with_processes(containers, pids), processes, names)


def _processes(nvml: Nvml, position: int) -> list[GpuProcess]:
    """Return the processes on a GPU, without those that ended just now."""
    found = nvml.processes(position)
    # One that is not in /proc may be in another PID namespace: whether it is still there, NVML knows.
    return found if all((PROC / str(one.pid)).exists() for one in found) else nvml.processes(position)


def _with_processes(containers: Sequence[GpuContainer], pids: Iterable[int]) -> list[GpuContainer]:
    ids = {container.id for container in containers}
    owner = {pid: container_of(_read(pid, "cgroup"), ids) for pid in pids}
    return [
        container._replace(pids=frozenset(pid for pid, one in owner.items() if one == container.id))
        for container in containers
    ]


def _read(pid: int, name: str) -> str:
    try:
        return (PROC / str(pid) / name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
