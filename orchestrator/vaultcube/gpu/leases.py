"""Who holds which GPU: derived from what running containers asked the engine for, and from NVML's processes. Pure.

Sources: moby's daemon/nvidia_linux.go and daemon/devices.go (which request becomes which GPU), libnvidia-container's
src/cli/common.c (the names a GPU answers to), nvidia-container-toolkit's internal/config/image (the variables).
Standard library only, and little of it: `vaultcube gpus` pays for every import. So annotations are no text here, and no
expression is compiled before it is needed.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, Protocol

from vaultcube.gpu.readings import GpuProcess

LABEL_ROLE: Final = "io.vaultcube.role"
RECORDER: Final = "recorder"
DOCTOR: Final = "doctor"
# Containers of ours that see GPUs and never compute on them.
BYSTANDERS: Final = frozenset({RECORDER, DOCTOR})

# What a request may name for the engine's `nvidia` driver to take it, and which of that the driver itself is told.
_DRIVER_CAPABILITIES: Final = frozenset({"compute", "compat32", "graphics", "utility", "video", "display"})
_KNOWN_CAPABILITIES: Final = _DRIVER_CAPABILITIES | {"gpu", "nvidia"}
_DEFAULT_CAPABILITIES: Final = "compute,utility"

_CONTAINER_ID: Final = r"[0-9a-f]{64}"
_INDEX: Final = r"(?i:gpu)?([0-9]{1,3})"
_MIG_INDEX: Final = r"(?i:mig)?([0-9]{1,3}):[0-9]{1,3}"
_MIG_OF: Final = r"(?i)MIG-(GPU-[0-9a-f-]+)/"
_PCI: Final = r"(?i)([0-9a-f]+):([0-9a-f]{2}):([0-9a-f]{2})\.0"


class DeviceRequest(NamedTuple):
    """An entry of `HostConfig.DeviceRequests`; `number` is its `Count`, -1 for all."""

    driver: str
    number: int
    ids: tuple[str, ...]
    capabilities: tuple[tuple[str, ...], ...]


class GpuContainer(NamedTuple):
    """A container as far as it matters for GPUs.

    Attributes:
        id: 64 hexadecimal digits.
        run: our run's id, or empty.
        role: of our `role` label, or empty.
        requests: what it asked the engine for.
        runtime: the OCI runtime's name; the engine writes its default one in.
        visible_devices: its NVIDIA_VISIBLE_DEVICES, None when unset.
        driver_capabilities: its NVIDIA_DRIVER_CAPABILITIES, None when unset.
        starting: created, and not started yet.
        pids: its processes, as far as they are known.
        instance: the name of the service that it belongs to, or empty.
    """

    id: str
    name: str
    run: str = ""
    role: str = ""
    requests: tuple[DeviceRequest, ...] = ()
    runtime: str = "runc"
    visible_devices: str | None = None
    driver_capabilities: str | None = None
    starting: bool = False
    pids: frozenset[int] = frozenset()
    instance: str = ""


class Holder(NamedTuple):
    """Who holds a GPU.

    Attributes:
        name: of the container, or of the process.
        run: our run's id, or empty.
        pid: of the process; None for a container that asked the engine for the GPU.
        said: one phrase for messages.
        instance: the name of our service, or empty.
    """

    kind: Literal["container", "process"]
    name: str
    run: str
    pid: int | None
    said: str
    instance: str = ""


class Lease(NamedTuple):
    """The GPUs of one container, by UUID, and the ids in its request that no GPU here answers to."""

    uuids: tuple[str, ...]
    unknown: tuple[str, ...] = ()


class Leases(dict[str, tuple[Holder, ...]]):
    """The holders of every GPU, by UUID; a free one has none. `notes` says what could not be found out."""

    def __init__(self, holders: Mapping[str, tuple[Holder, ...]], notes: Sequence[str] = ()) -> None:
        super().__init__(holders)
        self.notes = tuple(notes)


class Card(Protocol):
    """What names a GPU: `GpuInfo` and `Gpu` both do."""

    @property
    def uuid(self) -> str: ...  # noqa: D102
    @property
    def index(self) -> int: ...  # noqa: D102
    @property
    def pci_bus_id(self) -> str: ...  # noqa: D102


def derive(
    gpus: Sequence[Card],
    containers: Sequence[GpuContainer],
    processes: Mapping[str, Sequence[GpuProcess]],
    names: Mapping[int, str] | None = None,
) -> Leases:
    """Return who holds which GPU.

    A container that asked for a GPU holds it, whether it computes or not. Whoever computes on it holds it as well: the
    container that a process is in, else the process itself. Drawing (an X server) is no lease.

    Args:
        gpus: the machine's.
        containers: what runs or is about to.
        processes: NVML's, by the GPU's UUID.
        names: of processes, by pid.
    """
    found: dict[str, list[Holder]] = {gpu.uuid: [] for gpu in gpus}
    notes: list[str] = []
    known: set[tuple[str, str]] = set()
    for container in containers:
        lease = leased(container, gpus)
        for uuid in lease.uuids:
            found[uuid].append(_container(container))
            known.add((uuid, container.id))
        notes += [f"container {container.name} asked for GPU {word}, which is not here" for word in lease.unknown]
    for uuid, holders in found.items():
        for process in processes.get(uuid, ()):
            owner = next((one for one in containers if process.pid in one.pids), None)
            if process.kind != "compute" or (owner and (owner.role in BYSTANDERS or (uuid, owner.id) in known)):
                continue
            if owner:
                known.add((uuid, owner.id))
                holders.append(_container(owner)._replace(pid=process.pid))
            else:
                holders.append(_process(process.pid, (names or {}).get(process.pid, "")))
    return Leases({uuid: tuple(holders) for uuid, holders in found.items()}, notes)


def _container(container: GpuContainer) -> Holder:
    said = f"container {container.name}" + (", which is about to start" if container.starting else "")
    ours = f"instance {container.instance}" if container.instance else f"run {container.run}" if container.run else ""
    return Holder(
        "container", container.name, container.run, None, f"{ours} ({said})" if ours else said, container.instance
    )


def _process(pid: int, name: str) -> Holder:
    return Holder("process", name, "", pid, f"process {pid} ({name})" if name else f"process {pid}")


def leased(container: GpuContainer, gpus: Sequence[Card]) -> Lease:
    """Return the GPUs that a container may compute on.

    Without a device request, a container of the NVIDIA runtime says in its environment what it wants.
    """
    if container.role in BYSTANDERS:
        return Lease(())
    words: list[str] = []
    asked = False
    for request in container.requests:
        if request.driver == "cdi":
            asked = True
            words += _cdi(request.ids)
            continue
        capabilities = _selected(request)
        if capabilities is None:
            continue
        asked = True
        told = ",".join(capabilities & _DRIVER_CAPABILITIES) or container.driver_capabilities
        if _computes(told):
            words += _wanted(request, container)
    if not asked and container.runtime.startswith("nvidia") and _computes(container.driver_capabilities):
        words += _variable(container)
    return _resolve(words, gpus)


def _selected(request: DeviceRequest) -> frozenset[str] | None:
    """Return the capabilities that the engine's NVIDIA driver takes a request by, or None when it is for another."""
    if request.driver not in {"", "nvidia"}:
        return None
    either = [frozenset(one) for one in request.capabilities]
    return next((one for one in either if one and one <= _KNOWN_CAPABILITIES), None)


def _computes(capabilities: str | None) -> bool:
    words = {word.strip() for word in (capabilities or _DEFAULT_CAPABILITIES).split(",")}
    return not words.isdisjoint({"compute", "all"})


def _wanted(request: DeviceRequest, container: GpuContainer) -> list[str]:
    if request.ids:
        return [part for one in request.ids for part in one.split(",")]
    if request.number < 0:
        return ["all"]
    # A count means the first ones. With none at all, engines before 28 leave it to the container's environment.
    return [str(index) for index in range(request.number)] or _variable(container)


def _variable(container: GpuContainer) -> list[str]:
    words = [word.strip() for word in (container.visible_devices or "").split(",")]
    return [] if "void" in words else [_cdi([word])[0] if "=" in word else word for word in words]


def _cdi(ids: Iterable[str]) -> list[str]:
    """Return the names of NVIDIA's GPUs among CDI ids; other vendors' devices are no business of ours."""
    parts = [one.partition("=") for one in ids]
    return [name if kind.endswith("nvidia.com/gpu") else "" for kind, _, name in parts]


def _resolve(words: Iterable[str], gpus: Sequence[Card]) -> Lease:
    """Return the GPUs that these names mean, in the order of the machine."""
    found: set[str] = set()
    unknown: list[str] = []
    for word in words:
        if word in {"", "none"}:
            continue
        uuids = [gpu.uuid for gpu in gpus] if word.lower() == "all" else _named(word, gpus)
        found.update(uuids)
        if not uuids and word.lower() != "all" and word not in unknown:
            unknown.append(word)
    return Lease(tuple(gpu.uuid for gpu in gpus if gpu.uuid in found), tuple(unknown))


def _named(word: str, gpus: Sequence[Card]) -> list[str]:
    """Return the GPU that answers to an index, a UUID or the beginning of it, a PCI address, or one of its slices."""
    if index := re.fullmatch(_INDEX, word) or re.fullmatch(_MIG_INDEX, word):
        return [gpu.uuid for gpu in gpus if gpu.index == int(index[1])]
    if address := re.fullmatch(_PCI, word):
        return [gpu.uuid for gpu in gpus if _address(gpu.pci_bus_id) == _address(address[0])]
    slice_of = re.match(_MIG_OF, word)
    start = (slice_of[1] if slice_of else word).lower()
    fitting = [gpu.uuid for gpu in gpus if start.startswith("gpu-") and gpu.uuid.lower().startswith(start)]
    # Older toolkits took the beginning of a UUID, when it was one GPU's only.
    return fitting if len(fitting) == 1 and start != "gpu-" else []


def _address(text: str) -> tuple[int, ...]:
    """Return a PCI address as numbers: its domain is written with four digits or with eight."""
    return tuple(int(part, 16) for part in text.removesuffix(".0").split(":"))


def container_of(cgroup: str, ids: Collection[str]) -> str | None:
    """Return which of these containers a process is in.

    Args:
        cgroup: its /proc/<pid>/cgroup. Version 1 and 2, and the drivers systemd (`docker-<id>.scope`) and cgroupfs
            (`/docker/<id>`), all have the id in it; a container may make groups below its own.
        ids: the containers' ids, whole.
    """
    return next((found for found in re.findall(_CONTAINER_ID, cgroup) if found in ids), None)
