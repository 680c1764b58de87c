"""What befell the GPUs, from the three that tell of it: their readings, NVML's Xid events, and the kernel's log.

One thing is told of once, whoever saw it. Standard library only: the recorder container runs on this file.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from vaultcube.gpu.kernellog import Polled
from vaultcube.gpu.readings import GpuInfo, Problem, XidEvent
from vaultcube.gpu.rundb import Writer
from vaultcube.gpu.xid import Fault, Parser, address

Source = Literal["nvml", "kernel"]
SOURCES: Final[tuple[Source, ...]] = ("nvml", "kernel")
# An Xid that both report within this time is one; each is seen when it is asked for, up to a second late.
SAME_MS: Final = 3000
_DEVICES: Final = "/sys/bus/pci/devices"


class _Open:
    """An event that can still be amended."""

    def __init__(
        self, number: int, mono_ms: int, position: int | None, code: int | None, source: Source, detail: dict[str, Any]
    ) -> None:
        self.number = number
        self.mono_ms = mono_ms
        self.position = position
        self.code = code
        self.seen = Counter([source])
        self.detail = detail


class Incidents:
    """Writes events. All times are CLOCK_MONOTONIC in ms.

    Args:
        writer: where to.
        gpus: those that are recorded: positions count in it.
        others: GPUs that are there and not recorded; what befalls them is not written.
        root: where `/sys` is looked up.
    """

    def __init__(self, writer: Writer, gpus: Sequence[GpuInfo], others: Sequence[GpuInfo], root: str = "/") -> None:
        self._writer = writer
        self._uuids = {gpu.uuid: position for position, gpu in enumerate(gpus)}
        self._slots = {address(gpu.pci_bus_id): position for position, gpu in enumerate(gpus)}
        self._foreign = {address(gpu.pci_bus_id) for gpu in others}
        self._foreign_uuids = {gpu.uuid for gpu in others}
        self._ports = _ports(self._slots, root)
        self._problems: dict[int, Problem | None] = dict.fromkeys(range(len(gpus)))
        self._lost: dict[int, _Open] = {}
        self._xids: list[_Open] = []
        self._parser = Parser()
        self._pids: dict[int, frozenset[int]] = {}

    def problem(self, mono_ms: int, position: int, problem: Problem | None) -> bool:
        """Take what a GPU's reading said; say whether that is news."""
        before = self._problems[position]
        if problem == before:
            return False
        self._problems[position] = problem
        if problem is None:
            self._lost.pop(position, None)
            self._writer.event(mono_ms, "returned", position=position, sources="nvml", detail={"after": before})
        elif problem == "lost":
            self._loss(mono_ms, position, "nvml", "")
        else:
            self._writer.event(mono_ms, "problem", position=position, sources="nvml", detail={"problem": problem})
        return True

    def reset(self, mono_ms: int, position: int, counters: Sequence[str]) -> None:
        """Take the names of the counters that began anew."""
        for name in counters:
            kind = "energy_reset" if name == "energy_mj" else "counter_reset"
            self._writer.event(mono_ms, kind, position=position, sources="nvml", detail={"counter": name})

    def missing(self, mono_ms: int, nvml_index: int, problem: Problem) -> None:
        """Take a GPU that is listed and could not be read from the start."""
        kind = "lost" if problem == "lost" else "problem"
        self._writer.event(mono_ms, kind, sources="nvml", detail={"nvml_index": nvml_index, "problem": problem})

    def computing(self, mono_ms: int, position: int, pids: frozenset[int]) -> None:
        """Take which processes compute on a GPU."""
        known = self._pids.get(position, frozenset())
        self._pids[position] = pids
        for pid in sorted(pids - known):
            detail = {"pid": pid, "name": _name(pid), "containers": _containers(pid)}
            self._writer.event(mono_ms, "process", position=position, sources="nvml", detail=detail)
        for pid in sorted(known - pids):
            self._writer.event(mono_ms, "process_ended", position=position, sources="nvml", detail={"pid": pid})

    def xid(self, mono_ms: int, event: XidEvent) -> None:
        """Take an Xid that NVML reported."""
        if event.uuid not in self._foreign_uuids:
            self._xid(mono_ms, self._uuids.get(event.uuid or ""), event.code, "nvml", {})

    def kernel(self, mono_ms: int, polled: Polled) -> bool:
        """Take what the kernel's log has new; say whether there was a fault in it."""
        if polled.overwritten:
            self._writer.event(mono_ms, "kernel_log", sources="kernel", detail={"problem": "overwritten"})
        pcie: Counter[tuple[str, str, int | None]] = Counter()
        found = polled.overwritten
        for message in polled.messages:
            for fault in self._parser.feed(message):
                if fault.pci in self._foreign:
                    continue
                found = True
                if fault.kind == "aer":
                    pcie[fault.port or "", fault.severity or "", self._link(fault)] += 1
                else:
                    self._fault(mono_ms, fault)
        for (port, severity, position), count in pcie.items():
            detail = {"port": port, "severity": severity}
            self._writer.event(mono_ms, "aer", position=position, count=count, sources="kernel", detail=detail)
        return found

    def _fault(self, mono_ms: int, fault: Fault) -> None:
        position = self._slots.get(fault.pci or "")
        detail: dict[str, Any] = {"text": fault.text}
        if position is None:
            detail["pci"] = fault.pci
        if fault.kind == "xid" and fault.code is not None:
            self._xid(mono_ms, position, fault.code, "kernel", detail)
        elif fault.kind == "lost" and position is not None:
            self._loss(mono_ms, position, "kernel", fault.text)
        elif fault.kind == "lost":
            self._writer.event(mono_ms, "lost", sources="kernel", detail=detail)
        else:
            detail["problem"] = "init-failed"
            self._writer.event(mono_ms, "problem", position=position, sources="kernel", detail=detail)

    def _link(self, fault: Fault) -> int | None:
        """Return the GPU whose link a PCIe error is about: it sent the message, or is the only one below the port."""
        sender = self._slots.get(fault.pci or "")
        if sender is not None:
            return sender
        below = self._ports.get(fault.port or "", set())
        return next(iter(below)) if len(below) == 1 else None

    def _loss(self, mono_ms: int, position: int, source: Source, text: str) -> None:
        known = self._lost.get(position)
        if known is None:
            detail = {"text": text} if text else {}
            number = self._writer.event(mono_ms, "lost", position=position, sources=source, detail=detail)
            self._lost[position] = _Open(number, mono_ms, position, None, source, detail)
        elif source not in known.seen:
            known.seen[source] += 1
            if text:
                known.detail.setdefault("text", text)
            self._amend(known)

    def _xid(self, mono_ms: int, position: int | None, code: int, source: Source, detail: dict[str, Any]) -> None:
        self._xids = [one for one in self._xids if mono_ms - one.mono_ms <= SAME_MS]
        for known in self._xids:
            # A lost GPU's event may not say whose it is.
            if known.code == code and (known.position == position or None in {known.position, position}):
                known.seen[source] += 1
                known.position = position if known.position is None else known.position
                for name, value in detail.items():
                    known.detail.setdefault(name, value)
                self._amend(known)
                return
        number = self._writer.event(mono_ms, "xid", position=position, code=code, sources=source, detail=detail)
        self._xids.append(_Open(number, mono_ms, position, code, source, detail))

    def _amend(self, one: _Open) -> None:
        self._writer.amend(
            one.number,
            position=one.position,
            # Each source tells of every time: the same three are not six.
            count=max(one.seen.values()),
            sources=",".join(source for source in SOURCES if source in one.seen),
            detail=one.detail,
        )


def _name(pid: int) -> str | None:
    """Return what a process is called; None when it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return None


def _containers(pid: int) -> list[str]:
    """Return the ids of the containers that a process is in, outermost first: none for a process of the host."""
    try:
        cgroup = Path(f"/proc/{pid}/cgroup").read_text(errors="replace")
    except OSError:
        return []
    return list(dict.fromkeys(re.findall(r"[0-9a-f]{64}", cgroup)))


def _ports(slots: Mapping[str, int], root: str) -> dict[str, set[int]]:
    """Return the GPUs below each PCIe port, as the bridges in /sys lie."""
    found: dict[str, set[int]] = {}
    for slot, position in slots.items():
        path = os.path.realpath(f"{root.rstrip('/')}{_DEVICES}/{slot}.0")
        for port in path.split("/")[:-1]:
            found.setdefault(port, set()).add(position)
    return found
