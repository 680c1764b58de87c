"""Every fault of the box shows through nvidia-ml-py, and heals."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.rig.box import Box
from tests.rig.inside import Inside, enter, still_box

LOST, MISMATCH, PERMISSION, UNKNOWN = 15, 18, 4, 999
POWER = "p.nvmlDeviceGetPowerUsage(h[{}])"
REASONS = "p.nvmlDeviceGetCurrentClocksEventReasons(h[{}])"
FIELD = "[one.value.ullVal for one in p.nvmlDeviceGetFieldValues(h[{}], [{}])][0]"


def kernel_log(box: Box) -> list[str]:
    """The messages since the driver was loaded."""
    records = [line for line in box.kmsg_path.read_text().splitlines() if not line.startswith(" ")]
    return [record.partition(";")[2] for record in records][5:]


def test_a_lost_gpu_answers_nothing_and_the_others_do(inside: Inside) -> None:
    inside("[p.nvmlDeviceGetName(h[index]) for index in range(4)]")
    inside.box.lose(2)

    inside.wait_error(POWER.format(2), LOST)
    for call in ("Name", "UUID", "MemoryInfo", "PciInfo", "ComputeRunningProcesses", "Index"):
        assert inside.error(f"p.nvmlDeviceGet{call}(h[2])") == LOST
    assert inside.error("p.nvmlDeviceGetFieldValues(h[2], [74])") == LOST
    assert inside.error("p.nvmlDeviceGetHandleByIndex(2)") == LOST
    assert inside.error("p.nvmlDeviceGetTopologyCommonAncestor(h[0], h[2])") == LOST
    assert inside("p.nvmlDeviceGetCount()") == 4
    assert [inside.error(POWER.format(index)) for index in (0, 1, 3)] == [0, 0, 0]


def test_a_gpu_lost_before_is_an_unknown_error_to_whoever_starts_now(inside: Inside) -> None:
    inside.box.lose(2)
    with enter(inside.box) as later:
        assert later("p.nvmlDeviceGetCount()") == 4
        assert later.error("p.nvmlDeviceGetHandleByIndex(2)") == UNKNOWN
        assert later.error(f"p.nvmlDeviceGetHandleByUUID({later.box.uuids[2].encode()!r})") == UNKNOWN
        assert later.error("p.nvmlDeviceGetHandleByIndex(3)") == 0


def test_the_kernel_log_of_a_lost_gpu(tmp_path: Path) -> None:
    box = Box(tmp_path / "box")
    box.lose(1)

    assert kernel_log(box)[0] == f"NVRM: GPU at PCI:0000:41:00: {box.uuids[1]}"
    assert "NVRM: Xid (PCI:0000:41:00): 79, GPU has fallen off the bus." in kernel_log(box)
    assert [event.xid for event in box.read().events] == [79]


def test_a_gpu_can_be_lost_without_an_xid(tmp_path: Path) -> None:
    box = Box(tmp_path / "box")
    box.lose(1, xid=False)

    (message,) = kernel_log(box)
    assert "Xid" not in message
    assert message.split("\\x0a")[-1] == "NVRM: fallen off the bus and is not responding to commands."
    assert not box.read().events


def test_a_new_process_meets_the_driver_that_was_updated(inside: Inside) -> None:
    inside.box.driver_mismatch()
    with enter(inside.box, init=False) as later:
        assert later.error("p.nvmlInit()") == MISMATCH
    assert inside.error(POWER.format(0)) == 0


def test_a_running_process_meets_it_too_if_asked_for(inside: Inside) -> None:
    inside.box.driver_mismatch(running=True)

    inside.wait_error(POWER.format(0), MISMATCH)
    assert inside.error("p.nvmlDeviceGetCount()") == MISMATCH
    inside.box.heal()
    inside.wait_error(POWER.format(0), 0)


def test_a_driver_that_refuses_this_user(inside: Inside) -> None:
    inside.box.permission_denied(running=True)

    inside.wait_error(POWER.format(0), PERMISSION)
    with enter(inside.box, init=False) as later:
        assert later.error("p.nvmlInit()") == PERMISSION


def test_thermal_slowdown(inside: Inside) -> None:
    inside.box.thermal_slowdown(0)

    assert inside.wait(REASONS.format(0), lambda seen: seen & 0x68 == 0x68) & 0x80 == 0
    assert inside("p.nvmlDeviceGetMarginTemperature(h[0])") < 0
    assert inside("p.nvmlDeviceGetClockInfo(h[0], 1)") < 1500
    assert inside.wait(FIELD.format(0, 269), lambda seen: seen > 0)
    assert inside.wait(FIELD.format(0, 270), lambda seen: seen > 0)
    assert inside(FIELD.format(0, 271)) == 0


def test_power_brake(inside: Inside) -> None:
    inside.box.power_brake(1)

    inside.wait(REASONS.format(1), lambda seen: seen & 0x88 == 0x88)
    assert inside.wait(FIELD.format(1, 271), lambda seen: seen > 0)
    assert inside(FIELD.format(1, 270)) == 0


def test_a_hot_card_is_below_its_limit_and_not_slower(inside: Inside) -> None:
    inside.box.load(0)
    inside.box.hot(0)

    inside.wait("p.nvmlDeviceGetMarginTemperature(h[0])", lambda seen: seen == 1)
    assert inside(REASONS.format(0)) & 0xE8 == 0


def test_fewer_lanes(inside: Inside) -> None:
    inside.box.pcie_width(3, 4)

    inside.wait("p.nvmlDeviceGetCurrPcieLinkWidth(h[3])", lambda seen: seen == 4)
    assert inside("p.nvmlDeviceGetMaxPcieLinkWidth(h[3])") == 16


def test_an_older_generation(inside: Inside) -> None:
    inside.box.pcie_gen(3, 3)

    inside.wait("p.nvmlDeviceGetMaxPcieLinkGeneration(h[3])", lambda seen: seen == 3)
    assert inside("p.nvmlDeviceGetGpuMaxPcieLinkGeneration(h[3])") == 5


def test_replays_grow_by_themselves(inside: Inside) -> None:
    inside.box.replay_growth(0, 200)

    first = inside.wait("p.nvmlDeviceGetPcieReplayCounter(h[0])", lambda seen: seen > 0)
    inside.wait(FIELD.format(0, 94), lambda seen: seen > first)
    assert inside("p.nvmlDeviceGetPcieReplayCounter(h[1])") == 0


def test_the_energy_counter_follows_the_power(inside: Inside) -> None:
    energy = "(p.nvmlDeviceGetTotalEnergyConsumption(h[0]), __import__('time').monotonic())"
    inside.box.load(0)
    inside.wait(POWER.format(0), lambda seen: seen == 556_000)
    before, at = inside(energy)
    after, then = inside.wait(energy, lambda seen: seen[1] > at + 0.3)

    assert (after - before) / 1000 / (then - at) == pytest.approx(556, rel=0.02)


def test_no_counter_steps_back_when_something_changes(inside: Inside) -> None:
    calls = ["p.nvmlDeviceGetTotalEnergyConsumption(h[0])", FIELD.format(0, 74), FIELD.format(0, 94)]
    inside.box.replay_growth(0, 50)
    seen = []
    for turn in range(6):
        (inside.box.idle if turn % 2 else inside.box.load)(0)
        seen.append([inside(call) for call in calls])

    assert all(earlier <= later for one, other in pairwise(seen) for earlier, later in zip(one, other, strict=True))


def test_the_energy_counter_begins_again(inside: Inside) -> None:
    before = inside("p.nvmlDeviceGetTotalEnergyConsumption(h[0])")
    inside.box.energy_reset(0)

    assert inside.wait("p.nvmlDeviceGetTotalEnergyConsumption(h[0])", lambda seen: seen < before) < 1000


def test_an_aer_storm_names_the_port(tmp_path: Path) -> None:
    box = Box(tmp_path / "box")
    box.aer_storm(1, 500)

    reports = [line for line in kernel_log(box) if "AER:" in line]
    assert reports == ["pcieport 0000:40:01.1: AER: Corrected error received: 0000:41:00.0"] * 500


@pytest.mark.parametrize(("log", "event"), [(True, False), (False, True), (True, True)])
def test_log_and_events_can_each_miss_an_xid(tmp_path: Path, *, log: bool, event: bool) -> None:
    box = Box(tmp_path / "box")
    box.xid(0, 13, "Graphics Exception: ESR 0x404490=0x80000001", log=log, event=event)

    wanted = ["NVRM: Xid (PCI:0000:01:00): 13, Graphics Exception: ESR 0x404490=0x80000001"]
    assert kernel_log(box) == (wanted if log else [])
    assert [one.xid for one in box.read().events] == ([13] if event else [])


def test_kernel_log_records_are_numbered_and_timed(tmp_path: Path) -> None:
    box = Box(tmp_path / "box")
    box.aer_storm(0, 3)
    box.kmsg("usb 1-1: new high-speed USB device")
    records = [line for line in box.kmsg_path.read_text().splitlines() if not line.startswith(" ")]

    assert [int(record.split(",")[1]) for record in records] == list(range(len(records)))
    assert [int(record.split(",")[2]) for record in records] == sorted(int(one.split(",")[2]) for one in records)


def test_a_flickering_reason_comes_and_goes(inside: Inside) -> None:
    inside.box.set_gpu(0, flicker_reasons=0x8, flicker_percent=50, flicker_period_ms=40)

    inside.wait(REASONS.format(0), lambda seen: seen & 0x8)
    inside.wait(REASONS.format(0), lambda seen: not seen & 0x8)


def test_a_query_hangs_until_the_driver_comes_back(inside: Inside) -> None:
    timed = "(__import__('time').monotonic(), p.nvmlDeviceGetPowerUsage(h[0]), __import__('time').monotonic())"
    inside(POWER.format(0))
    inside.box.set_gpu(0, hang=1)
    child = inside._child
    assert child.stdin
    assert child.stdout
    child.stdin.write(json.dumps(timed) + "\n")
    child.stdin.flush()
    with enter(inside.box) as other:
        assert other(POWER.format(1)) == 12_000
        assert child.poll() is None
    inside.box.set_gpu(0, hang=None)

    began, power, ended = json.loads(child.stdout.readline())["value"]
    assert power == 12_000
    assert ended > began


@pytest.mark.parametrize("where", ["system", "gpu"])
def test_latency(inside: Inside, where: str) -> None:
    inside(POWER.format(0))
    if where == "system":
        inside.box.set(latency_ms=30)
    else:
        inside.box.set_gpu(0, latency_ms=30)
    timed = "(__import__('time').monotonic(), p.nvmlDeviceGetPowerUsage(h[0]), __import__('time').monotonic())"
    inside.wait(timed, lambda seen: seen[2] - seen[0] >= 0.03)


def test_heal_takes_everything_back_and_keeps_what_went_on(tmp_path: Path) -> None:
    box = still_box(tmp_path / "box")
    box.load(0, 1)
    box.add_process(0, 4242, 1 << 30)
    healthy = _without_counters(box)
    box.lose(0)
    box.thermal_slowdown(1)
    box.pcie_width(2, 4)
    box.set_gpu(3, pcie_replay_per_minute=1)
    box.set(p2p_status=4, hang=1)
    box.driver_mismatch(running=True)
    box.heal()

    assert _without_counters(box) == healthy
    assert box.read().gpus[0].number("energy_mj") >= 812_345_678


def _without_counters(box: Box) -> list[Any]:
    scenario = box.read()
    counters = ("violation_", "counters_", "energy_")
    return [
        scenario.system,
        *[
            ({key: value for key, value in gpu.values.items() if not key.startswith(counters)}, gpu.processes)
            for gpu in scenario.gpus
        ],
    ]


def test_a_gpu_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(IndexError, match="there is no GPU 4: the box has 4"):
        Box(tmp_path / "box").lose(4)


def test_a_reading_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no reading called power_watts"):
        Box(tmp_path / "box").set_gpu(0, power_watts=5)
