"""Every GPU, and all of them against the profile."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.gpu.preflight.machines import HARDWARE, UUIDS, box, found, nvml, one_of, reading

from vaultcube.gpu.preflight.facts import Asked, Holders, Nvml, Unseen
from vaultcube.gpu.selection import GpuRequest


def odd(index: int, **changes: Any) -> dict[str, Any]:
    """Return a box where the sensors of one GPU say something else."""
    return {"nvml": one_of(nvml(), index, reading(**changes))}


def told(**changes: Any) -> dict[str, Any]:
    """Return a box whose GPUs are all of another make."""
    return {"nvml": nvml(**changes)}


ECC = one_of(nvml(ecc=True, now=reading(ecc_uncorrected=0)), 0)
ADA: dict[str, Any] = {
    "name": "NVIDIA GeForce RTX 4090",
    "compute_capability": "8.9",
    "memory_total_bytes": 24564 * 2**20,
}


@pytest.mark.parametrize(
    ("code", "changes", "status", "said"),
    [
        ("pcie-link", {}, "PASS", "GPUs 0-3: x16"),
        ("pcie-link", odd(2, pcie_width=4), "FAIL", "GPU 2: x4 of x16"),
        ("pcie-link", odd(2, pcie_width=8), "WARN", "GPU 2: x8 of x16"),
        ("pcie-link", odd(2, pcie_width=16, pcie_gen=1), "PASS", "x16"),
        ("pcie-link", {"nvml": nvml(now=reading(pcie_width=1))}, "FAIL", "GPUs 0-3: x1 of x16"),
        ("pcie-link", {"nvml": nvml(now=reading(pcie_width=None))}, "UNAVAILABLE", "does not tell"),
        ("temperature", {}, "PASS", "34 C, 56 below its limit"),
        ("temperature", odd(1, temperature_c=81, temperature_margin_c=9), "WARN", "GPU 1: 81 C, 9 below its limit"),
        ("temperature", odd(1, temperature_c=90, temperature_margin_c=0), "FAIL", "GPU 1: 90 C, at its limit"),
        ("temperature", odd(1, clock_events=0x20), "FAIL", "GPU 1: slowed down by heat now"),
        ("temperature", odd(1, temperature_margin_c=None), "PASS", "56 below"),
        (
            "temperature",
            {"nvml": nvml(now=reading(temperature_margin_c=None), temperature_limit_c=None)},
            "UNAVAILABLE",
            "no card tells its temperature limit",
        ),
        ("slowdown", {}, "PASS", "no card"),
        ("slowdown", odd(3, clock_events=0x88), "WARN", "GPU 3: hardware slowdown, power brake"),
        ("slowdown", odd(3, clock_events=0x4), "PASS", "no card"),
        ("slowdown", {"nvml": nvml(now=reading(clock_events=None))}, "UNAVAILABLE", "does not tell"),
        ("ecc", {}, "UNAVAILABLE", "GeForce"),
        ("ecc", {"nvml": ECC}, "PASS", "GPUs 0-3: on, no uncorrected errors"),
        ("ecc", {"nvml": one_of(ECC, 2, reading(ecc_uncorrected=3))}, "FAIL", "GPU 2: 3 uncorrected errors"),
        ("ecc", {"nvml": one_of(ECC, 2, ecc=False)}, "WARN", "GPU 2: ECC is off"),
        ("mig", {}, "PASS", "no MIG"),
        ("mig", told(mig=False), "PASS", "whole GPUs"),
        ("mig", {"nvml": one_of(nvml(mig=False), 1, mig=True)}, "FAIL", "GPU 1: MIG is on"),
        ("persistence", {}, "PASS", "on"),
        ("persistence", told(persistence=False), "WARN", "GPUs 0-3: off"),
        ("persistence", told(persistence=None), "UNAVAILABLE", "does not tell"),
        ("gpu-processes", {}, "PASS", "nobody"),
        (
            "gpu-processes",
            {"holders": Holders(((UUIDS[1], ("run ddp-1 (container x)", "process 7 (python3)")),))},
            "WARN",
            "GPU 1: run ddp-1 (container x), process 7 (python3)",
        ),
        ("gpu-processes", {"holders": Holders((), ("no engine answers",))}, "UNAVAILABLE", "no engine answers"),
        ("gpu-processes", {"holders": Unseen("dark")}, "UNAVAILABLE", "dark"),
    ],
)
def test_what_is_said(code: str, changes: dict[str, Any], status: str, said: str) -> None:
    one = found(code, box(**changes))
    assert one.status == status, one
    assert said in one.seen


def expecting(seen: Nvml, request: GpuRequest | None = None, **changes: Any) -> tuple[str, str]:
    asked = Asked(request or GpuRequest("auto"), hardware=HARDWARE, profile="vault-cube-5090")._replace(**changes)
    one = found("gpu-count", box(nvml=seen, asked=asked))
    return one.status, one.seen


def test_the_profiles_box() -> None:
    status, seen = expecting(nvml())
    assert (status, seen) == ("PASS", "4 x NVIDIA GeForce RTX 5090 (32607 MiB, 12.0), as in profile vault-cube-5090")


def test_a_box_of_these_cards_that_lacks_one() -> None:
    status, seen = expecting(nvml(3))
    assert status == "FAIL"
    assert "3 x NVIDIA GeForce RTX 5090" in seen
    assert "expects 4 x NVIDIA GeForce RTX 5090" in seen


def test_a_box_with_one_wrong_card() -> None:
    status, seen = expecting(one_of(nvml(), 2, **ADA))
    assert status == "FAIL"
    assert "1 x NVIDIA GeForce RTX 4090" in seen
    assert expecting(one_of(nvml(), 2, memory_total_bytes=24 * 2**30))[0] == "FAIL"


def test_another_machine_is_only_wrong_when_the_user_said_what_it_is() -> None:
    assert expecting(nvml(2, **ADA))[0] == "WARN"
    assert expecting(nvml(2, **ADA), claimed=True)[0] == "FAIL"
    assert expecting(nvml(16))[0] == "WARN"
    assert expecting(nvml(16), claimed=True)[0] == "FAIL"


def test_of_some_chosen_gpus_only_the_kind_is_judged() -> None:
    two = GpuRequest("count", count=2)
    assert expecting(nvml(), two, uuids=UUIDS[:2]) == (
        "PASS",
        "2 x NVIDIA GeForce RTX 5090 (32607 MiB, 12.0), as in profile vault-cube-5090",
    )
    assert expecting(nvml(2, **ADA), two, claimed=True)[0] == "FAIL"


def test_fewer_than_were_asked_for() -> None:
    assert expecting(nvml(), short="--gpus 9: only 4 GPU(s) are here") == ("FAIL", "--gpus 9: only 4 GPU(s) are here")


def test_a_profile_without_hardware_has_nothing_to_say() -> None:
    assert expecting(nvml(), hardware=None)[0] == "PASS"


def test_gpus_that_were_not_chosen_are_not_looked_at() -> None:
    facts = box(**odd(2, pcie_width=4), asked=Asked(uuids=UUIDS[:2]))
    assert found("pcie-link", facts).seen == "GPUs 0-1: x16"
