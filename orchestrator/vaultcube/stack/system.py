"""The machine around the GPUs: load, memory, and the disk that runs are kept on."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

MEMINFO = Path("/proc/meminfo")


class System(NamedTuple):
    """What the machine has to do besides. Units are in the names; None is what this system does not tell.

    `disk_path` is the folder that the disk figures are of, or would be of once it is made.
    """

    load_1min: float | None
    load_5min: float | None
    load_15min: float | None
    cpus: int | None
    memory_total_bytes: int | None
    memory_available_bytes: int | None
    disk_path: str
    disk_total_bytes: int | None
    disk_free_bytes: int | None


def read_system(directory: Path) -> System:
    """Return how the machine is now, and how full the disk of a folder is that need not be there yet."""
    load: tuple[float | None, float | None, float | None] = (None, None, None)
    with suppress(OSError):
        load = os.getloadavg()
    text = ""
    with suppress(OSError):
        text = MEMINFO.read_text()
    memory = parse_meminfo(text)
    total, free = None, None
    for folder in (directory, *directory.parents):
        with suppress(OSError):
            usage = shutil.disk_usage(folder)
            total, free = usage.total, usage.free
            break
    return System(
        *load, os.cpu_count(), memory.get("MemTotal"), memory.get("MemAvailable"), str(directory), total, free
    )


def parse_meminfo(text: str) -> dict[str, int]:
    """Return the values of /proc/meminfo in bytes; lines of another form are left out."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if len(words) == 2 and words[0].isdecimal() and words[1] == "kB":  # noqa: PLR2004 - a number and its unit
            found[name] = int(words[0]) * 1024
    return found
