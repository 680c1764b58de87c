"""What a recorder saw happen during a soak: lost GPUs, Xids of the hardware, machines that went down. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from vaultcube.gpu.xid import classify, meaning
from vaultcube.results.schema import Evidence, Gpu
from vaultcube.results.soak import Soak, reboots

if TYPE_CHECKING:
    from vaultcube.gpu.telemetry import Event

# An Xid that is older did not bring the machine down.
BEFORE_RESET = timedelta(minutes=10)


def fault_evidence(gpus: Sequence[Gpu], soak: Soak, events: Sequence[Event]) -> list[Evidence]:
    """Return evidence for every lost GPU and every Xid of the hardware's class."""
    subjects = {subject.gpu.uuid: subject for subject in soak.subjects if subject.gpu is not None}
    known = {gpu.uuid: gpu for gpu in gpus}
    found = []
    for event in events:
        if event.kind == "lost":
            check, what = "no_gpu_lost", "was lost: it fell off the bus, or asks for a reset"
        elif event.kind == "xid" and event.code is not None and classify(event.code) == "hardware":
            check, what = "no_xid", f"reported Xid {event.code} ({meaning(event.code)})"
        else:
            continue
        said = f" [{text}]" if (text := str(event.detail.get("text") or "")[:160]) else ""
        wall = datetime.fromtimestamp(event.wall_s, UTC)
        subject = subjects.get(event.uuid or "")
        if subject is not None:
            found.append(
                subject.evidence(check, f"{subject.called} {what}{said}", first=wall, last=wall, count=event.count)
            )
            continue
        gpu = known.get(event.uuid or "")
        found.append(
            Evidence(
                check=check,
                text=f"{'a GPU that is not named' if gpu is None else f'GPU {gpu.index}'} {what}{said}",
                gpu_index=gpu.index if gpu else None,
                gpu_uuid=gpu.uuid if gpu else None,
                pci_bus_id=gpu.pci_bus_id if gpu else None,
                first=wall,
                last=wall,
                count=event.count,
            )
        )
    return found


def reset_evidence(soak: Soak, events: Sequence[Event]) -> list[Evidence]:
    """Return evidence for machines that went down without a word of their GPUs: NVML cannot see their power fail."""
    told = [
        datetime.fromtimestamp(event.wall_s, UTC)
        for event in events
        if event.kind == "lost" or (event.kind == "xid" and event.code is not None)
    ]
    return [
        Evidence(
            check="no_unplanned_restart",
            text="the machine went down without an Xid before it: look at its power supply and its cables",
            first=reboot.away_since,
            last=reboot.at,
            boot_id=reboot.before,
        )
        for reboot in reboots(soak)
        if not any(reboot.away_since - BEFORE_RESET <= at <= reboot.at for at in told)
    ]
