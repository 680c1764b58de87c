"""Files of telemetry for tests: written by the real writer, at times that a test chooses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vaultcube.gpu.readings import GpuInfo, Reading
from vaultcube.gpu.rundb import Begun, Writer

# CLOCK_MONOTONIC and Unix time of the beginning, in ms.
BEGIN, NOON = 5_000_000, 1_767_268_800_000
BOOT = "8e4a5b6c-0000-4000-8000-000000000001"
BUSY = Reading(
    temperature_c=70,
    temperature_margin_c=20,
    power_mw=500_000,
    energy_mj=0,
    sm_clock_mhz=2500,
    memory_clock_mhz=14001,
    utilisation_percent=99,
    memory_utilisation_percent=50,
    memory_used_bytes=30 << 30,
    fan_percent=60,
    pstate=0,
    pcie_gen=5,
    pcie_width=16,
    pcie_replays=0,
    clock_events=0,
    power_cap_ns=0,
    sw_thermal_ns=0,
    hw_thermal_ns=0,
    power_brake_ns=0,
)


def infos(count: int = 2) -> list[GpuInfo]:
    """Return GPUs of the customer's box."""
    return [
        GpuInfo(
            uuid=f"GPU-{index}",
            index=index,
            name="NVIDIA GeForce RTX 5090",
            pci_bus_id=f"00000000:{index + 1:02X}:00.0",
            compute_capability="12.0",
            memory_total_bytes=32607 << 20,
            pcie_gen_max=5,
            pcie_width_max=16,
        )
        for index in range(count)
    ]


def begun(**changes: Any) -> Begun:
    """Return what a recorder of 1 Hz knows when it begins."""
    found = Begun(
        mono_ms=BEGIN,
        wall_ms=NOON,
        boot_id=BOOT,
        period_ms=1000,
        driver="575.57.08",
        cuda="12.9",
        simulated=False,
        kernel_log="/dev/kmsg",
        xid_events=True,
    )
    return found._replace(**changes)


@contextmanager
def writing(path: Path, gpus: Sequence[GpuInfo] | None = None, *, end_ms: int = 0, **changes: Any) -> Iterator[Writer]:
    """Write a session, and end it well at `end_ms` after the beginning."""
    start = begun(**changes)
    writer = Writer(str(path), start, infos() if gpus is None else gpus)
    yield writer
    writer.close(start.mono_ms + end_ms, "SIGTERM")


def record(path: Path, readings: Sequence[tuple[int, Reading]], *, position: int = 0, **changes: Any) -> None:
    """Write readings of one GPU: (ms after the beginning, reading)."""
    with writing(path, end_ms=readings[-1][0] if readings else 0, **changes) as writer:
        for ms, reading in readings:
            writer.reading(position, BEGIN + ms, reading)


def steady(count: int, *, every_ms: int = 1000, **changes: Any) -> list[tuple[int, Reading]]:
    """Return even readings of a busy GPU at 500 W."""
    return [(number * every_ms, BUSY._replace(energy_mj=500 * number * every_ms, **changes)) for number in range(count)]
