"""The scenario: read back as it was written, re-read by a running process, and never half."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.rig.box import Box
from tests.rig.fields import ERRORS, GPU_NUMBERS
from tests.rig.inside import Inside, enter, still_box
from tests.rig.profiles import LAYOUTS, scenario
from tests.rig.scenario import KINDS, MAX_PROCESSES, Process, Scenario, SimGpu, parse

POWER = "p.nvmlDeviceGetPowerUsage(h[0])"
GOOD, NEW = 12_000, 99_000

numbers = st.integers(min_value=-(2**62), max_value=2**62) | st.sampled_from(sorted(set(ERRORS) - {"none"}))
gpus = st.builds(
    SimGpu,
    values=st.dictionaries(st.sampled_from(sorted(GPU_NUMBERS)), numbers),
    processes=st.lists(
        st.builds(Process, st.sampled_from(KINDS), *[st.integers(0, 2**31)] * 4), max_size=MAX_PROCESSES
    ),
)


def refusal(text: str) -> str | None:
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return None


@given(st.builds(Scenario, gpus=st.lists(gpus, max_size=4)))
def test_what_is_written_is_read_back(made: Scenario) -> None:
    assert parse(made.render()) == made


@pytest.mark.parametrize("profile", LAYOUTS)
def test_profiles_are_read_back(profile: str) -> None:
    assert parse(scenario(profile).render()) == scenario(profile)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    why = refusal(text)
    assert why is None or why.startswith("line ") or "half written" in why


BROKEN: dict[str, Callable[[str], str]] = {
    "half written": lambda text: text[: text.index("[gpu 2]")],
    "cut in a line": lambda text: text[: text.index("[gpu 2]") + 40],
    "empty": lambda _: "",
    "an unknown key": lambda text: text.replace("[gpu 1]", "[gpu 1]\nwatts = 3"),
    "an unknown section": lambda text: text.replace("[events]", "[gadgets]"),
    "a broken number": lambda text: text.replace("power_mw = ", "power_mw = x", 1),
    "trailing text": lambda text: text.replace("pstate = 8", "pstate = 8 9", 1),
    "no value": lambda text: text.replace("pstate = 8", "pstate", 1),
    "GPUs out of order": lambda text: text.replace("[gpu 1]", "[gpu 3]"),
    "too many GPUs": lambda text: text.replace("[events]", "".join(f"[gpu {n}]\n" for n in range(4, 40)) + "[events]"),
    "a number too large": lambda text: text.replace("pstate = 8", f"pstate = {2**70}", 1),
    "a bad process": lambda text: text.replace("[gpu 1]", "process = compute 12\n[gpu 1]"),
    "a process of no kind": lambda text: text.replace("[gpu 1]", "process = game 12 100\n[gpu 1]"),
    "a bad event": lambda text: text.replace("[events]", "[events]\nxid = 1 2"),
    "too many events": lambda text: text.replace("[events]", "[events]\n" + "xid = 1 0 13\n" * 65),
    "a text too long": lambda text: text.replace("cpus = ", "cpus = " + "9" * 120, 1),
    "bytes": lambda text: text.replace("[events]", "\x00\x01\x7f[events]"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_python_refuses_what_c_refuses(how: str) -> None:
    assert refusal(BROKEN[how](scenario("4x5090").render()))


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_file_leaves_the_last_good_state(inside: Inside, how: str) -> None:
    path = inside.box.scenario_path
    good = path.read_text()
    assert inside(POWER) == GOOD
    path.write_text(BROKEN[how](good.replace("power_mw = 12000", f"power_mw = {NEW}", 1)))
    # A second process cannot start on it, so what the first says is what it remembers.
    with enter(inside.box, init=False) as later:
        assert later.error("p.nvmlInit()") == 9
    assert inside(POWER) == GOOD

    path.write_text(good.replace("power_mw = 12000", f"power_mw = {NEW}", 1))
    inside.wait(POWER, lambda seen: seen == NEW)


def test_a_file_that_is_gone_leaves_the_last_good_state(inside: Inside) -> None:
    assert inside(POWER) == GOOD
    inside.box.scenario_path.rename(inside.box.scenario_path.with_suffix(".away"))
    with enter(inside.box, init=False) as later:
        assert later.error("p.nvmlInit()") == 9
    assert inside(POWER) == GOOD


def test_what_the_mock_would_refuse_is_not_written(inside: Inside) -> None:
    for pid in range(MAX_PROCESSES):
        inside.box.add_process(0, pid, 1)
    with pytest.raises(ValueError, match="room for 32 processes"):
        inside.box.add_process(0, 99, 1)

    inside.wait("len(p.nvmlDeviceGetComputeRunningProcesses(h[0]))", lambda seen: seen == MAX_PROCESSES)


def test_comments_spaces_and_hex_are_fine(inside: Inside) -> None:
    path = inside.box.scenario_path
    path.write_text("# by hand\n" + path.read_text().replace("pstate = 8", "  pstate=0x2   # fast", 1))

    inside.wait("p.nvmlDeviceGetPerformanceState(h[0])", lambda seen: seen == 2)
    assert inside.box.read().gpus[0].number("pstate") == 2


def test_a_gpu_that_leaves_the_scenario_is_lost(inside: Inside) -> None:
    inside("h[3]")
    with inside.box.edit() as made:
        made.gpus.pop()

    inside.wait("p.nvmlDeviceGetCount()", lambda seen: seen == 3)
    assert inside.error("p.nvmlDeviceGetName(h[3])") == 15


def test_a_change_is_seen_within_the_second_and_not_read_for_every_call(tmp_path: Path) -> None:
    box = still_box(tmp_path / "box")
    box.set(reread_ms=60_000)
    with enter(box) as inside:
        assert inside(POWER) == GOOD
        box.set_gpu(0, power_mw=NEW)
        assert inside(POWER) == GOOD
        inside("p.nvmlShutdown(); p.nvmlInit()")
        assert inside(POWER) == NEW
    assert scenario("4x5090").system["reread_ms"] == 1000


def test_writers_at_once_lose_nothing_and_a_reader_never_sees_half(tmp_path: Path) -> None:
    box = still_box(tmp_path / "box")

    def write(index: int) -> None:
        for pid in range(20):
            Box.open(box.path).add_process(index, 1000 + pid, 1 << 20)

    writers = [threading.Thread(target=write, args=(index,)) for index in range(4)]
    with enter(box) as inside:
        for writer in writers:
            writer.start()
        while any(writer.is_alive() for writer in writers):
            assert inside("p.nvmlDeviceGetCount()") == 4
            assert len(inside("p.nvmlDeviceGetComputeRunningProcesses(h[0])")) <= 20
        for writer in writers:
            writer.join()
    assert [len(gpu.processes) for gpu in box.read().gpus] == [20] * 4


@given(
    power=st.integers(0, 700_000),
    reasons=st.integers(0, 0x1FF),
    flicker=st.sampled_from([0, 0x4, 0x20, 0x80]),
    percent=st.integers(0, 100),
    seconds=st.integers(0, 10**6),
)
def test_counters_only_grow(power: int, reasons: int, flicker: int, percent: int, seconds: int) -> None:
    gpu = SimGpu({"energy_mj": 5, "violation_power_ns": 7, "pcie_replay": 3, "power_mw": power, "reasons": reasons})
    gpu.set(flicker_reasons=flicker, flicker_percent=percent, pcie_replay_per_minute=60, counters_at_ns=1000)
    gpu.grow(1000 + seconds * 10**9)

    assert gpu.values["energy_mj"] == 5 + power * seconds
    assert gpu.values["pcie_replay"] == 3 + seconds
    share = 100 if reasons & 0x4 else percent if flicker & 0x4 else 0
    assert gpu.values["violation_power_ns"] == 7 + seconds * 10**7 * share
    assert "violation_hw_thermal_ns" not in gpu.values


def test_both_sides_count_alike(inside: Inside) -> None:
    """Python carries a counter on when it changes a box, and C between the changes: they must agree."""
    hours_ago = time.monotonic_ns() - 3 * 3600 * 10**9
    with inside.box.edit() as made:
        made.gpus[0].set(
            counters_at_ns=hours_ago, energy_mj=0, power_mw=556_789, reasons=0x4, violation_power_ns=0,
            flicker_reasons=0x80, flicker_percent=37, violation_power_brake_ns=0, pcie_replay_per_minute=91,
        )  # fmt: skip
    read = "[p.nvmlDeviceGetTotalEnergyConsumption(h[0])] + "
    read += "[one.value.ullVal for one in p.nvmlDeviceGetFieldValues(h[0], [74, 271, 94])]"
    by_c = inside.wait(read, lambda seen: seen[0] > 10**9)
    with inside.box.edit() as made:
        gpu = made.gpus[0]
    keys = ("energy_mj", "violation_power_ns", "violation_power_brake_ns", "pcie_replay")

    # A moment passes between the two readings.
    assert [gpu.number(key) for key in keys] == pytest.approx(by_c, rel=1e-3)
