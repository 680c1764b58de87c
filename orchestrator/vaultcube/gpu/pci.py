"""NVIDIA GPUs on the PCI bus, with a driver or without. Standard library only."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

DEVICES: Final = "/sys/bus/pci/devices"
NVIDIA: Final = 0x10DE
# PCI base class of display controllers; the cards' audio functions have another.
DISPLAY: Final = 0x03


def pci_gpus(folder: Path) -> list[tuple[str, int]]:
    """Return address and device id of the NVIDIA GPUs, but for those given to a virtual machine.

    Raises:
        OSError: the folder (`DEVICES`) cannot be read.
    """
    found = []
    for device in sorted(folder.iterdir()):
        with suppress(OSError, ValueError):
            vendor, kind, number = (int((device / name).read_text(), 16) for name in ("vendor", "class", "device"))
            passed_on = (device / "driver").resolve().name == "vfio-pci"
            if vendor == NVIDIA and kind >> 16 == DISPLAY and not passed_on:
                found.append((device.name, number))
    return found
