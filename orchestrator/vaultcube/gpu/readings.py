"""What NVML says, as plain values: one GPU, one GPU at one moment, two GPUs beside each other.

Standard library only, and little of it: the recorder and `vaultcube gpus` pay for every import (`dataclasses` alone
costs 10 ms; annotations kept as text would be compiled one by one: 2 ms). `None` is what a card does not tell, never 0.
"""

from typing import Literal, NamedTuple

# Why NVML, or one GPU of it, does not answer.
Problem = Literal[
    "no-library",  # there is no libnvidia-ml.so.1: no driver is installed
    "no-driver",  # the library is there, and the kernel module is not loaded
    "mismatch",  # the library is of another version than the loaded module: the driver was updated, reboot
    "permission",  # the device files may not be opened
    "lost",  # the GPU has fallen off the bus, or asks for a reset
    "hang",  # a question is not answered at all: the driver, or the GPU behind it, has stopped
    "unknown",  # anything else, a container that lost its devices among it
]


class NvmlError(Exception):
    """NVML, or one GPU, does not answer.

    Args:
        problem: the kind.
        text: NVML's own words.
    """

    def __init__(self, problem: Problem, text: str) -> None:
        super().__init__(f"NVML: {text}")
        self.problem: Problem = problem


class GpuInfo(NamedTuple):
    """What does not change while a driver is loaded.

    Units are in the names; `memory_bus_bits` is the width of the memory bus. `index` is NVML's, in PCI bus order;
    `pcie_gen_max` and `pcie_width_max` are what card and slot can do together.
    """

    uuid: str
    index: int  # type: ignore[assignment] # nobody looks for a value's place in it
    name: str
    pci_bus_id: str
    compute_capability: str
    memory_total_bytes: int
    cores: int | None = None
    memory_bus_bits: int | None = None
    sm_clock_max_mhz: int | None = None
    memory_clock_max_mhz: int | None = None
    pcie_gen_max: int | None = None
    pcie_width_max: int | None = None
    power_limit_mw: int | None = None
    temperature_limit_c: int | None = None
    numa_node: int | None = None
    ecc: bool | None = None
    mig: bool | None = None
    persistence: bool | None = None
    vbios: str | None = None


class Reading(NamedTuple):
    """One GPU at one moment.

    `temperature_margin_c` is the distance to the card's own limit. `energy_mj` counts since the driver was loaded, the
    `*_ns` since then the time spent slowed down for that reason. `clock_events` is NVML's bit mask
    (`gpu/clockevents.py`). `pcie_replays` and `ecc_uncorrected` count.

    With a `problem` all values are None.
    """

    problem: Problem | None = None
    temperature_c: int | None = None
    temperature_margin_c: int | None = None
    memory_temperature_c: int | None = None
    power_mw: int | None = None
    energy_mj: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    utilisation_percent: int | None = None
    memory_utilisation_percent: int | None = None
    memory_used_bytes: int | None = None
    fan_percent: int | None = None
    pstate: int | None = None
    pcie_gen: int | None = None
    pcie_width: int | None = None
    pcie_replays: int | None = None
    clock_events: int | None = None
    power_cap_ns: int | None = None
    sw_thermal_ns: int | None = None
    hw_thermal_ns: int | None = None
    power_brake_ns: int | None = None
    ecc_uncorrected: int | None = None


class GpuProcess(NamedTuple):
    """A process on a GPU. Its memory is None where the driver does not say (another PID namespace)."""

    pid: int
    kind: Literal["compute", "graphics"]
    memory_bytes: int | None


# How two GPUs reach each other, nearest first, as `nvidia-smi topo -m` writes it.
Level = Literal["NV", "PIX", "PXB", "PHB", "NODE", "SYS"]


class Link(NamedTuple):
    """Two GPUs, by UUID: how near they are, how many NVLinks join them, and the state of P2P reads.

    `p2p` is nvidia-smi's word: OK, CNS (chipset), GNS (GPU not supported), TNS (topology), DR (disabled), NS, U.
    """

    a: str
    b: str
    level: Level | None
    nvlinks: int
    p2p: str | None


class XidEvent(NamedTuple):
    """An Xid that NVML reported: on which GPU (UUID, None when NVML does not say), and its code."""

    uuid: str | None
    code: int
