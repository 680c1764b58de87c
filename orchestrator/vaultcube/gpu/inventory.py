"""The GPUs of a machine as a value, and reading it once."""

from __future__ import annotations

from vaultcube.gpu.limits import memory_bandwidth, tensor_peak
from vaultcube.gpu.nvml import Nvml
from vaultcube.gpu.readings import GpuInfo, Link, NvmlError, Problem
from vaultcube.results.schema import Gpu, Model


class Inventory(Model):
    """What NVML sees.

    Attributes:
        driver: the driver's version, or null.
        cuda: the newest CUDA version that the driver runs, or null.
        gpus: in NVML's (PCI bus) order.
        links: every pair of them, and how they reach each other.
        missing: indices of GPUs that are listed and do not answer.
        problem: why NVML does not answer, or null.
        reason: why there are no GPUs, in words, where that is known.
        simulated: true when anything of it came from a simulator.
    """

    driver: str | None = None
    cuda: str | None = None
    gpus: tuple[Gpu, ...] = ()
    links: tuple[Link, ...] = ()
    missing: tuple[int, ...] = ()
    problem: Problem | None = None
    reason: str | None = None
    simulated: bool = False


def read_inventory() -> Inventory:
    """Return the GPUs that NVML lists. Without a driver, or with one that fails, an empty inventory says why."""
    try:
        with Nvml() as nvml:
            return take_inventory(nvml)
    except NvmlError as error:
        return unanswered(error)


def take_inventory(nvml: Nvml) -> Inventory:
    """Return the GPUs that an open NVML lists.

    Raises:
        NvmlError: it does not answer any more.
    """
    found = nvml.gpus()
    return Inventory(
        driver=nvml.driver,
        cuda=nvml.cuda,
        gpus=tuple(map(to_gpu, found)),
        links=tuple(nvml.links(found)),
        missing=tuple(index for index, _ in nvml.missing),
        reason=None if found else nvml.why_none(),
        simulated=nvml.simulated,
    )


def unanswered(error: NvmlError) -> Inventory:
    """Return the inventory of a machine whose NVML does not answer."""
    return Inventory(problem=error.problem, reason=str(error))


def to_gpu(info: GpuInfo) -> Gpu:
    """Return a GPU as plans and results hold it."""
    return Gpu(
        uuid=info.uuid,
        index=info.index,
        name=info.name,
        pci_bus_id=info.pci_bus_id,
        compute_capability=info.compute_capability,
        memory_total_bytes=info.memory_total_bytes,
        memory_bandwidth_bytes_per_s=memory_bandwidth(info),
        tensor_peak_flop_per_s=tensor_peak(info),
        pcie_gen_max=info.pcie_gen_max,
        pcie_width_max=info.pcie_width_max,
        power_limit_watts=None if info.power_limit_mw is None else info.power_limit_mw / 1000,
        temperature_limit_celsius=info.temperature_limit_c,
        numa_node=info.numa_node,
        ecc=info.ecc,
        mig=info.mig,
    )
