"""Checks of the machine around the GPUs: memory, limits, ports, the clock, the kernel log."""

from __future__ import annotations

from collections import Counter
from typing import Final

from vaultcube.gpu.preflight.facts import Facts, Unseen
from vaultcube.gpu.preflight.judged import Judged, absence, fail, good, unavailable, warn
from vaultcube.gpu.xid import Fault, classify, meaning

# What the compose files give a container as shared memory, with GPUs and without.
SHM_GPU_BYTES: Final = 16 * 2**30
SHM_CPU_BYTES: Final = 2**30
# Docker's own default, which kills NCCL: a host with no more was set up by a container's rules.
SHM_FLOOR_BYTES: Final = 64 * 2**20
# Corrected PCIe errors of one port above which a link is worth a look.
AER_MANY: Final = 100
_SHOWN: Final = 3


def shm(facts: Facts) -> Judged:
    """Does the shared memory that containers get fit into the machine's memory?"""
    memory = facts.memory
    if isinstance(memory, Unseen):
        return unavailable(memory)
    wanted = SHM_GPU_BYTES if absence(facts) is None else SHM_CPU_BYTES
    have = f"/dev/shm {memory.shm_bytes / 2**30:.1f} GiB, memory {memory.total_bytes / 2**30:.1f} GiB"  # noqa: S108 - a name to show
    if memory.total_bytes < wanted:
        return warn(
            f"{have}; containers may use {wanted / 2**30:.0f} GiB of shared memory",
            "Shared memory counts as memory: add memory, or use fewer GPUs at a time.",
        )
    if memory.shm_bytes <= SHM_FLOOR_BYTES:
        step = "Enlarge it: sudo mount -o remount,size=50% /dev/shm. Containers have one of their own."
        return warn(f"{have}: too small for NCCL outside containers", step)
    return good(f"{have}; containers get {wanted / 2**30:.0f} GiB of their own")


def memlock(facts: Facts) -> Judged:
    """May the engine give containers unlimited locked memory, which NCCL pins host memory with?"""
    if (reason := absence(facts)) is not None:
        return unavailable(reason)
    limit = facts.memlock
    if isinstance(limit, Unseen):
        return unavailable(limit)
    if limit.limit_bytes is None:
        return good("the engine's limit of locked memory is unlimited")
    size = f"{limit.limit_bytes / 2**20:.0f} MiB"
    if limit.may_raise:
        return good(f"the engine's limit of locked memory is {size}, and it may raise it")
    # Whether a container gets it all the same, the proof shows.
    return warn(
        f"the engine may lock {size} and not raise that: containers that ask for more may not start (see access)",
        "Run the engine as root outside of containers, or with LimitMEMLOCK=infinity in its systemd unit.",
    )


def ports(facts: Facts) -> Judged:
    """Are the ports free that workloads publish?"""
    seen = facts.ports
    if isinstance(seen, Unseen):
        return unavailable(seen)
    taken = [f"{one.number} ({one.workload})" for one in seen if one.taken]
    if not taken:
        return good("free: " + (", ".join(f"{one.number} ({one.workload})" for one in seen) or "none is needed"))
    text = f"in use on 127.0.0.1: {', '.join(taken)}"
    first = next(one.number for one in seen if one.taken)
    step = f"See by whom (sudo ss -ltnp 'sport = :{first}'), and stop it or choose another port."
    return fail(text, step) if facts.asked.starting else warn(text, step)


def clock(facts: Facts) -> Judged:
    """Does anything keep the clock right? Runs, logs and certificates are told by it."""
    seen = facts.synchronised
    if isinstance(seen, Unseen):
        return unavailable(seen)
    if seen:
        return good("the clock is synchronised")
    step = "Install chrony or enable systemd-timesyncd (sudo timedatectl set-ntp true)."
    return warn("nothing synchronises the clock", step)


def xid(facts: Facts) -> Judged:
    """Does the kernel log tell of GPU errors or PCIe trouble? It reaches back to the boot, or as far as it has room."""
    if (reason := absence(facts)) is not None:
        return unavailable(reason)
    faults = facts.faults
    if isinstance(faults, Unseen):
        return unavailable(faults, "Run it with sudo, or look yourself: sudo journalctl -k -g 'NVRM|AER'.")
    blamed = Counter(filter(None, map(_hardware, faults)))
    if blamed:
        return fail(
            _counted(blamed),
            "Look at power, cooling, seating and risers of that card; reboot, and if it comes back replace it.",
        )
    storms = Counter(f"corrected PCIe error at {one.port}" for one in faults if one.kind == "aer")
    storms = Counter({text: count for text, count in storms.items() if count >= AER_MANY})
    if storms:
        return warn(_counted(storms), "Reseat the card behind that port and its riser; lspci -t shows which it is.")
    programs = Counter(f"Xid {one.code} ({meaning(one.code or 0)}) at {one.pci}" for one in faults if one.kind == "xid")
    if programs:
        step = "These are errors of programs: find which one (sudo journalctl -k -g NVRM), and look whether it is ours."
        return warn(_counted(programs), step)
    return good("no Xid and no PCIe trouble in the kernel log")


def _hardware(fault: Fault) -> str:
    """Return a fault in words if it says something about the machine."""
    if fault.kind == "lost":
        return f"GPU at {fault.pci} fell off the bus"
    if fault.kind == "aer" and fault.severity != "corrected":
        return f"{fault.severity} PCIe error at {fault.port}"
    if fault.kind == "xid" and fault.code is not None and classify(fault.code) == "hardware":
        return f"Xid {fault.code} ({meaning(fault.code)}) at {fault.pci}"
    return ""


def _counted(found: Counter[str]) -> str:
    told = [text if count == 1 else f"{count} x {text}" for text, count in found.most_common(_SHOWN)]
    return "; ".join(told) + (f"; and {len(found) - _SHOWN} more kinds" if len(found) > _SHOWN else "")
