"""The driver: whether it runs, whether it fits the cards, whether it fits the images."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.gpu.preflight.machines import NO_LIBRARY, bare, box, found, nvml, one_of, reading

from vaultcube.gpu.preflight.facts import Asked, Driver, Facts, PciGpu, Unseen
from vaultcube.gpu.readings import Problem
from vaultcube.gpu.xid import Fault

NO_DRIVER = Unseen("NVML: Driver Not Loaded", "no-driver")
MISMATCH = Unseen("NVML: Driver/library version mismatch", "mismatch")
PERMISSION = Unseen("NVML: Insufficient Permissions", "permission")
UNKNOWN = Unseen("NVML: Unknown Error", "unknown")
LOST: tuple[int, Problem] = (2, "lost")
OPEN = Driver("580.95.05", open_modules=True)
CLOSED = Driver("580.95.05", open_modules=False)
ADA: dict[str, Any] = {"compute_capability": "8.9", "name": "NVIDIA GeForce RTX 4090"}
FAILED = (Fault("init-failed", "0000:01:00", text="RmInitAdapter failed! (0x22:0x56:884)"),)
UNLISTED: dict[str, Any] = {"nvml": nvml(0)}


@pytest.mark.parametrize(
    ("code", "changes", "status", "said", "step"),
    [
        ("driver", {}, "PASS", "driver 580.95.05, CUDA up to 13.0", ""),
        ("driver", {"nvml": NO_LIBRARY}, "FAIL", "4 NVIDIA GPU(s) on the PCI bus, and no driver is installed", "580"),
        ("driver", {"nvml": NO_DRIVER}, "FAIL", "kernel module is not loaded", "modprobe"),
        ("driver", {"nvml": NO_DRIVER, "secure_boot": True}, "FAIL", "is not loaded", "Secure Boot"),
        ("driver", {"nvml": NO_DRIVER, "nouveau": True}, "FAIL", "nouveau holds them", "nouveau"),
        ("driver", {"nvml": MISMATCH}, "FAIL", "updated under the running kernel module", "Reboot"),
        ("driver", {"nvml": PERMISSION}, "FAIL", "may not be opened by this user", "/dev/nvidia*"),
        ("driver", {"nvml": UNKNOWN}, "FAIL", "Unknown Error", "made|make it anew"),
        ("gpu-visibility", {}, "PASS", "4 on the PCI bus, and all answer", ""),
        (
            "gpu-visibility",
            {"nvml": nvml(3)._replace(missing=(LOST,))},
            "FAIL",
            "GPU 2 of 4: does not answer (lost)",
            "reboot",
        ),
        ("gpu-visibility", {"nvml": one_of(nvml(), 1, reading(problem="lost"))}, "FAIL", "GPU 1 stopped", "Reboot"),
        ("gpu-visibility", {"pci": Unseen("no bus")}, "PASS", "the PCI bus could not be looked at (no bus)", ""),
        ("gpu-visibility", {"nvml": nvml(3)}, "FAIL", "1 of 4 on the PCI bus are not in NVML: 0000:31:00.0", "4G"),
        ("gpu-visibility", UNLISTED, "FAIL", "4 of 4 on the PCI bus", "Above 4G Decoding"),
        ("gpu-visibility", {**UNLISTED, "faults": FAILED}, "FAIL", "4 of 4", "RmInitAdapter"),
        ("gpu-visibility", {**UNLISTED, "driver": CLOSED}, "FAIL", "4 of 4", "open kernel modules"),
        ("gpu-visibility", {"nvml": MISMATCH}, "UNAVAILABLE", "see driver", ""),
        ("driver-generation", {}, "PASS", "open modules, for NVIDIA GeForce RTX 5090", ""),
        ("driver-generation", {"driver": CLOSED}, "FAIL", "proprietary modules", "open kernel modules"),
        ("driver-generation", {"nvml": nvml(driver="570.86.15")}, "FAIL", "older than 570.86.16", "580"),
        ("driver-generation", {"nvml": nvml(driver="570.86.16")}, "PASS", "570.86.16", ""),
        (
            "driver-generation",
            {"nvml": nvml(driver="550.127.05", **ADA), "driver": CLOSED},
            "FAIL",
            "Blackwell card",
            "",
        ),
        (
            "driver-generation",
            {"nvml": nvml(driver="550.127.05", **ADA), "driver": CLOSED, "pci": (PciGpu("0000:01:00.0", 0x2684),)},
            "PASS",
            "proprietary modules; no card here needs a newer one",
            "",
        ),
        ("driver-generation", {**UNLISTED, "driver": CLOSED}, "FAIL", "the Blackwell card at 0000:01:00.0", "open"),
        ("driver-generation", {"driver": Unseen("hidden")}, "UNAVAILABLE", "which modules it has cannot be seen", ""),
        ("driver-generation", {"nvml": NO_LIBRARY, "driver": Unseen("x")}, "UNAVAILABLE", "see driver", ""),
        # It is loaded, and NVML does not answer: the module itself says enough.
        ("driver-generation", {"nvml": UNKNOWN, "driver": CLOSED}, "FAIL", "proprietary modules", "open"),
        ("driver-flavour", {}, "PASS", "driver 580.95.05 for cu128, which asks for 570", ""),
        ("driver-flavour", {"nvml": nvml(driver="550.54.14", **ADA)}, "PASS", "cu124, which asks for 550.54.14", ""),
        ("driver-flavour", {"nvml": nvml(driver="550.54.13", **ADA)}, "WARN", "minor-version compatibility", "580"),
        ("driver-flavour", {"nvml": nvml(driver="525.60.13", **ADA)}, "WARN", "minor-version compatibility", "580"),
        ("driver-flavour", {"nvml": nvml(driver="470.256.02", **ADA)}, "FAIL", "too old for cu124", "550.54.14"),
        ("driver-flavour", {"asked": Asked(flavour="cu124")}, "UNAVAILABLE", "see flavour", ""),
        ("driver-flavour", {"nvml": MISMATCH}, "UNAVAILABLE", "see driver", ""),
        ("flavour", {}, "PASS", "flavour cu128: NVIDIA GeForce RTX 5090 has compute capability 12.0", ""),
        ("flavour", {"asked": Asked(flavour="cu124")}, "FAIL", "cu124 has no kernels for GPU 0", "cu128"),
        ("flavour", {"nvml": nvml(compute_capability="3.5")}, "FAIL", "no kernels", "No flavour"),
        ("flavour", UNLISTED, "UNAVAILABLE", "see gpu-visibility", ""),
        ("nouveau", {}, "PASS", "not loaded", ""),
        ("nouveau", {"nouveau": True}, "WARN", "beside the driver", "Blacklist"),
        ("nouveau", {"nouveau": True, "nvml": NO_DRIVER}, "FAIL", "holds cards", "Blacklist"),
    ],
)
def test_what_is_said(code: str, changes: dict[str, Any], status: str, said: str, step: str) -> None:
    one = found(code, box(**changes))
    assert one.status == status, one
    assert said in one.seen
    assert any(word in (one.next_step or "") for word in step.split("|"))


def test_without_sight_of_the_bus_a_library_without_its_module_is_a_sign_of_gpus() -> None:
    assert found("driver", bare(nvml=NO_DRIVER, pci=Unseen("no bus"))).status == "FAIL"
    assert found("driver", bare(nvml=NO_LIBRARY, pci=Unseen("no bus"))).status == "UNAVAILABLE"
    # A library that came with other packages, on a machine without a card.
    assert found("driver", bare(nvml=NO_DRIVER)).seen == "no NVIDIA GPU on this machine"


def test_a_driver_without_gpus_is_no_fault() -> None:
    facts: Facts = bare(nvml=nvml(0))
    assert {found(code, facts).seen for code in ("driver", "gpu-visibility", "pcie-link", "flavour")} == {
        "no NVIDIA GPU on this machine"
    }


def test_addresses_are_compared_in_one_spelling() -> None:
    # NVML: 00000000:C1:00.0; the kernel: 0000:c1:00.0.
    whole = one_of(nvml(1), 0, pci_bus_id="00000000:C1:00.0")
    pci = (PciGpu("0000:c1:00.0", 0x2B85), PciGpu("0000:01:00.0", 0x2B85))
    assert found("gpu-visibility", box(nvml=whole, pci=pci)).seen.endswith(": 0000:01:00.0")
    odd = (*pci, PciGpu("not an address", 0x2B85))
    assert "not an address" in found("gpu-visibility", box(nvml=whole, pci=odd)).seen
