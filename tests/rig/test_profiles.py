"""nvidia-ml-py reads every profile, and sees the hardware that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.rig.box import Box
from tests.rig.cards import MIB
from tests.rig.inside import Inside, enter, still_box
from tests.rig.profiles import LAYOUTS, scenario

NOT_SUPPORTED = 3
# Per profile: GPUs, name, MiB, compute capability, power limit in W, driver.
EXPECTED = {
    "4x5090": (4, "NVIDIA GeForce RTX 5090", 32607, [12, 0], 575, "580.95.05"),
    "16x5090": (16, "NVIDIA GeForce RTX 5090", 32607, [12, 0], 575, "580.95.05"),
    "8xh100": (8, "NVIDIA H100 80GB HBM3", 81559, [9, 0], 700, "570.133.20"),
    "2x4090": (2, "NVIDIA GeForce RTX 4090", 24564, [8, 9], 450, "550.90.07"),
    "1xold": (1, "NVIDIA GeForce GTX 1060 6GB", 6144, [6, 1], 120, "580.95.05"),
}


@pytest.mark.parametrize(("inside", "expected"), EXPECTED.items(), indirect=["inside"], ids=list(EXPECTED))
def test_a_profile_is_what_its_name_says(inside: Inside, expected: tuple[Any, ...]) -> None:
    count, name, mib, capability, watts, driver = expected
    assert inside("p.nvmlDeviceGetCount()") == count
    assert inside("p.nvmlSystemGetDriverVersion()") == driver
    for index in range(count):
        assert inside(f"p.nvmlDeviceGetName(h[{index}])") == name
        assert inside(f"p.nvmlDeviceGetMemoryInfo(h[{index}]).total") == mib * MIB
        assert inside(f"p.nvmlDeviceGetCudaComputeCapability(h[{index}])") == capability
        assert inside(f"p.nvmlDeviceGetEnforcedPowerLimit(h[{index}])") == watts * 1000
        assert inside(f"p.nvmlDeviceGetIndex(h[{index}])") == index
    assert len({inside(f"p.nvmlDeviceGetUUID(h[{index}])") for index in range(count)}) == count
    assert len({inside(f"p.nvmlDeviceGetPciInfo(h[{index}]).busId") for index in range(count)}) == count


@pytest.mark.parametrize("inside", ["none"], indirect=True)
def test_a_driver_without_a_gpu(inside: Inside) -> None:
    assert inside("p.nvmlDeviceGetCount()") == 0
    assert inside("p.nvmlSystemGetDriverVersion()") == "580.95.05"
    assert inside.error("p.nvmlDeviceGetHandleByIndex(0)") == 2


def test_versions(inside: Inside) -> None:
    assert inside("p.nvmlSystemGetCudaDriverVersion()") == 13000
    assert inside("p.nvmlSystemGetCudaDriverVersion_v2()") == 13000
    assert inside("p.nvmlSystemGetNVMLVersion()") == "13.580.95.05"


@pytest.mark.parametrize("inside", ["4x5090", "2x4090", "1xold"], indirect=True)
def test_geforce_has_no_ecc_no_memory_temperature_and_no_mig(inside: Inside) -> None:
    for call in (
        "nvmlDeviceGetEccMode(h[0])",
        "nvmlDeviceGetTotalEccErrors(h[0], 1, 0)",
        "nvmlDeviceGetRemappedRows(h[0])",
        "nvmlDeviceGetMigMode(h[0])",
        "nvmlDeviceGetNvLinkState(h[0], 0)",
        "nvmlDeviceGetSerial(h[0])",
        "nvmlDeviceGetMaxCustomerBoostClock(h[0], 1)",
    ):
        assert inside.error(f"p.{call}") == NOT_SUPPORTED, call
    assert inside("p.nvmlDeviceGetFieldValues(h[0], [82])[0].nvmlReturn") == NOT_SUPPORTED


@pytest.mark.parametrize("inside", ["8xh100"], indirect=True)
def test_a_data_centre_card_has_them(inside: Inside) -> None:
    assert inside("p.nvmlDeviceGetEccMode(h[0])") == [1, 1]
    assert inside("p.nvmlDeviceGetTotalEccErrors(h[7], 1, 0)") == 0
    assert inside("p.nvmlDeviceGetFieldValues(h[0], [82])[0].value.uiVal") == 38
    assert inside("p.nvmlDeviceGetMigMode(h[0])") == [0, 0]
    assert inside("p.nvmlDeviceGetSerial(h[3])") == "1654123000003"
    assert inside.error("p.nvmlDeviceGetFanSpeed(h[0])") == NOT_SUPPORTED


@pytest.mark.parametrize("inside", ["1xold"], indirect=True)
def test_an_old_card_lacks_what_came_later(inside: Inside) -> None:
    for call in ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetMarginTemperature"):
        assert inside.error(f"p.{call}(h[0])") == NOT_SUPPORTED
    statuses = inside("[one.nvmlReturn for one in p.nvmlDeviceGetFieldValues(h[0], [74, 94, 193, 269])]")
    assert statuses == [NOT_SUPPORTED] * 4
    assert inside("p.nvmlDeviceGetTemperatureThreshold(h[0], 0)") == 102
    assert inside("p.nvmlDeviceGetPcieReplayCounter(h[0])") == 0


def test_the_5090_idles_and_works_as_real_ones_do(inside: Inside) -> None:
    idle = {
        "power": inside("p.nvmlDeviceGetPowerUsage(h[0])"),
        "pstate": inside("p.nvmlDeviceGetPerformanceState(h[0])"),
        "gen": inside("p.nvmlDeviceGetCurrPcieLinkGeneration(h[0])"),
    }
    inside.box.load(0)

    inside.wait("p.nvmlDeviceGetPerformanceState(h[0])", lambda seen: seen == 0)
    assert idle == {"power": 12_000, "pstate": 8, "gen": 1}
    assert inside("p.nvmlDeviceGetPowerUsage(h[0])") == 556_000
    assert inside("p.nvmlDeviceGetCurrPcieLinkGeneration(h[0])") == 5
    assert inside("p.nvmlDeviceGetPerformanceState(h[1])") == 8
    assert inside("p.nvmlDeviceGetMaxClockInfo(h[0], p.NVML_CLOCK_MEM) * 2 * 512 / 8") == pytest.approx(
        1.792e6, rel=1e-3
    )


def test_uuids_are_the_same_in_every_box_of_a_profile(tmp_path: Path) -> None:
    one, other = Box(tmp_path / "one"), Box(tmp_path / "other")

    assert one.uuids == other.uuids
    assert not set(one.uuids) & set(Box(tmp_path / "third", "2x4090").uuids)


@pytest.mark.parametrize("profile", LAYOUTS)
def test_the_hosts_files_tell_of_the_same_machine(tmp_path: Path, profile: str) -> None:
    box = Box(tmp_path / "box", profile)
    root = tmp_path / "box/host"

    assert LAYOUTS[profile].driver in (root / "proc/driver/nvidia/version").read_text().splitlines()[0]
    found = {path.parent.name for path in root.glob("proc/driver/nvidia/gpus/*/information")}
    assert found == {gpu.text("bus_id")[4:].lower() for gpu in box.read().gpus}
    assert 'mode = "auto"' in (root / "etc/nvidia-container-runtime/config.toml").read_text()


def test_a_module_says_whether_it_is_the_open_one(tmp_path: Path) -> None:
    for profile, words in (
        ("4x5090", "Open Kernel Module for x86_64  580.95.05"),
        ("2x4090", "x86_64 Kernel Module  550"),
    ):
        Box(tmp_path / profile, profile)
        assert words in (tmp_path / profile / "host/proc/driver/nvidia/version").read_text()


def test_there_is_no_other_profile() -> None:
    with pytest.raises(ValueError, match="no profile is called 3x5080: there are 4x5090"):
        scenario("3x5080")


def test_without_a_box_there_is_no_driver(tmp_path: Path) -> None:
    box = still_box(tmp_path / "box")
    with enter(box, init=False, VAULTCUBE_RIG=str(tmp_path / "nowhere")) as inside:
        assert inside.error("p.nvmlInit()") == 9


def test_the_mock_says_that_it_is_one(inside: Inside) -> None:
    assert inside("ctypes.c_int.in_dll(p.nvmlLib, 'vaultcube_rig_simulated').value") == 1


def test_jitter_is_bounded_and_can_be_seen(tmp_path: Path) -> None:
    box = Box(tmp_path / "box")
    box.load(0)
    with enter(box) as inside:
        seen = {inside("p.nvmlDeviceGetPowerUsage(h[0])") for _ in range(50)}

    assert len(seen) > 1
    assert all(556_000 * 0.98 <= power <= 556_000 * 1.02 for power in seen)
