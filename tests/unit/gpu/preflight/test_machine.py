"""The machine around the GPUs."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.gpu.preflight.machines import bare, box, found

from vaultcube.gpu.preflight.facts import Asked, Memlock, Memory, Port, Unseen
from vaultcube.gpu.preflight.machine import AER_MANY
from vaultcube.gpu.xid import Fault

TAKEN = (Port(8000, "vllm", taken=True), Port(9000, "x", taken=False))


def log(*faults: Fault) -> dict[str, Any]:
    return {"faults": faults}


def aer(severity: str = "corrected", times: int = AER_MANY) -> tuple[Fault, ...]:
    return (Fault("aer", "0000:01:00", port="0000:00:01.1", severity=severity),) * times


@pytest.mark.parametrize(
    ("code", "changes", "status", "said"),
    [
        ("shm", {}, "PASS", "containers get 16 GiB"),
        ("shm", {"memory": Memory(8 * 2**30, 2**32)}, "WARN", "may use 16 GiB of shared memory"),
        ("shm", {"memory": Memory(2**38, 64 * 2**20)}, "WARN", "/dev/shm 0.1 GiB"),
        ("shm", {"memory": Unseen("x")}, "UNAVAILABLE", "x"),
        ("memlock", {}, "PASS", "unlimited"),
        ("memlock", {"memlock": Memlock(2**23, may_raise=True)}, "PASS", "8 MiB, and it may raise it"),
        ("memlock", {"memlock": Memlock(2**23, may_raise=False)}, "WARN", "8 MiB and not raise that"),
        ("memlock", {"memlock": Unseen("x")}, "UNAVAILABLE", "x"),
        ("ports", {}, "PASS", "free: 8000 (vllm)"),
        ("ports", {"ports": ()}, "PASS", "none is needed"),
        ("ports", {"ports": TAKEN}, "WARN", "in use on 127.0.0.1: 8000 (vllm)"),
        ("ports", {"ports": TAKEN, "asked": Asked(starting=True)}, "FAIL", "in use"),
        ("clock", {}, "PASS", "synchronised"),
        ("clock", {"synchronised": False}, "WARN", "nothing synchronises"),
        ("clock", {"synchronised": Unseen("adjtimex: no")}, "UNAVAILABLE", "adjtimex"),
        ("xid", {}, "PASS", "no Xid"),
        ("xid", log(Fault("xid", "0000:01:00", 79)), "FAIL", "Xid 79 (GPU has fallen off the bus) at 0000:01:00"),
        ("xid", log(Fault("lost", "0000:b3:00")), "FAIL", "GPU at 0000:b3:00 fell off the bus"),
        ("xid", log(Fault("xid", "0000:01:00", 9999)), "FAIL", "Xid 9999 (not in Vault Cube's table)"),
        ("xid", log(*[Fault("xid", "0000:01:00", 13)] * 2), "WARN", "2 x Xid 13 (graphics engine exception)"),
        ("xid", log(*aer()), "WARN", f"{AER_MANY} x corrected PCIe error at 0000:00:01.1"),
        ("xid", log(*aer(times=AER_MANY - 1)), "PASS", ""),
        ("xid", log(*aer("fatal", 1)), "FAIL", "fatal PCIe error at 0000:00:01.1"),
        # A card that does not start is told by gpu-visibility.
        ("xid", log(Fault("init-failed", "0000:01:00")), "PASS", ""),
        ("xid", {"faults": Unseen("the kernel log cannot be read: x")}, "UNAVAILABLE", "cannot be read"),
    ],
)
def test_what_is_said(code: str, changes: dict[str, Any], status: str, said: str) -> None:
    one = found(code, box(**changes))
    assert one.status == status, one
    assert said in one.seen


def test_many_faults_are_told_shortly() -> None:
    faults = [Fault("xid", f"0000:{bus:02x}:00", code) for bus in range(16) for code in (79, 119, 120)]
    seen = found("xid", box(faults=tuple(faults))).seen
    assert "and 45 more kinds" in seen
    assert len(seen) < 250


def test_a_machine_for_the_cpu_needs_less_shared_memory() -> None:
    assert found("shm", bare(memory=Memory(8 * 2**30, 4 * 2**30))).status == "PASS"


def test_who_may_not_read_the_kernel_log_is_told_how() -> None:
    assert "sudo" in (found("xid", box(faults=Unseen("denied"))).next_step or "")
