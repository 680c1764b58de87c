"""Faults that the kernel's log tells of: Xids, GPUs that fell off the bus, PCIe errors by port. Pure.

Sources: NVIDIA's Xid catalogue (docs.nvidia.com, "Xid Errors") for the codes; the printk calls of NVIDIA's open kernel
modules and of the kernel's drivers/pci/pcie/aer.c for the lines; `tests/data/kernel` holds lines of real machines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

Class = Literal["application", "hardware"]
Kind = Literal["xid", "lost", "init-failed", "aer"]

# What a program alone can cause. Everything else says something about the machine.
APPLICATION: Final = {
    13: "graphics engine exception",
    31: "GPU memory page fault",
    43: "GPU stopped processing",
    45: "preemptive cleanup, due to previous errors",
    68: "NVDEC0 exception",
    109: "context switch timeout",
}
HARDWARE: Final = {
    48: "double bit ECC error",
    61: "internal micro-controller breakpoint",
    62: "internal micro-controller halt",
    63: "row remapping recorded",
    64: "row remapping failed",
    74: "NVLink error",
    79: "GPU has fallen off the bus",
    92: "high rate of single bit ECC errors",
    94: "contained memory error",
    95: "uncontained memory error",
    119: "GSP does not answer",
    120: "GSP error",
    140: "unrecovered ECC error",
    143: "GPU initialisation error",
}


class Fault(NamedTuple):
    """One fault as the kernel's log has it.

    `pci` is the GPU's address as `address` spells it, or None; for `aer` it is the device that sent the message, and
    `port` the port that received it. `code` is an Xid's number. `severity` is aer's: corrected, non-fatal or fatal.
    """

    kind: Kind
    pci: str | None = None
    code: int | None = None
    text: str = ""
    port: str | None = None
    severity: str | None = None


def classify(code: int) -> Class:
    """Return whose fault an Xid is. A code that is not in the tables counts as the hardware's."""
    return "application" if code in APPLICATION else "hardware"


def meaning(code: int) -> str:
    """Return an Xid in words."""
    return APPLICATION.get(code) or HARDWARE.get(code) or "not in Vault Cube's table"


def address(pci: str) -> str:
    """Return a PCI address without its function, in the kernel's spelling: `0000:06:00`.

    NVML writes the domain with eight digits, an Xid without function, and old drivers without domain.

    Raises:
        ValueError: it is no PCI address.
    """
    found = re.fullmatch(r"(?:([0-9a-fA-F]{1,8}):)?([0-9a-fA-F]{1,4}):([0-9a-fA-F]{1,2})(?:\.[0-9a-fA-F])?", pci)
    if found is None:
        raise ValueError(f"{pci!r} is no PCI address")
    domain, bus, device = (int(part or "0", 16) for part in found.groups())
    return f"{domain:04x}:{bus:02x}:{device:02x}"


_BDF = r"((?:[0-9a-fA-F]{1,8}:)?[0-9a-fA-F]{1,4}:[0-9a-fA-F]{1,2}(?:\.[0-9a-fA-F])?)"
# A MIG instance may stand behind the address; the oldest drivers wrote no `PCI:`.
_XID = re.compile(rf"NVRM: Xid \((?:PCI:)?{_BDF}[^)]{{0,40}}\): ?([0-9]{{1,6}})\b[,:]? ?(.*)")
_OFF_BUS = re.compile(rf"NVRM: (?:The NVIDIA )?GPU (?:at )?(?:PCI:)?{_BDF}.*has fallen off the bus")
# The driver prints this one sentence on three lines.
_OFF_BUS_BEGIN = re.compile(rf"NVRM: The NVIDIA GPU {_BDF}\s*$")
_OFF_BUS_END = re.compile(r"NVRM: (?:GPU has )?fallen off the bus")
_INIT = re.compile(rf"NVRM: GPU (?:at )?(?:PCI:)?{_BDF}:? (RmInitAdapter failed!.*)")
_AER = re.compile(
    rf"pcieport {_BDF}: AER: (?:Multiple )?(?:Correct(?:ed|able)|Uncorrect(?:ed|able) \((Non-)?(Fatal)\))"
    rf" error (?:message )?received(?:(?:: | from ){_BDF})?"
)
# How many lines the one sentence may take.
_LINES: Final = 3


class Parser:
    """Reads a kernel log line by line; any text is allowed, and what is no fault is passed over."""

    def __init__(self) -> None:
        self._begun: str | None = None
        self._left = 0

    def feed(self, text: str) -> Iterator[Fault]:
        """Return the faults in a message: a line, or several in one record."""
        for line in text.splitlines():
            fault = self._line(line)
            if fault is not None:
                yield fault

    def _line(self, line: str) -> Fault | None:
        if "NVRM: " not in line:
            return _aer(line) if "AER: " in line else None
        if found := _OFF_BUS_BEGIN.search(line):
            self._begun, self._left = _pci(found[1]), _LINES - 1
            return None
        if self._left:
            self._left -= 1
            if _OFF_BUS_END.search(line):
                self._left = 0
                return Fault("lost", self._begun, text="has fallen off the bus and is not responding to commands")
        if found := _XID.search(line):
            return Fault("xid", _pci(found[1]), int(found[2]), found[3].strip())
        if found := _OFF_BUS.search(line):
            return Fault("lost", _pci(found[1]), text="has fallen off the bus")
        if found := _INIT.search(line):
            return Fault("init-failed", _pci(found[1]), text=found[2].strip())
        return None


def _aer(line: str) -> Fault | None:
    found = _AER.search(line)
    if found is None:
        return None
    port, non_fatal, uncorrected, sender = found.groups()
    severity = "non-fatal" if non_fatal else "fatal" if uncorrected else "corrected"
    return Fault("aer", _pci(sender) if sender else None, port=port.lower(), severity=severity)


def _pci(text: str) -> str | None:
    try:
        return address(text)
    except ValueError:
        return None
