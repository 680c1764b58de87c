"""What was seen of a machine, as plain values. Whatever could not be seen is `Unseen`, with the reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from vaultcube.gpu.pinning import PinningFacts
from vaultcube.gpu.readings import GpuInfo, Problem, Reading
from vaultcube.gpu.selection import GpuRequest
from vaultcube.gpu.xid import Fault
from vaultcube.results.profile import Hardware


class Unseen(NamedTuple):
    """Something that could not be seen, and why. `code` is the error's or NVML's, where there is one."""

    reason: str
    code: str = ""


NOT_ASKED = Unseen("not looked at")


class Port(NamedTuple):
    """A TCP port of the loopback interface that a workload publishes, and whether something has it already."""

    number: int
    workload: str
    taken: bool


class Asked(NamedTuple):
    """What the machine is held against.

    Attributes:
        request: the GPUs to look at.
        uuids: which ones those are, or None for all there are.
        short: why there are fewer than that, or empty.
        flavour: `auto` or a flavour.
        hardware: what the profile says is in the box, or None.
        profile: the profile's name.
        claimed: whether the user named the profile, and so said that this is such a box.
        image: the image that a run would need; the one that `images build` builds when none is named.
        build_bytes: what building an image needs free.
        starting: a workload is about to start: what is merely in use in a look around is in its way now.
    """

    request: GpuRequest = GpuRequest("auto")
    uuids: tuple[str, ...] | None = None
    short: str = ""
    flavour: str = "auto"
    hardware: Hardware | None = None
    profile: str = ""
    claimed: bool = False
    image: str = "pytorch"
    build_bytes: int = 0
    starting: bool = False


class Engine(NamedTuple):
    """The Docker engine as `docker info` describes it.

    `cdi_dirs` is empty where the engine does no CDI. `cdi_devices` are the GPUs' names among those that it found, without
    the kind; None where it lists none (before 28.2 no engine does).
    """

    version: str
    root_dir: str
    runtimes: frozenset[str] = frozenset()
    default_runtime: str = "runc"
    cgroup_driver: str = ""
    cdi_dirs: tuple[str, ...] = ()
    cdi_devices: frozenset[str] | None = None
    rootless: bool = False


class Disk(NamedTuple):
    """A folder, the bytes free where it is, and why nothing can be written there (empty: it can)."""

    path: str
    free_bytes: int
    unwritable: str = ""


class Toolkit(NamedTuple):
    """The NVIDIA Container Toolkit on this machine: nvidia-ctk's version (None: not there), the classic hook's path."""

    version: str | None
    hook: str | None


class HookConfig(NamedTuple):
    """The toolkit's config.toml: whether unprivileged containers may ask for GPUs by environment variable."""

    path: str
    accepts_envvar: bool
    broken: str = ""


class CdiSpecs(NamedTuple):
    """The CDI specifications of GPUs in the engine's folders: the files, and the drivers whose libraries they mount."""

    files: tuple[str, ...] = ()
    drivers: frozenset[str] = frozenset()


class Holders(NamedTuple):
    """UUID and a phrase for each who holds that GPU, and what of it could not be found out."""

    by_gpu: tuple[tuple[str, tuple[str, ...]], ...] = ()
    notes: tuple[str, ...] = ()


class Driver(NamedTuple):
    """The loaded kernel module: its version, and whether it is one of the open ones."""

    version: str
    open_modules: bool


class PciGpu(NamedTuple):
    """An NVIDIA GPU on the PCI bus: its address, and its device id."""

    address: str
    device: int


class Nvml(NamedTuple):
    """What NVML says; `gpus` and `readings` go together. `missing`: index of a GPU, and why it does not answer."""

    driver: str
    cuda: str | None
    gpus: tuple[GpuInfo, ...] = ()
    readings: tuple[Reading, ...] = ()
    missing: tuple[tuple[int, Problem], ...] = ()


class Memory(NamedTuple):
    """The machine's memory, and the size of its /dev/shm, in bytes."""

    total_bytes: int
    shm_bytes: int


class Memlock(NamedTuple):
    """How much memory the engine may lock: its hard limit in bytes (None: any), and whether it may raise it."""

    limit_bytes: int | None
    may_raise: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the checks look at. `simulated`: some of it came from a simulator."""

    asked: Asked = field(default_factory=Asked)
    simulated: bool = False
    engine: Engine | Unseen = NOT_ASKED
    compose: str | Unseen = NOT_ASKED
    buildx: str | Unseen = NOT_ASKED
    images: frozenset[str] | Unseen = NOT_ASKED
    images_disk: Disk | Unseen = NOT_ASKED
    results_disk: Disk | Unseen = NOT_ASKED
    toolkit: Toolkit | Unseen = NOT_ASKED
    hook_config: HookConfig | Unseen = NOT_ASKED
    offers: PinningFacts | Unseen = NOT_ASKED
    cdi: CdiSpecs | Unseen = NOT_ASKED
    driver: Driver | Unseen = NOT_ASKED
    nouveau: bool | Unseen = NOT_ASKED
    secure_boot: bool | Unseen = NOT_ASKED
    pci: tuple[PciGpu, ...] | Unseen = NOT_ASKED
    nvml: Nvml | Unseen = NOT_ASKED
    holders: Holders | Unseen = NOT_ASKED
    memory: Memory | Unseen = NOT_ASKED
    memlock: Memlock | Unseen = NOT_ASKED
    ports: tuple[Port, ...] | Unseen = NOT_ASKED
    synchronised: bool | Unseen = NOT_ASKED
    # What the kernel log says of GPUs and the PCI bus, oldest first.
    faults: tuple[Fault, ...] | Unseen = NOT_ASKED
