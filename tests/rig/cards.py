"""The cards that can be simulated: what each is, and what its sensors show.

Values of the RTX 5090 as real hosts show them; those of the other cards are the published ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.rig.scenario import Value

MIB = 1024 * 1024
IDLE_REASON = 0x1
GPU_EVENTS = 0x1D  # Xid, P-state, clock, single-bit ECC
GEFORCE_EVENTS = 0x1C

# What is the same on every healthy card.
STILL: dict[str, Value] = {
    "util_encoder": 0,
    "util_decoder": 0,
    "compute_mode": 0,
    "display_mode": 0,
    "display_active": 0,
    "multi_gpu_board": 0,
    "reasons_supported": 0x1FF,
    "pcie_replay": 0,
    "pcie_replay_per_minute": 0,
    "pcie_replay_rollover": 0,
    "lost": 0,
}
_IDLE: dict[str, Value] = {
    "load": 0,
    "util_gpu": 0,
    "util_memory": 0,
    "reasons": IDLE_REASON,
    "pcie_gen": 1,
    "pcie_tx_kb_per_s": 0,
    "pcie_rx_kb_per_s": 0,
}
_LOAD: dict[str, Value] = {"load": 1, "util_gpu": 99, "reasons": 0, "pstate": 0}
_VIOLATIONS: dict[str, Value] = {
    "violation_power_ns": 0,
    "violation_thermal_ns": 0,
    "violation_sync_boost_ns": 0,
    "violation_sw_thermal_ns": 0,
    "violation_hw_thermal_ns": 0,
    "violation_power_brake_ns": 0,
}


@dataclass(frozen=True)
class Card:
    """A product: what never changes, and what it shows idle and under full load.

    Attributes:
        fixed: name, size, limits.
        idle: sensors at rest.
        load: sensors under full load.
        hot_c: the temperature at which its clocks go down.
    """

    fixed: dict[str, Value]
    idle: dict[str, Value]
    load: dict[str, Value]
    hot_c: int

    def sensors(self, *, load: bool) -> dict[str, Value]:
        """Return what its sensors show idle or under full load."""
        return {**_IDLE, **self.idle, **(_LOAD | self.load if load else {})}


RTX_5090 = Card(
    fixed={
        "name": "NVIDIA GeForce RTX 5090",
        "vbios": "98.02.2E.40.E0",
        "brand": 5,
        "architecture": 10,
        "cc_major": 12,
        "cc_minor": 0,
        "cores": 21760,
        "bus_width_bits": 512,
        "pci_device_id": 0x2B8510DE,
        "pci_subsystem_id": 0x89E31043,
        "memory_total_bytes": 32607 * MIB,
        "memory_used_bytes": 2 * MIB,
        "memory_reserved_bytes": 518 * MIB,
        "bar1_total_bytes": 32768 * MIB,
        "bar1_used_bytes": 1 * MIB,
        "power_limit_mw": 575_000,
        "power_default_mw": 575_000,
        "power_min_mw": 400_000,
        "power_max_mw": 600_000,
        "energy_mj": 812_345_678,
        "temperature_limit_c": 90,
        "tlimit_shutdown_c": -5,
        "tlimit_slowdown_c": -2,
        "tlimit_gpu_max_c": 0,
        "fans": 2,
        "clock_max_graphics_mhz": 3090,
        "clock_max_sm_mhz": 3090,
        "clock_max_memory_mhz": 14001,
        "clock_max_video_mhz": 3090,
        "pcie_width": 16,
        "pcie_gen_max": 5,
        "pcie_width_max": 16,
        "pcie_gen_device": 5,
        "persistence": 0,
        "gsp_mode": 1,
        "event_types": GEFORCE_EVENTS,
        "field_values": 1,
        **_VIOLATIONS,
    },
    idle={
        "power_mw": 12_000,
        "temperature_c": 31,
        "fan_percent": 0,
        "pstate": 8,
        "clock_graphics_mhz": 180,
        "clock_sm_mhz": 180,
        "clock_memory_mhz": 405,
        "clock_video_mhz": 600,
    },
    load={
        "power_mw": 556_000,
        "temperature_c": 71,
        "fan_percent": 62,
        "util_memory": 54,
        # At full load this card sits at its power cap; that is its normal state, not a fault.
        "reasons": 0x4,
        "clock_graphics_mhz": 2580,
        "clock_sm_mhz": 2580,
        "clock_memory_mhz": 13801,
        "clock_video_mhz": 2235,
        "pcie_gen": 5,
        "pcie_tx_kb_per_s": 1_850_000,
        "pcie_rx_kb_per_s": 2_140_000,
    },
    hot_c=90,
)

RTX_4090 = Card(
    fixed={
        **RTX_5090.fixed,
        "name": "NVIDIA GeForce RTX 4090",
        "vbios": "95.02.18.80.5F",
        "architecture": 8,
        "cc_major": 8,
        "cc_minor": 9,
        "cores": 16384,
        "bus_width_bits": 384,
        "pci_device_id": 0x268410DE,
        "pci_subsystem_id": 0x889B1043,
        "memory_total_bytes": 24564 * MIB,
        "memory_used_bytes": 1 * MIB,
        "memory_reserved_bytes": 452 * MIB,
        "power_limit_mw": 450_000,
        "power_default_mw": 450_000,
        "power_min_mw": 150_000,
        "power_max_mw": 600_000,
        "temperature_limit_c": 83,
        # This generation still answers the older call too.
        "threshold_shutdown_c": 100,
        "threshold_slowdown_c": 97,
        "threshold_gpu_max_c": 90,
        "clock_max_graphics_mhz": 3105,
        "clock_max_sm_mhz": 3105,
        "clock_max_memory_mhz": 10501,
        "clock_max_video_mhz": 2415,
        "pcie_gen_max": 4,
        "pcie_gen_device": 4,
        # Under the proprietary module of its driver, this card runs without that firmware.
        "gsp_mode": 0,
    },
    idle={**RTX_5090.idle, "power_mw": 21_000, "temperature_c": 34, "clock_graphics_mhz": 210, "clock_sm_mhz": 210},
    load={
        **RTX_5090.load,
        "power_mw": 441_000,
        "temperature_c": 66,
        "clock_graphics_mhz": 2625,
        "clock_sm_mhz": 2625,
        "clock_memory_mhz": 10251,
        "pcie_gen": 4,
    },
    hot_c=83,
)

H100 = Card(
    fixed={
        "name": "NVIDIA H100 80GB HBM3",
        "vbios": "96.00.74.00.01",
        "part_number": "2330-885-A1",
        "brand": 14,
        "architecture": 9,
        "cc_major": 9,
        "cc_minor": 0,
        "cores": 16896,
        "bus_width_bits": 5120,
        "pci_device_id": 0x233010DE,
        "pci_subsystem_id": 0x16C110DE,
        "memory_total_bytes": 81559 * MIB,
        "memory_used_bytes": 4 * MIB,
        "memory_reserved_bytes": 518 * MIB,
        "bar1_total_bytes": 131072 * MIB,
        "bar1_used_bytes": 1 * MIB,
        "power_limit_mw": 700_000,
        "power_default_mw": 700_000,
        "power_min_mw": 200_000,
        "power_max_mw": 700_000,
        "energy_mj": 98_765_432_100,
        "temperature_limit_c": 87,
        "tlimit_shutdown_c": -8,
        "tlimit_slowdown_c": -2,
        "tlimit_gpu_max_c": 0,
        "tlimit_memory_max_c": 0,
        "clock_max_graphics_mhz": 1980,
        "clock_max_sm_mhz": 1980,
        "clock_max_memory_mhz": 2619,
        "clock_max_video_mhz": 1545,
        "clock_boost_mhz": 1980,
        "clock_application_mhz": 1980,
        "clock_application_memory_mhz": 2619,
        "pcie_width": 16,
        "pcie_gen_max": 5,
        "pcie_width_max": 16,
        "pcie_gen_device": 5,
        "persistence": 1,
        "ecc_mode": 1,
        "ecc_pending": 1,
        "ecc_corrected": 0,
        "ecc_uncorrected": 0,
        "ecc_corrected_total": 3,
        "ecc_uncorrected_total": 0,
        "remapped_corrected": 0,
        "remapped_uncorrected": 0,
        "remapped_pending": 0,
        "remapped_failed": 0,
        "recovery_action": 0,
        "mig_mode": 0,
        "mig_pending": 0,
        "mig_devices": 0,
        "mig_memory_bytes": 9984 * MIB,
        "mig_multiprocessors": 16,
        "mig_profile": "1g.10gb",
        "nvlinks": 18,
        "nvlink_version": 4,
        "nvlink_mb_per_s": 26562,
        "gsp_mode": 1,
        "event_types": GPU_EVENTS,
        "field_values": 1,
        **_VIOLATIONS,
    },
    idle={
        "power_mw": 71_000,
        "temperature_c": 30,
        "memory_temperature_c": 38,
        "pstate": 0,
        "clock_graphics_mhz": 345,
        "clock_sm_mhz": 345,
        "clock_memory_mhz": 2619,
        "clock_video_mhz": 765,
        "pcie_gen": 5,
    },
    load={
        "power_mw": 668_000,
        "temperature_c": 63,
        "memory_temperature_c": 84,
        "util_memory": 61,
        "clock_graphics_mhz": 1755,
        "clock_sm_mhz": 1755,
        "clock_memory_mhz": 2619,
        "clock_video_mhz": 1380,
        "pcie_gen": 5,
        "pcie_tx_kb_per_s": 2_400_000,
        "pcie_rx_kb_per_s": 2_900_000,
    },
    hot_c=87,
)

# A card from before fields, energy counters and margins.
GTX_1060 = Card(
    fixed={
        "name": "NVIDIA GeForce GTX 1060 6GB",
        "vbios": "86.06.0E.00.38",
        "brand": 5,
        "architecture": 4,
        "cc_major": 6,
        "cc_minor": 1,
        "cores": 1280,
        "bus_width_bits": 192,
        "pci_device_id": 0x1C0310DE,
        "pci_subsystem_id": 0x85AC1043,
        "memory_total_bytes": 6144 * MIB,
        "memory_used_bytes": 1 * MIB,
        "memory_reserved_bytes": 77 * MIB,
        "bar1_total_bytes": 256 * MIB,
        "bar1_used_bytes": 2 * MIB,
        "power_limit_mw": 120_000,
        "power_default_mw": 120_000,
        "power_min_mw": 60_000,
        "power_max_mw": 140_000,
        "threshold_shutdown_c": 102,
        "threshold_slowdown_c": 99,
        "fans": 1,
        "clock_max_graphics_mhz": 1911,
        "clock_max_sm_mhz": 1911,
        "clock_max_memory_mhz": 4004,
        "clock_max_video_mhz": 1708,
        "pcie_width": 16,
        "pcie_gen_max": 3,
        "pcie_width_max": 16,
        "pcie_gen_device": 3,
        "persistence": 0,
        "event_types": GEFORCE_EVENTS,
    },
    idle={
        "power_mw": 6_000,
        "temperature_c": 36,
        "fan_percent": 26,
        "pstate": 8,
        "clock_graphics_mhz": 139,
        "clock_sm_mhz": 139,
        "clock_memory_mhz": 405,
        "clock_video_mhz": 544,
    },
    load={
        "power_mw": 116_000,
        "temperature_c": 70,
        "fan_percent": 55,
        "util_memory": 44,
        "clock_graphics_mhz": 1847,
        "clock_sm_mhz": 1847,
        "clock_memory_mhz": 3802,
        "clock_video_mhz": 1657,
        "pcie_gen": 3,
        "pcie_tx_kb_per_s": 900_000,
        "pcie_rx_kb_per_s": 1_100_000,
    },
    hot_c=99,
)
