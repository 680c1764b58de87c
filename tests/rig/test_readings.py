"""Every reading of the scenario comes out of nvidia-ml-py as it went in, as unsupported, or as its own error."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.rig import fields
from tests.rig.build import SOURCES
from tests.rig.inside import Inside

NOT_SUPPORTED, NO_PERMISSION = 3, 4

# What nvidia-ml-py calls it, for the readings that are one number each.
CALLS = {
    "minor": "p.nvmlDeviceGetMinorNumber(h[0])",
    "board_id": "p.nvmlDeviceGetBoardId(h[0])",
    "multi_gpu_board": "p.nvmlDeviceGetMultiGpuBoard(h[0])",
    "brand": "p.nvmlDeviceGetBrand(h[0])",
    "architecture": "p.nvmlDeviceGetArchitecture(h[0])",
    "cc_major": "p.nvmlDeviceGetCudaComputeCapability(h[0])[0]",
    "cores": "p.nvmlDeviceGetNumGpuCores(h[0])",
    "bus_width_bits": "p.nvmlDeviceGetMemoryBusWidth(h[0])",
    "memory_total_bytes": "p.nvmlDeviceGetMemoryInfo(h[0]).total",
    "memory_used_bytes": "p.nvmlDeviceGetMemoryInfo(h[0], p.nvmlMemory_v2).used",
    "bar1_total_bytes": "p.nvmlDeviceGetBAR1MemoryInfo(h[0]).bar1Total",
    "util_gpu": "p.nvmlDeviceGetUtilizationRates(h[0]).gpu",
    "util_encoder": "p.nvmlDeviceGetEncoderUtilization(h[0])[0]",
    "util_decoder": "p.nvmlDeviceGetDecoderUtilization(h[0])[0]",
    "power_mw": "p.nvmlDeviceGetPowerUsage(h[0])",
    "power_limit_mw": "p.nvmlDeviceGetEnforcedPowerLimit(h[0])",
    "power_default_mw": "p.nvmlDeviceGetPowerManagementDefaultLimit(h[0])",
    "power_min_mw": "p.nvmlDeviceGetPowerManagementLimitConstraints(h[0])[0]",
    "power_max_mw": "p.nvmlDeviceGetPowerManagementLimitConstraints(h[0])[1]",
    "temperature_c": "p.nvmlDeviceGetTemperature(h[0], p.NVML_TEMPERATURE_GPU)",
    "threshold_shutdown_c": "p.nvmlDeviceGetTemperatureThreshold(h[0], p.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN)",
    "threshold_slowdown_c": "p.nvmlDeviceGetTemperatureThreshold(h[0], p.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)",
    "threshold_memory_max_c": "p.nvmlDeviceGetTemperatureThreshold(h[0], p.NVML_TEMPERATURE_THRESHOLD_MEM_MAX)",
    "threshold_gpu_max_c": "p.nvmlDeviceGetTemperatureThreshold(h[0], p.NVML_TEMPERATURE_THRESHOLD_GPU_MAX)",
    "fan_percent": "p.nvmlDeviceGetFanSpeed(h[0])",
    "fans": "p.nvmlDeviceGetNumFans(h[0])",
    "pstate": "p.nvmlDeviceGetPerformanceState(h[0])",
    "reasons": "p.nvmlDeviceGetCurrentClocksEventReasons(h[0])",
    "reasons_supported": "p.nvmlDeviceGetSupportedClocksEventReasons(h[0])",
    "violation_sync_boost_ns": "p.nvmlDeviceGetViolationStatus(h[0], 2).violationTime",
    "clock_graphics_mhz": "p.nvmlDeviceGetClockInfo(h[0], p.NVML_CLOCK_GRAPHICS)",
    "clock_sm_mhz": "p.nvmlDeviceGetClock(h[0], p.NVML_CLOCK_SM, p.NVML_CLOCK_ID_CURRENT)",
    "clock_memory_mhz": "p.nvmlDeviceGetClockInfo(h[0], p.NVML_CLOCK_MEM)",
    "clock_video_mhz": "p.nvmlDeviceGetClockInfo(h[0], p.NVML_CLOCK_VIDEO)",
    "clock_max_graphics_mhz": "p.nvmlDeviceGetMaxClockInfo(h[0], p.NVML_CLOCK_GRAPHICS)",
    "clock_max_sm_mhz": "p.nvmlDeviceGetMaxClockInfo(h[0], p.NVML_CLOCK_SM)",
    "clock_max_memory_mhz": "p.nvmlDeviceGetMaxClockInfo(h[0], p.NVML_CLOCK_MEM)",
    "clock_max_video_mhz": "p.nvmlDeviceGetMaxClockInfo(h[0], p.NVML_CLOCK_VIDEO)",
    "clock_boost_mhz": "p.nvmlDeviceGetMaxCustomerBoostClock(h[0], p.NVML_CLOCK_SM)",
    "clock_application_mhz": "p.nvmlDeviceGetApplicationsClock(h[0], p.NVML_CLOCK_GRAPHICS)",
    "clock_application_memory_mhz": "p.nvmlDeviceGetDefaultApplicationsClock(h[0], p.NVML_CLOCK_MEM)",
    "pcie_gen": "p.nvmlDeviceGetCurrPcieLinkGeneration(h[0])",
    "pcie_width": "p.nvmlDeviceGetCurrPcieLinkWidth(h[0])",
    "pcie_gen_max": "p.nvmlDeviceGetMaxPcieLinkGeneration(h[0])",
    "pcie_width_max": "p.nvmlDeviceGetMaxPcieLinkWidth(h[0])",
    "pcie_gen_device": "p.nvmlDeviceGetGpuMaxPcieLinkGeneration(h[0])",
    "pcie_replay": "p.nvmlDeviceGetPcieReplayCounter(h[0])",
    "pcie_tx_kb_per_s": "p.nvmlDeviceGetPcieThroughput(h[0], p.NVML_PCIE_UTIL_TX_BYTES)",
    "pcie_rx_kb_per_s": "p.nvmlDeviceGetPcieThroughput(h[0], p.NVML_PCIE_UTIL_RX_BYTES)",
    "persistence": "p.nvmlDeviceGetPersistenceMode(h[0])",
    "compute_mode": "p.nvmlDeviceGetComputeMode(h[0])",
    "display_mode": "p.nvmlDeviceGetDisplayMode(h[0])",
    "display_active": "p.nvmlDeviceGetDisplayActive(h[0])",
    "ecc_mode": "p.nvmlDeviceGetEccMode(h[0])[0]",
    "ecc_corrected": "p.nvmlDeviceGetTotalEccErrors(h[0], 0, 0)",
    "ecc_uncorrected": "p.nvmlDeviceGetTotalEccErrors(h[0], 1, 0)",
    "ecc_corrected_total": "p.nvmlDeviceGetTotalEccErrors(h[0], 0, 1)",
    "ecc_uncorrected_total": "p.nvmlDeviceGetMemoryErrorCounter(h[0], 1, 1, p.NVML_MEMORY_LOCATION_DRAM)",
    "remapped_corrected": "p.nvmlDeviceGetRemappedRows(h[0])[0]",
    "mig_mode": "p.nvmlDeviceGetMigMode(h[0])[0]",
    "numa_node": "p.nvmlDeviceGetNumaNodeId(h[0])",
    "gsp_mode": "p.nvmlDeviceGetGspFirmwareMode(h[0])[0]",
    "event_types": "p.nvmlDeviceGetSupportedEventTypes(h[0])",
    "nvlink_version": "p.nvmlDeviceGetNvLinkVersion(h[0], 0)",
}
TEXTS = {
    "name": "p.nvmlDeviceGetName(h[0])",
    "uuid": "p.nvmlDeviceGetUUID(h[0])",
    "bus_id": "p.nvmlDeviceGetPciInfo(h[0]).busId",
    "serial": "p.nvmlDeviceGetSerial(h[0])",
    "vbios": "p.nvmlDeviceGetVbiosVersion(h[0])",
    "gsp_version": "p.nvmlDeviceGetGspFirmwareVersion(h[0])",
    "part_number": "p.nvmlDeviceGetBoardPartNumber(h[0])",
}
# Two readings that one call gives: the call has the status of the first.
TOGETHER = {"nvlink_version": "nvlinks", "ecc_mode": "ecc_pending", "mig_mode": "mig_pending"}


@pytest.fixture
def readings(inside: Inside) -> Inside:
    """Return a box whose first GPU has all that this file asks for, each with a value of its own."""
    numbers = {key: 11 + at for at, key in enumerate(CALLS)}
    room: dict[str, Any] = {"memory_total_bytes": 1 << 40, "bar1_total_bytes": 1 << 20, "nvlinks": 18, "ecc_pending": 1}
    inside.box.set_gpu(0, **{**numbers, **room, "mig_pending": 1, "memory_reserved_bytes": 0})
    inside.wait(CALLS["minor"], lambda seen: seen == numbers["minor"])
    return inside


def test_every_number_comes_out_as_it_went_in(readings: Inside) -> None:
    wanted = readings.box.read().gpus[0].values
    seen = {key: readings(call) for key, call in CALLS.items()}

    assert seen == {key: wanted[key] for key in CALLS}


def test_every_text_comes_out_as_it_went_in(readings: Inside) -> None:
    wanted = {key: f"{key} 0" for key in TEXTS} | {"bus_id": "00000000:0A:00.0"}
    readings.box.set_gpu(0, **wanted)
    readings.wait(TEXTS["name"], lambda seen: seen == "name 0")

    assert {key: readings(call) for key, call in TEXTS.items()} == wanted


@pytest.mark.parametrize(("word", "code"), [("unsupported", NOT_SUPPORTED), ("permission", NO_PERMISSION)])
def test_a_reading_fails_alone(readings: Inside, word: str, code: int) -> None:
    calls = {**CALLS, **{key: call for key, call in TEXTS.items() if key != "uuid"}}
    readings.box.set_gpu(0, **{TOGETHER.get(key, key): word for key in calls})
    readings.wait_error(CALLS["minor"], code)

    assert {key: readings.error(call) for key, call in calls.items()} == dict.fromkeys(calls, code)


def test_a_reading_that_is_left_out_is_not_supported(inside: Inside) -> None:
    inside.box.set_gpu(0, power_mw=None)

    inside.wait_error(CALLS["power_mw"], NOT_SUPPORTED)
    assert inside.error(CALLS["temperature_c"]) == 0


def test_the_two_versions_of_memory_differ_in_what_is_reserved(inside: Inside) -> None:
    old, new = inside("p.nvmlDeviceGetMemoryInfo(h[0])"), inside("p.nvmlDeviceGetMemoryInfo(h[0], p.nvmlMemory_v2)")

    assert old["used"] == new["used"] + new["reserved"]
    assert old["total"] == old["free"] + old["used"] == new["free"] + new["used"] + new["reserved"]


def test_memory_never_exceeds_what_there_is(inside: Inside) -> None:
    inside.box.add_process(0, 4242, 1 << 45)

    found = inside.wait("p.nvmlDeviceGetMemoryInfo(h[0])", lambda seen: seen["free"] == 0)
    assert found["used"] == found["total"]


def test_the_temperature_of_both_calls_is_one(inside: Inside) -> None:
    assert inside("p.nvmlDeviceGetTemperatureV(h[0], 0)") == inside("p.nvmlDeviceGetTemperature(h[0], 0)") == 31
    assert inside("p.nvmlDeviceGetMarginTemperature(h[0])") == 90 - 31


def test_a_structure_of_another_version_is_refused(inside: Inside) -> None:
    assert inside.error("p.nvmlDeviceGetMemoryInfo(h[0], 0x03000028)") == 25


def test_fans_are_counted(inside: Inside) -> None:
    inside.box.set_gpu(0, fan_percent=40)

    inside.wait("p.nvmlDeviceGetFanSpeed_v2(h[0], 1)", lambda seen: seen == 40)
    assert inside.error("p.nvmlDeviceGetFanSpeed_v2(h[0], 2)") == 2


def test_calls_that_no_profile_supports_say_so(inside: Inside) -> None:
    for call in ("nvmlDeviceGetAccountingMode", "nvmlDeviceGetRetiredPagesPendingStatus"):
        assert inside.error(f"p.{call}(h[0])") == NOT_SUPPORTED


def test_a_call_that_the_mock_lacks_is_not_found(inside: Inside) -> None:
    assert inside.error("p.nvmlDeviceGetPowerSource(h[0])") == 13


def test_both_sides_know_the_same_readings() -> None:
    header = (SOURCES / "rig.h").read_text()
    for macro, wanted in {
        "GPU_NUMBERS": fields.GPU_NUMBERS,
        "GPU_TEXTS": fields.GPU_TEXTS,
        "SYSTEM_NUMBERS": fields.SYSTEM_NUMBERS,
        "SYSTEM_TEXTS": fields.SYSTEM_TEXTS,
    }.items():
        block = header.partition(f"#define {macro}(X)")[2].partition("#define")[0]
        assert re.findall(r"X\((\w+)\)", block) == list(wanted), macro


def test_both_sides_know_the_same_words() -> None:
    block = (SOURCES / "scenario.c").read_text().partition("words[] = {")[2].partition("};")[0]
    assert re.findall(r'{"(\w+)"', block) == list(fields.ERRORS)
