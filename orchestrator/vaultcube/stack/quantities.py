"""Sizes and durations as people write them. Pure."""

from __future__ import annotations

import re

from vaultcube.errors import UsageError

MEMORY_UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Docker itself refuses a container with less; no machine has more.
MEMORY_FLOOR, MEMORY_CEILING = 6 * 2**20, 2**50


def parse_memory(text: str) -> int:
    """Read a size in Docker's way (`512m`, `8g`) and return bytes.

    Raises:
        UsageError: it is none, or not one that a container can have.
    """
    found = re.fullmatch(r"([0-9]{1,16})([bkmgt]?)b?", text.strip().lower())
    size = int(found[1]) * MEMORY_UNITS[found[2]] if found else 0
    if not MEMORY_FLOOR <= size <= MEMORY_CEILING:
        raise UsageError(f"--memory {text!r} is no size from 6m to 1024t", next_step="Write it as 512m or 8g.")
    return size


def parse_duration(text: str) -> float:
    """Read a duration (`90`, `90s`, `30m`, `24h`, `1.5d`) and return seconds, more than 0 and at most 366 days.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smhd]?)", text.strip().lower())
    seconds = float(found[1]) * DURATION_UNITS[found[2] or "s"] if found else 0.0
    if not 0 < seconds <= 366 * DURATION_UNITS["d"]:
        raise UsageError(f"{text!r} is no duration", next_step="Write it as 90s, 30m or 24h.")
    return seconds


def parse_hours(text: str) -> tuple[float, ...]:
    """Read a list of hours (`1,6,24`).

    Raises:
        UsageError: it is none.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,6}(?:\.[0-9]{1,6})?", part) for part in parts):
        raise UsageError(f"--ladder {text!r} is no list of hours", next_step="Write it as 1,6,24.")
    return tuple(float(part) for part in parts)
