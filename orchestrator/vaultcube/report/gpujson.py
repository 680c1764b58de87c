"""What `gpus --json` and `monitor --once --json` print, as plain data. The models are in `results/gpus.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vaultcube.gpu.clockevents import THROTTLE_MASK, names
from vaultcube.gpu.limits import memory_bandwidth, tensor_peak
from vaultcube.report.gpuwords import next_step
from vaultcube.stack.snapshot import GpuState, Snapshot

if TYPE_CHECKING:
    from vaultcube.stack.watch import Frame


def document(seen: Snapshot) -> dict[str, Any]:
    """Return the whole document of `vaultcube gpus --json`."""
    return {"schema": "vaultcube.gpus/1", **common(seen), "links": [link._asdict() for link in seen.links]}


def monitor_document(frame: Frame) -> dict[str, Any]:
    """Return the whole document of `vaultcube monitor --once --json`."""
    return {
        "schema": "vaultcube.monitor/1",
        "time": frame.time.isoformat(),
        **common(frame.seen),
        "system": frame.system._asdict(),
    }


def common(seen: Snapshot) -> dict[str, Any]:
    """Return what both documents say of the GPUs."""
    return {
        "simulated": seen.simulated,
        "driver": seen.driver,
        "cuda": seen.cuda,
        "gpus": [gpu(state) for state in seen.gpus],
        "missing": [{"index": index, "problem": problem} for index, problem in seen.missing],
        "problem": seen.problem,
        "reason": seen.reason,
        "next_step": next_step(seen),
        "holders_reason": seen.holders_reason,
        "notes": list(seen.notes),
    }


def gpu(state: GpuState) -> dict[str, Any]:
    """Return one GPU."""
    info, now = state.info, state.reading
    events = now.clock_events
    return {
        "uuid": info.uuid,
        "index": info.index,
        "name": info.name,
        "pci_bus_id": info.pci_bus_id,
        "compute_capability": info.compute_capability,
        "vbios": info.vbios,
        "numa_node": info.numa_node,
        "ecc": info.ecc,
        "mig": info.mig,
        "persistence": info.persistence,
        "problem": now.problem,
        "utilisation_percent": now.utilisation_percent,
        "memory_utilisation_percent": now.memory_utilisation_percent,
        "memory_used_bytes": now.memory_used_bytes,
        "memory_total_bytes": info.memory_total_bytes,
        "temperature_celsius": now.temperature_c,
        "temperature_limit_celsius": info.temperature_limit_c,
        "memory_temperature_celsius": now.memory_temperature_c,
        "power_watts": _thousandth(now.power_mw),
        "power_limit_watts": _thousandth(info.power_limit_mw),
        "energy_joules": _thousandth(now.energy_mj),
        "sm_clock_mhz": now.sm_clock_mhz,
        "sm_clock_max_mhz": info.sm_clock_max_mhz,
        "memory_clock_mhz": now.memory_clock_mhz,
        "memory_clock_max_mhz": info.memory_clock_max_mhz,
        "fan_percent": now.fan_percent,
        "pstate": now.pstate,
        "pcie_gen": now.pcie_gen,
        "pcie_gen_max": info.pcie_gen_max,
        "pcie_width": now.pcie_width,
        "pcie_width_max": info.pcie_width_max,
        "pcie_replays": now.pcie_replays,
        "clock_events": None if events is None else names(events),
        "throttled": None if events is None else bool(events & THROTTLE_MASK),
        "ecc_uncorrected": now.ecc_uncorrected,
        "computed": {
            "memory_bandwidth_bytes_per_s": memory_bandwidth(info),
            "tensor_peak_flop_per_s": tensor_peak(info),
        },
        "holders": [
            {"kind": one.kind, "name": one.name, "run": one.run or None, "pid": one.pid} for one in state.holders
        ],
        "processes": [one._asdict() for one in state.processes],
    }


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000
