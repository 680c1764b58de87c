"""GPUs as `vaultcube gpus` and `vaultcube monitor` see them: builders that several tests share."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from vaultcube.gpu.leases import Holder
from vaultcube.gpu.readings import GpuInfo, Link, Problem, Reading
from vaultcube.stack.snapshot import GpuState, Process, Snapshot
from vaultcube.stack.system import System
from vaultcube.stack.watch import Frame, History

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RUN = "ddp-20260101-120000-ab12"
OLD = {"compute_capability": "6.1", "name": "NVIDIA GeForce GTX 1060 6GB"}
CONTAINER = Holder("container", "trainer", "", None, "container trainer")
OURS = Holder("container", f"{RUN}-ddp-1", RUN, None, f"run {RUN} (container {RUN}-ddp-1)")
PROCESS = Holder("process", "python3", "", 4711, "process 4711 (python3)")


def info(index: int = 0, **changes: Any) -> GpuInfo:
    """Return an RTX 5090."""
    found = GpuInfo(
        uuid=f"GPU-0000000{index:x}-aaaa-bbbb-cccc-{index:012d}",
        index=index,
        name="NVIDIA GeForce RTX 5090",
        pci_bus_id=f"00000000:{index + 1:02X}:00.0",
        compute_capability="12.0",
        memory_total_bytes=34190917632,
        cores=21760,
        memory_bus_bits=512,
        sm_clock_max_mhz=3090,
        memory_clock_max_mhz=14001,
        pcie_gen_max=5,
        pcie_width_max=16,
        power_limit_mw=575_000,
        temperature_limit_c=90,
        numa_node=index // 2,
        persistence=False,
        vbios="98.02.2E.40.E0",
    )
    return found._replace(**changes)


def reading(**changes: Any) -> Reading:
    """Return an RTX 5090 at full load."""
    found = Reading(
        temperature_c=71,
        temperature_margin_c=19,
        power_mw=556_250,
        energy_mj=812_345_678,
        sm_clock_mhz=2580,
        memory_clock_mhz=13801,
        utilisation_percent=99,
        memory_utilisation_percent=54,
        memory_used_bytes=30 * 2**30,
        fan_percent=62,
        pstate=0,
        pcie_gen=5,
        pcie_width=16,
        pcie_replays=0,
        clock_events=0x4,
        power_cap_ns=1,
        sw_thermal_ns=0,
        hw_thermal_ns=0,
        power_brake_ns=0,
    )
    return found._replace(**changes)


def state(
    index: int = 0,
    *,
    holders: Sequence[Holder] = (),
    processes: Sequence[Process] = (),
    problem: Problem | None = None,
    silent: bool = False,
    card: dict[str, Any] | None = None,
    **readings: Any,
) -> GpuState:
    """Return a GPU; a `silent` one has no sensor at all, one with a `problem` does not answer."""
    now = Reading(problem=problem) if problem or silent else reading(**readings)
    return GpuState(info(index, **(card or {})), now, tuple(processes), tuple(holders))


def snapshot(*states: GpuState, **changes: Any) -> Snapshot:
    """Return GPUs that are joined over PCIe, two on a NUMA node, without P2P."""
    infos = [one.info for one in states]
    links = [
        Link(a.uuid, b.uuid, "NODE" if a.numa_node == b.numa_node else "SYS", 0, "GNS")
        for at, a in enumerate(infos)
        for b in infos[at + 1 :]
    ]
    found = Snapshot(driver="580.95.05", cuda="13.0", gpus=states, links=tuple(links))
    return found._replace(**changes)


SYSTEM = System(3.5, 2.25, 1.0, 64, 256 * 2**30, 200 * 2**30, "/runs", 1800 * 2**30, 812 * 2**30)


def frame(seen: Snapshot, **changes: Any) -> Frame:
    """Return a frame with a minute of rising history."""
    rising = tuple(range(0, 100, 2))
    histories = {
        one.info.uuid: History(rising, tuple(5750 * value for value in rising), tuple(30 + v // 2 for v in rising))
        for one in seen.gpus
    }
    return Frame(NOON, seen, SYSTEM, histories)._replace(**changes)
