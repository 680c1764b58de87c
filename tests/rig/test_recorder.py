"""The real recorder over the simulated box: every fault gives the right rows, events and figures."""

from __future__ import annotations

import statistics
from itertools import pairwise
from pathlib import Path

import pytest
from tests.rig.box import Box
from tests.rig.recordings import readings, recording

from vaultcube.gpu.telemetry import Event, Telemetry

BOTH = ("nvml", "kernel")


@pytest.fixture
def box(tmp_path: Path, request: pytest.FixtureRequest) -> Box:
    """Return a box that shows changes at once."""
    found = Box(tmp_path / "box", getattr(request, "param", "4x5090"), jitter=False)
    found.set(reread_ms=50)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "telemetry" / "run.db"


def told(events: list[Event]) -> list[tuple[object, ...]]:
    return [(event.kind, event.uuid, event.code, event.sources) for event in events]


# --- a machine in order ---------------------------------------------------------------------------------------


def test_a_healthy_box_under_load(box: Box, path: Path) -> None:
    box.load()
    with recording(box, path) as run:
        start, end = run.goes_on(2)
        assert run.stop() == 0
    assert [file.name for file in path.parent.iterdir()] == ["run.db"]
    with Telemetry.open(path) as telemetry:
        meta = telemetry.meta
        assert telemetry.events() == []
        found = [telemetry.summarise(uuid, start, end) for uuid in box.uuids]
    assert (meta.simulated, meta.driver, meta.ended_by, meta.period_s) == (True, "580.95.05", "SIGTERM", 0.1)
    assert meta.kernel_log == str(box.kmsg_path)
    assert meta.xid_events
    assert [gpu.uuid for gpu in meta.gpus] == box.uuids
    for summary in found:
        assert (summary.utilisation_mean, summary.power_mean_w) == (0.99, 556)
        assert summary.energy_j is not None
        assert summary.energy_j / (summary.energy_s or 0) == pytest.approx(556, rel=0.01)
        assert (summary.sm_clock_min_mhz, summary.pcie_width_min, summary.pcie_gen_min) == (2580, 16, 5)
        assert (summary.throttle_share, summary.throttle_source) == (0, "counters")
        assert summary.power_cap_share == pytest.approx(1, abs=0.02)
        # GeForce tells neither.
        assert (summary.ecc_uncorrected, summary.memory_temperature_max_c) == (None, None)


@pytest.mark.parametrize("period", [0.1, 0.5])
def test_readings_come_at_even_times(box: Box, path: Path, period: float) -> None:
    with recording(box, path, period=period) as run:
        run.goes_on(3)
        run.stop()
    # The last one comes when it is stopped.
    times = [float(str(row[0])) for row in readings(path, "mono_s", "gpu = 0")][:-1]
    steps = [after - before for before, after in pairwise(times)]
    assert min(steps) > period / 2 - 0.02
    # A late reading does not push the ones after it.
    assert statistics.median(steps) == pytest.approx(period, abs=0.003)


@pytest.mark.parametrize(("box", "count"), [("16x5090", 16), ("8xh100", 8), ("1xold", 1)], indirect=["box"])
def test_other_boxes(box: Box, path: Path, count: int) -> None:
    box.load()
    with recording(box, path, period=0.5) as run:
        start, end = run.goes_on(2)
        found = [run.summary(index, start, end) for index in range(count)]
        assert run.stop() == 0
    assert all(summary.samples >= 3 for summary in found)
    hopper, old = count == 8, count == 1
    assert found[0].ecc_uncorrected == (0 if hopper else None)
    assert (found[0].memory_temperature_max_c is not None) == hopper
    assert found[0].throttle_source == ("sampled" if old else "counters")
    assert (found[0].energy_j is None) == old
    assert found[0].energy_reason == ("the card has no energy counter" if old else None)


def test_only_the_named_gpus_and_what_befalls_them(box: Box, path: Path) -> None:
    with recording(box, path, "--gpu", box.uuids[3], "--gpu", box.uuids[1]) as run:
        box.lose(0)
        box.xid(2, 31)
        box.xid(3, 13)
        run.until(lambda: [event for event in run.events("xid") if event.sources == BOTH])
        run.goes_on(0.5)
        with Telemetry.open(path) as telemetry:
            assert [gpu.uuid for gpu in telemetry.meta.gpus] == [box.uuids[1], box.uuids[3]]
            assert told(telemetry.events()) == [("xid", box.uuids[3], 13, BOTH)]


# --- faults ---------------------------------------------------------------------------------------------------


def test_a_gpu_that_is_lost_is_told_at_once_and_the_others_go_on(box: Box, path: Path) -> None:
    with recording(box, path) as run:
        box.lose(2)
        run.until(lambda: {event.sources for event in run.events("lost", "xid")} == {BOTH})
        start, end = run.goes_on(1)
        xid, lost = sorted(run.events(), key=lambda event: event.kind, reverse=True)
        gone, there = run.summary(2, start, end), run.summary(3, start, end)
        assert run.stop() == 0
    assert told([xid, lost]) == [("xid", box.uuids[2], 79, BOTH), ("lost", box.uuids[2], None, BOTH)]
    assert (gone.problem, gone.samples, gone.coverage, gone.energy_j) == ("lost", 0, 0, None)
    assert there.problem is None
    assert there.coverage == pytest.approx(1, abs=0.3)
    assert {row[0] for row in readings(path, "power_w", "problem = 'lost'")} == {None}


def test_a_gpu_can_be_lost_without_any_xid(box: Box, path: Path) -> None:
    with recording(box, path) as run:
        box.lose(1, xid=False)
        run.until(lambda: any(event.sources == BOTH for event in run.events("lost")))
        assert told(run.events()) == [("lost", box.uuids[1], None, BOTH)]
        box.heal()
        run.until(lambda: run.events("returned"))
        assert run.events("returned")[0].detail == {"after": "lost"}
        start, end = run.goes_on(0.5)
        assert run.summary(1, start + 0.2, end).problem is None


def test_a_gpu_that_was_lost_before(box: Box, path: Path) -> None:
    box.lose(1)
    with recording(box, path) as run:
        run.goes_on(0.3)
        with Telemetry.open(path) as telemetry:
            assert [gpu.uuid for gpu in telemetry.meta.gpus] == [box.uuids[index] for index in (0, 2, 3)]
        (event,) = run.events()
        assert (event.kind, event.uuid, event.detail["nvml_index"]) == ("lost", None, 1)


@pytest.mark.parametrize(("log", "event"), [(True, True), (True, False), (False, True)])
def test_an_xid_is_seen_whoever_reports_it(box: Box, path: Path, log: bool, event: bool) -> None:  # noqa: FBT001 - a table
    expected = tuple(name for name, told in (("nvml", event), ("kernel", log)) if told)
    with recording(box, path) as run:
        box.xid(1, 48, log=log, event=event)
        run.until(lambda: any(seen.sources == expected for seen in run.events("xid")))
        assert told(run.events()) == [("xid", box.uuids[1], 48, expected)]


def test_an_xid_between_two_distant_readings(box: Box, path: Path) -> None:
    with recording(box, path, period=60) as run:
        box.xid(1, 48)
        (event,) = run.until(lambda: [seen for seen in run.events("xid") if seen.sources == BOTH])
        assert event.uuid == box.uuids[1]
        assert run.summary(1).samples == 1


def test_an_aer_storm_is_counted_by_port(box: Box, path: Path) -> None:
    with recording(box, path) as run:
        box.aer_storm(3, 20_000)
        run.until(lambda: sum(event.count for event in run.events("aer")) == 20_000)
        events = run.events("aer")
    assert {event.uuid for event in events} == {box.uuids[3]}
    assert {tuple(event.detail.items()) for event in events} == {(("port", "0000:c0:01.1"), ("severity", "corrected"))}


def test_heat_and_the_power_brake(box: Box, path: Path) -> None:
    box.load()
    with recording(box, path) as run:
        box.thermal_slowdown(0)
        box.power_brake(1)
        box.hot(2)
        run.goes_on(0.5)
        start, end = run.goes_on(1.5)
        hot, braked, near, well = (run.summary(index, start, end) for index in range(4))
    assert (hot.throttle_source, braked.throttle_source) == ("counters", "counters")
    assert hot.throttle_share == pytest.approx(1, abs=0.02)
    assert braked.throttle_share == pytest.approx(1, abs=0.02)
    assert {"hardware thermal slowdown", "software thermal slowdown"} <= set(hot.reasons)
    assert "power brake" in braked.reasons
    assert (hot.temperature_max_c, hot.temperature_margin_min_c) == (92, -2)
    assert (near.temperature_max_c, near.temperature_margin_min_c, near.throttle_share) == (89, 1, 0)
    assert braked.sm_clock_min_mhz == 1290
    assert well.throttle_share == 0


def test_bursts_between_the_readings_are_counted(box: Box, path: Path) -> None:
    """Slowed down for 2 % of the time, of which a reading a second hardly sees any."""
    box.load()
    box.set_gpu(0, flicker_reasons=0x40, flicker_percent=2, flicker_period_ms=100)
    with recording(box, path, period=1) as run:
        run.goes_on(1)
        start, end = run.goes_on(3)
        found = run.summary(0, start, end)
    assert found.throttle_source == "counters"
    assert found.throttle_share == pytest.approx(0.02, abs=0.005)


def test_a_narrow_link_and_one_that_repeats_itself(box: Box, path: Path) -> None:
    box.load()
    with recording(box, path) as run:
        box.pcie_width(0, 4)
        box.replay_growth(1, 50)
        run.goes_on(0.5)
        start, end = run.goes_on(2)
        narrow, repeating = run.summary(0, start, end), run.summary(1, start, end)
    assert (narrow.pcie_width_min, narrow.pcie_gen_min, narrow.pcie_replays) == (4, 5, 0)
    assert repeating.pcie_replays == pytest.approx(50 * (end - start), abs=10)


def test_an_energy_counter_that_begins_anew(box: Box, path: Path) -> None:
    box.load()
    with recording(box, path) as run:
        before, _ = run.goes_on(0.5)
        box.energy_reset(2)
        (event,) = run.until(lambda: run.events("energy_reset"))
        start, end = run.goes_on(1)
        broken, whole = run.summary(2, before, end), run.summary(2, start, end)
    assert event.uuid == box.uuids[2]
    assert (broken.energy_j, broken.energy_reason) == (None, "the energy counter began anew")
    assert whole.energy_j is not None


@pytest.mark.parametrize("fault", ["mismatch", "permission"])
def test_a_driver_that_is_changed_under_the_recorder(box: Box, path: Path, fault: str) -> None:
    with recording(box, path) as run:
        (box.driver_mismatch if fault == "mismatch" else box.permission_denied)(running=True)
        run.until(lambda: len(run.events("problem")) == 4)
        start, end = run.goes_on(0.5)
        assert {event.detail["problem"] for event in run.events()} == {fault}
        assert [run.summary(index, start, end).problem for index in range(4)] == [fault] * 4
        box.heal()
        run.until(lambda: len(run.events("returned")) == 4)
        run.goes_on(0.3)
        start, end = run.goes_on(0.5)
        assert run.summary(0, start, end).problem is None
        assert run.summary(0, start, end).temperature_max_c == 31
        assert run.stop() == 0


def test_a_driver_that_hangs_is_told_of_and_can_be_left(box: Box, path: Path) -> None:
    with recording(box, path, killed=True) as run:
        box.set(hang=1)
        (event,) = run.until(lambda: run.events("problem"))
        assert (event.uuid, event.detail) == (box.uuids[0], {"problem": "hang"})
        start, end = run.goes_on(0.5)
        assert run.summary(0, start, end).problem == "hang"
        # The kernel's log is followed all the while.
        box.xid(1, 119, event=False)
        run.until(lambda: run.events("xid"))
        assert run.stop() == 0
    assert [file.name for file in path.parent.iterdir()] == ["run.db"]
    with Telemetry.open(path) as telemetry:
        assert telemetry.meta.ended_by == "SIGTERM"


def test_a_driver_that_answers_again(box: Box, path: Path) -> None:
    with recording(box, path) as run:
        box.set(hang=1)
        run.until(lambda: run.events("problem"))
        box.set(hang=0)
        (event,) = run.until(lambda: run.events("returned"))
        assert event.detail == {"after": "hang"}
        (gap,) = run.until(lambda: run.events("gap"))
        assert gap.detail["why"] == "nvml"
        assert gap.detail["seconds"] > 2
        start, end = run.goes_on(0.5)
        assert run.summary(0, start, end).problem is None
        assert run.stop() == 0


def test_a_slow_driver_leaves_gaps_and_no_bunches(box: Box, path: Path) -> None:
    box.set(latency_ms=5)
    with recording(box, path) as run:
        run.until(lambda: len(run.events("gap")) > 3)
        assert {event.detail["why"] for event in run.events("gap")} == {"nvml"}
        assert not run.events("problem")
        run.stop()
    times = [float(str(row[0])) for row in readings(path, "mono_s", "gpu = 0")]
    assert min(after - before for before, after in pairwise(times)) > 0.05


# --- a kernel log that cannot be read -------------------------------------------------------------------------


def test_a_kernel_log_that_is_cut_off_goes_on(box: Box, path: Path) -> None:
    with recording(box, path) as run:
        box.kmsg_path.write_text("")
        box.xid(0, 62, event=False)
        (event,) = run.until(lambda: run.events("xid"))
        assert (event.uuid, event.code) == (box.uuids[0], 62)


def test_a_kernel_log_that_cannot_be_read_is_told_of(box: Box, path: Path, tmp_path: Path) -> None:
    with recording(box, path, env={"VAULTCUBE_KERNEL_LOG": str(tmp_path / "nonsuch")}) as run:
        (event,) = run.until(lambda: run.events("kernel_log"))
        assert event.detail["problem"] == "unreadable"
        assert event.detail["reason"].endswith("No such file or directory")
        with Telemetry.open(path) as telemetry:
            assert telemetry.meta.kernel_log is None
