"""How readings of a GPU are written for people. What is not told is `-`, never 0. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vaultcube.gpu.leases import Holder
    from vaultcube.stack.snapshot import GpuState, Snapshot

SIMULATED: Final = "SIMULATED: the GPUs are not real ones"
NEXT_STEPS: Final[dict[str, str]] = {
    "no-library": "Install the NVIDIA driver, or go on without: every verb works on the CPU.",
    "no-driver": "Load the driver (sudo modprobe nvidia); if it refuses, `sudo dmesg` says why. Secure Boot may.",
    "mismatch": "The driver was updated under the running one: reboot.",
    "permission": "Let this user open /dev/nvidia* (ls -l shows whose they are), or use sudo.",
    "lost": "Read the kernel log (sudo dmesg | grep -E 'NVRM|AER'), then reboot: only that brings a lost GPU back.",
    "hang": "The driver, or a GPU, has stopped: read the kernel log (sudo dmesg | grep NVRM), then reboot.",
    "unknown": "See what `vaultcube doctor` finds. In a container whose devices were taken away: recreate it.",
}
NO_GPU: Final = "See whether the bus has one (lspci -d 10de:) and what the driver said (sudo dmesg | grep NVRM)."


def next_step(seen: Snapshot) -> str | None:
    """Return what to do when there are no GPUs, or one is lost; None when all is well."""
    if seen.problem is not None:
        return NEXT_STEPS[seen.problem]
    failed = [problem for _, problem in seen.missing]
    failed += [state.reading.problem for state in seen.gpus if state.reading.problem]
    if failed:
        return NEXT_STEPS[failed[0]]
    return None if seen.gpus else NO_GPU


def held_by(state: GpuState, *, known: bool) -> str:
    """Return who holds a GPU. `known` says whether the engine was asked: without it nobody knows that it is free."""
    if state.holders:
        return ", ".join(map(holder, state.holders))
    return "free" if known else "unknown"


def holder(one: Holder) -> str:
    """Return one holder: our service's name or our run's id says it all, a container or a process is named as such."""
    if one.run:
        return one.instance or one.run
    return f"container {one.name}" if one.kind == "container" else f"process {one.pid} {one.name}".rstrip()


def of(now: float | None, limit: float | None) -> str:
    """Return `now/limit` in whole numbers; each is `-` where it is not known."""
    return f"{whole(now)}/{whole(limit)}"


def whole(value: float | None) -> str:
    """Return a value without decimals, or `-`."""
    return "-" if value is None else f"{value:.0f}"


def gib(size: int | None, digits: int = 1) -> str:
    """Return bytes as GiB with some decimals and no unit, or `-`."""
    return "-" if size is None else f"{size / 2**30:.{digits}f}"


def watts(power_mw: int | None) -> float | None:
    """Return milliwatts as watts."""
    return None if power_mw is None else power_mw / 1000


def pcie(gen: int | None, width: int | None) -> str:
    """Return a PCIe link, generation and lanes, such as `5x16`."""
    return "-" if gen is None and width is None else f"{whole(gen)}x{whole(width)}"


def switch(on: bool | None) -> str:  # noqa: FBT001 - what a card says is one of three
    """Return `on`, `off`, or `-` for a card that has no such thing."""
    return "-" if on is None else "on" if on else "off"


def ranges(indices: list[int]) -> str:
    """Return indices in rising order as text: `0-3`, `0,2`, `0-2,5`."""
    parts: list[list[int]] = []
    for index in indices:
        if parts and index == parts[-1][-1] + 1:
            parts[-1].append(index)
        else:
            parts.append([index])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def short_pci(bus_id: str) -> str:
    """Return a PCI address as lspci and the kernel log write it: `0000:01:00.0` for NVML's `00000000:01:00.0`."""
    domain, _, rest = bus_id.partition(":")
    return f"{domain[4:] if domain.startswith('0000') and len(domain) == 8 else domain}:{rest}".lower()  # noqa: PLR2004
