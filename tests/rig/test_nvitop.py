"""nvitop, which knows nothing of us, reads the mock as it reads a driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.rig.box import Box
from tests.rig.inside import still_box
from tests.rig.profiles import LAYOUTS

WITNESS = """
import json, logging, sys
logging.basicConfig(stream=sys.stderr)
import nvitop
def plain(value):
    return str(value)
def see(device):
    return {
        "name": device.name(), "uuid": device.uuid(), "bus_id": device.bus_id(),
        "memory_total": device.memory_total(), "memory_used": device.memory_used(),
        "power": device.power_usage(), "limit": device.power_limit(), "temperature": device.temperature(),
        "fan": device.fan_speed(), "gpu": device.gpu_utilization(), "memory": device.memory_utilization(),
        "sm": device.sm_clock(), "max_sm": device.max_sm_clock(), "mem": device.memory_clock(),
        "pstate": device.performance_state(), "capability": device.cuda_compute_capability(),
        "ecc": device.total_volatile_uncorrected_ecc_errors(), "mig": device.mig_mode(),
        "tx": device.pcie_tx_throughput(), "rx": device.pcie_rx_throughput(),
        "mig_devices": len(device.mig_devices()),
        "processes": {pid: process.gpu_memory() for pid, process in device.processes().items()},
    }
print(json.dumps({
    "driver": nvitop.Device.driver_version(), "cuda": nvitop.Device.cuda_driver_version(),
    "devices": [see(device) for device in nvitop.Device.all()],
}, default=plain))
"""
SHARED = {
    "name": "name",
    "uuid": "uuid",
    "bus_id": "bus_id",
    "memory_total": "memory_total_bytes",
    "power": "power_mw",
    "limit": "power_limit_mw",
    "temperature": "temperature_c",
    "fan": "fan_percent",
    "gpu": "util_gpu",
    "memory": "util_memory",
    "sm": "clock_sm_mhz",
    "max_sm": "clock_max_sm_mhz",
    "mem": "clock_memory_mhz",
    "tx": "pcie_tx_kb_per_s",
    "rx": "pcie_rx_kb_per_s",
    "ecc": "ecc_uncorrected",
}


def witness(box: Box) -> dict[str, Any]:
    """Return what nvitop saw; it must not have complained."""
    seen = subprocess.run(
        [sys.executable, "-c", WITNESS], env={**os.environ, **box.env()}, capture_output=True, text=True, check=False
    )
    assert (seen.returncode, seen.stderr) == (0, "")
    found: dict[str, Any] = json.loads(seen.stdout)
    return found


@pytest.mark.parametrize("profile", sorted(LAYOUTS))
def test_nvitop_sees_what_the_scenario_says(tmp_path: Path, profile: str) -> None:
    box = still_box(tmp_path / "box", profile)
    box.load(*range(0, len(box.uuids), 2))
    seen = witness(box)

    scenario = box.read()
    assert seen["driver"] == scenario.system["driver_version"]
    assert seen["cuda"] == f"{LAYOUTS[profile].cuda // 1000}.{LAYOUTS[profile].cuda % 1000 // 10}"
    assert len(seen["devices"]) == len(scenario.gpus)
    for device, gpu in zip(seen["devices"], scenario.gpus, strict=True):
        assert {name: device[name] for name in SHARED} == {
            name: gpu.values.get(key, "N/A") for name, key in SHARED.items()
        }
        assert device["capability"] == [gpu.number("cc_major"), gpu.number("cc_minor")]
        assert device["pstate"] == f"P{gpu.number('pstate')}"
        assert device["mig"] == ("Disabled" if "mig_mode" in gpu.values else "N/A")


def test_nvitop_sees_processes_and_their_memory(tmp_path: Path) -> None:
    box = still_box(tmp_path / "box")
    box.add_process(1, os.getpid(), 20 << 30)
    box.add_process(1, os.getppid(), 1 << 30, "graphics")
    device = witness(box)["devices"][1]

    assert device["processes"] == {str(os.getpid()): 20 << 30, str(os.getppid()): 1 << 30}
    assert device["memory_used"] == (21 << 30) + (2 << 20)


def test_nvitop_sees_mig_devices(tmp_path: Path) -> None:
    box = still_box(tmp_path / "box", "8xh100")
    box.mig(2, 3)
    devices = witness(box)["devices"]

    assert [device["mig_devices"] for device in devices] == [0, 0, 3, 0, 0, 0, 0, 0]
    assert (devices[2]["mig"], devices[2]["gpu"]) == ("Enabled", "N/A")


def test_nvitop_reads_a_gpu_without_permission_as_not_available(tmp_path: Path) -> None:
    box = still_box(tmp_path / "box")
    box.set_gpu(0, power_mw="permission", temperature_c="unsupported")
    device = witness(box)["devices"][0]

    assert (device["power"], device["temperature"], device["pstate"]) == ("N/A", "N/A", "P8")
