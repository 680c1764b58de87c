"""The local fact vaultcube: what it tells of a PCI bus. The bus is a folder as sysfs lays it out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.support import ROOT

FACT = ROOT / "ansible/roles/hardware_fact/files/vaultcube.fact"
RTX_5090, RTX_4090, B200, RTX_PRO_6000 = "0x2b85", "0x2684", "0x2901", "0x2bb1"


def device(sysfs: Path, address: str, vendor: str, kind: str, number: str) -> None:
    folder = sysfs / "bus/pci/devices" / address
    folder.mkdir(parents=True)
    for name, value in (("vendor", vendor), ("class", kind), ("device", number)):
        (folder / name).write_text(f"{value}\n")


def tell(sysfs: Path, pinned: Path | None = None) -> dict[str, object]:
    env = {**os.environ, "VAULTCUBE_SYSFS": str(sysfs), "VAULTCUBE_PINNED": str(pinned or sysfs / "none")}
    seen = subprocess.run([sys.executable, FACT], env=env, capture_output=True, text=True, check=True)
    told: dict[str, object] = json.loads(seen.stdout)
    return told


def test_four_cards_in_the_order_of_their_addresses(tmp_path: Path) -> None:
    for slot in ("c1", "01", "81", "41"):
        device(tmp_path, f"0000:{slot}:00.0", "0x10de", "0x030000", RTX_5090)
        device(tmp_path, f"0000:{slot}:00.1", "0x10de", "0x040300", "0x22e8")  # its audio device
    told = tell(tmp_path)
    assert told["gpu_hardware_present"] is True
    assert [card["pci"][5:7] for card in told["gpus"]] == ["01", "41", "81", "c1"]  # type: ignore[attr-defined]


def test_graphics_of_others_is_no_gpu(tmp_path: Path) -> None:
    device(tmp_path, "0000:c5:00.0", "0x1a03", "0x030000", "0x2000")
    assert tell(tmp_path) == {"schema": 1, "gpu_hardware_present": False, "gpus": [], "pinned": {}}


def test_a_machine_without_a_pci_bus(tmp_path: Path) -> None:
    assert tell(tmp_path)["gpu_hardware_present"] is False


@pytest.mark.parametrize(
    ("number", "blackwell"),
    [(RTX_5090, True), (RTX_PRO_6000, True), (B200, True), (RTX_4090, False), ("0x2330", False)],
)
def test_blackwell_is_known_by_its_number(tmp_path: Path, number: str, blackwell: bool) -> None:  # noqa: FBT001
    # 3D controllers (0x0302) have no display, and are GPUs.
    device(tmp_path, "0000:01:00.0", "0x10de", "0x030200", number)
    assert [card["blackwell"] for card in tell(tmp_path)["gpus"]] == [blackwell]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("text", "pins"), [('{"driver_branch": "580"}', {"driver_branch": "580"}), ("{broken", {})])
def test_pins_come_from_their_file(tmp_path: Path, text: str, pins: dict[str, str]) -> None:
    (tmp_path / "versions.json").write_text(text)
    assert tell(tmp_path, tmp_path / "versions.json")["pinned"] == pins
