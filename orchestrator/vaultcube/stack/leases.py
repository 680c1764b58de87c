"""Who holds which GPU now: asks the engine for its containers and NVML for its processes. Nothing is stored.

`vaultcube gpus` pays for every import.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from vaultcube.errors import RefusedError
from vaultcube.gpu.leases import LABEL_ROLE, Card, DeviceRequest, GpuContainer, Leases, container_of, derive
from vaultcube.stack.docker import LABEL_INSTANCE, LABEL_RUN, Docker

if TYPE_CHECKING:
    from datetime import datetime

    from vaultcube.gpu.nvml import Nvml
    from vaultcube.gpu.readings import GpuProcess

PROC: Final = "/proc"
# A container that was made this long ago and never ran is one that failed to start: it holds nothing.
STARTING_S: Final = 60.0


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
    return parse_containers(docker.live())


def parse_containers(found: Sequence[Mapping[str, Any]]) -> list[GpuContainer]:
    """Read what `Docker.live` returned, without those that hold nothing any more."""
    return [parse_container(raw) for raw in found if not stale(raw)]


def stale(raw: Mapping[str, Any], now: datetime | None = None) -> bool:
    """Say whether a container was only created, and is not about to start: it failed to, or was made long ago."""
    if raw["State"]["Status"] != "created":
        return False
    if raw["State"].get("Error"):
        return True
    from datetime import UTC, datetime

    return ((now or datetime.now(UTC)) - datetime.fromisoformat(raw["Created"])).total_seconds() > STARTING_S


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
        instance=labels.get(LABEL_INSTANCE, ""),
        requests=tuple(requests),
        runtime=host.get("Runtime") or "",
        visible_devices=env.get("NVIDIA_VISIBLE_DEVICES"),
        driver_capabilities=env.get("NVIDIA_DRIVER_CAPABILITIES"),
        starting=raw["State"]["Status"] == "created",
    )


def _put_together(gpus: Sequence[Card], containers: Sequence[GpuContainer], nvml: Nvml) -> Leases:
    return put_together(gpus, containers, processes_of(nvml, gpus))


def processes_of(nvml: Nvml, gpus: Sequence[Card]) -> dict[str, list[GpuProcess]]:
    """Return the processes on GPUs, by UUID. The GPUs are those that `nvml.gpus` returned, or the same in that order."""
    return {gpu.uuid: _processes(nvml, position) for position, gpu in enumerate(gpus)}


def put_together(
    gpus: Sequence[Card], containers: Sequence[GpuContainer], processes: Mapping[str, Sequence[GpuProcess]]
) -> Leases:
    """Return who holds which GPU, from what engine and NVML said."""
    pids = {one.pid for found in processes.values() for one in found if one.kind == "compute"}
    names = {pid: process_name(pid) or "" for pid in pids}
    return derive(gpus, _with_processes(containers, pids), processes, names)


def _processes(nvml: Nvml, position: int) -> list[GpuProcess]:
    """Return the processes on a GPU, without those that ended just now."""
    found = nvml.processes(position)
    # One that is not in /proc may be in another PID namespace: whether it is still there, NVML knows.
    return found if all(os.path.exists(f"{PROC}/{one.pid}") for one in found) else nvml.processes(position)  # noqa: PTH110


def _with_processes(containers: Sequence[GpuContainer], pids: Iterable[int]) -> list[GpuContainer]:
    ids = {container.id for container in containers}
    owner = {pid: container_of(_read(pid, "cgroup"), ids) for pid in pids}
    return [
        container._replace(pids=frozenset(pid for pid, one in owner.items() if one == container.id))
        for container in containers
    ]


def process_name(pid: int) -> str | None:
    """Return a process's name, without what could steer a terminal; None when it is not to be seen from here."""
    told = _read(pid, "comm").strip()
    return "".join(char if char.isprintable() else "?" for char in told) or None


def _read(pid: int, name: str) -> str:
    try:
        with open(f"{PROC}/{pid}/{name}", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - as imports go
            return file.read()
    except OSError:
        return ""
