"""Clock-event reasons: why a GPU runs slower than it could. Pure.

Source: nvml.h, nvmlClocksEventReasons. Which of them spoil a measurement: the mask that NVIDIA's own DCGM fails on.
"""

from __future__ import annotations

REASONS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
    0x100: "display clocks",
    0x200: "board limit",
    0x400: "reliability",
}

# Hardware slowdown, both thermal ones and the power brake. A power cap is normal at full load.
THROTTLE_MASK = 0xE8
POWER_CAP = 0x4


def names(mask: int) -> list[str]:
    """Return the reasons in a mask, lowest bit first; bits that nvml.h does not name as hexadecimal numbers."""
    return [REASONS.get(1 << bit, f"{1 << bit:#x}") for bit in range(mask.bit_length()) if mask >> bit & 1]
