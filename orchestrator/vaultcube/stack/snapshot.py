"""The GPUs of this machine at one moment: what NVML says of them, what runs on them, and who holds them.

`vaultcube gpus` pays for every import here: no pydantic, no dataclasses.
"""

# Annotations are no text here, as in gpu/readings.py.
import os
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from vaultcube.gpu.leases import GpuContainer, Holder
from vaultcube.gpu.nvml import Nvml
from vaultcube.gpu.readings import GpuInfo, GpuProcess, Link, NvmlError, Problem, Reading
from vaultcube.stack.asking import Containers
from vaultcube.stack.leases import PROC, process_name, processes_of, put_together

# How long a look at the machine waits for an engine that does not answer, in seconds.
PATIENCE_S = 3.0


class Process(NamedTuple):
    """A process on a GPU. `name` and `user` are None when it has ended, or is not visible from here."""

    pid: int
    kind: Literal["compute", "graphics"]
    memory_bytes: int | None
    name: str | None
    user: str | None


class GpuState(NamedTuple):
    """One GPU at one moment."""

    info: GpuInfo
    reading: Reading
    processes: tuple[Process, ...] = ()
    holders: tuple[Holder, ...] = ()


class Snapshot(NamedTuple):
    """All GPUs at one moment.

    Attributes:
        driver, cuda, simulated: as in `Nvml`.
        gpus: in NVML's (PCI bus) order.
        links: every pair of them.
        missing: indices of GPUs that are listed and do not answer, and why.
        problem: why NVML does not answer, or None.
        reason: why there are no GPUs, in words, where that is known.
        holders_reason: why containers are not among the holders, or None when they are.
        notes: what else could not be found out about holders.
    """

    driver: str | None = None
    cuda: str | None = None
    simulated: bool = False
    gpus: tuple[GpuState, ...] = ()
    links: tuple[Link, ...] = ()
    missing: tuple[tuple[int, Problem], ...] = ()
    problem: Problem | None = None
    reason: str | None = None
    holders_reason: str | None = None
    notes: tuple[str, ...] = ()


def take_snapshot(asked: Containers) -> Snapshot:
    """Return the GPUs as they are now, with their links. Without a driver, or with one that fails, it says why.

    Args:
        asked: who the containers are; given up after `PATIENCE_S`.
    """
    nvml = Nvml()
    try:
        with nvml:
            infos = nvml.gpus()
            readings = [nvml.read(position) for position in range(len(infos))]
            processes = processes_of(nvml, infos)
            try:
                links = nvml.links(infos)
            except NvmlError:
                # A GPU was lost since; its reading may not say so yet, its next one will.
                links = []
        containers, reason = asked.result(PATIENCE_S)
    except NvmlError as error:
        return Snapshot(simulated=nvml.simulated, problem=error.problem, reason=str(error))
    return put(nvml, infos, readings, processes, containers, reason)._replace(links=tuple(links))


def put(
    nvml: Nvml,
    infos: Sequence[GpuInfo],
    readings: Sequence[Reading],
    processes: Mapping[str, Sequence[GpuProcess]],
    containers: Sequence[GpuContainer],
    holders_reason: str | None,
) -> Snapshot:
    """Return as one what NVML and the engine said."""
    leases = put_together(infos, containers, processes)
    states = (
        GpuState(info, reading, tuple(map(describe, processes[info.uuid])), leases[info.uuid])
        for info, reading in zip(infos, readings, strict=True)
    )
    return Snapshot(
        driver=nvml.driver,
        cuda=nvml.cuda,
        simulated=nvml.simulated,
        gpus=tuple(states),
        missing=tuple(nvml.missing),
        reason=None if infos else nvml.why_none(),
        holders_reason=holders_reason,
        notes=leases.notes,
    )


def describe(process: GpuProcess) -> Process:
    """Return a process with its name and user, as far as /proc tells. Its arguments may hold secrets: not read."""
    user: str | None = None
    try:
        owner = os.stat(f"{PROC}/{process.pid}").st_uid  # noqa: PTH116 - pathlib costs more than all of this
        user = _user(owner)
    except OSError:
        pass
    return Process(process.pid, process.kind, process.memory_bytes, process_name(process.pid), user)


def _user(number: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
