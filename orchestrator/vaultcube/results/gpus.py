"""The shape of what `vaultcube gpus --json` and `vaultcube monitor --once --json` print.

The verbs write plain dictionaries (importing pydantic would cost them more than all the rest); the tests hold those to
these models, and the schemas in docs/schema are made from them. `null` is what is not told or not known.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from vaultcube.results.schema import Model

Trouble = Literal["no-library", "no-driver", "mismatch", "permission", "lost", "hang", "unknown"]


class HolderStatus(Model):
    """Who holds a GPU: a container, or a process that belongs to none. `run` is our run's id, where it is one."""

    kind: Literal["container", "process"]
    name: str
    run: str | None
    pid: int | None


class ProcessStatus(Model):
    """A process on a GPU. `name` and `user` are null when it has ended, or is not visible from here."""

    pid: int
    kind: Literal["compute", "graphics"]
    name: str | None
    user: str | None
    memory_bytes: int | None


class ComputedLimits(Model):
    """What the card can do at most, computed from its clocks and widths: dense bf16, and peak memory bandwidth."""

    memory_bandwidth_bytes_per_s: float | None
    tensor_peak_flop_per_s: float | None


class GpuStatus(Model):
    """One GPU now.

    `problem` says why it does not answer; all readings are null then. `energy_joules` counts since the driver was
    loaded, `throttled` is true when one of `clock_events` spoils a measurement.
    """

    uuid: str
    index: int
    name: str
    pci_bus_id: str
    compute_capability: str
    vbios: str | None
    numa_node: int | None
    ecc: bool | None
    mig: bool | None
    persistence: bool | None
    problem: Trouble | None
    utilisation_percent: int | None
    memory_utilisation_percent: int | None
    memory_used_bytes: int | None
    memory_total_bytes: int
    temperature_celsius: int | None
    temperature_limit_celsius: int | None
    memory_temperature_celsius: int | None
    power_watts: float | None
    power_limit_watts: float | None
    energy_joules: float | None
    sm_clock_mhz: int | None
    sm_clock_max_mhz: int | None
    memory_clock_mhz: int | None
    memory_clock_max_mhz: int | None
    fan_percent: int | None
    pstate: int | None
    pcie_gen: int | None
    pcie_gen_max: int | None
    pcie_width: int | None
    pcie_width_max: int | None
    pcie_replays: int | None
    clock_events: tuple[str, ...] | None
    throttled: bool | None
    ecc_uncorrected: int | None
    computed: ComputedLimits
    holders: tuple[HolderStatus, ...]
    processes: tuple[ProcessStatus, ...]


class LinkStatus(Model):
    """Two GPUs by UUID, and how they reach each other, in nvidia-smi's words."""

    a: str
    b: str
    level: Literal["NV", "PIX", "PXB", "PHB", "NODE", "SYS"] | None
    nvlinks: int
    p2p: str | None


class MissingGpu(Model):
    """A GPU that the driver lists and that does not answer."""

    index: int
    problem: Trouble


class GpusDocument(Model):
    """`vaultcube gpus --json`.

    `problem` and `reason` say why NVML does not answer or lists no GPU, `next_step` what to do about it;
    `holders_reason` why containers are not among the holders, `notes` what else could not be found out about them.
    """

    schema_: Literal["vaultcube.gpus/1"] = Field(alias="schema")
    simulated: bool
    driver: str | None
    cuda: str | None
    gpus: tuple[GpuStatus, ...]
    links: tuple[LinkStatus, ...]
    missing: tuple[MissingGpu, ...]
    problem: Trouble | None
    reason: str | None
    next_step: str | None
    holders_reason: str | None
    notes: tuple[str, ...]


class SystemStatus(Model):
    """The machine around the GPUs. `disk_path` is where runs are kept."""

    load_1min: float | None
    load_5min: float | None
    load_15min: float | None
    cpus: int | None
    memory_total_bytes: int | None
    memory_available_bytes: int | None
    disk_path: str
    disk_total_bytes: int | None
    disk_free_bytes: int | None


class MonitorDocument(Model):
    """`vaultcube monitor --once --json`: what `gpus --json` says, with the time and the machine around it."""

    schema_: Literal["vaultcube.monitor/1"] = Field(alias="schema")
    time: datetime
    simulated: bool
    driver: str | None
    cuda: str | None
    gpus: tuple[GpuStatus, ...]
    missing: tuple[MissingGpu, ...]
    problem: Trouble | None
    reason: str | None
    next_step: str | None
    holders_reason: str | None
    notes: tuple[str, ...]
    system: SystemStatus
