from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.gpu.recording import BEGIN, BUSY, NOON, record, steady, writing

from vaultcube.gpu.readings import Reading
from vaultcube.gpu.telemetry import Summary, Telemetry

START = BEGIN / 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def summary(path: Path, start_s: float | None = None, end_s: float | None = None, uuid: str = "GPU-0") -> Summary:
    """Return a summary; times are seconds after the beginning."""
    with Telemetry.open(path) as telemetry:
        start = None if start_s is None else START + start_s
        end = None if end_s is None else START + end_s
        return telemetry.summarise(uuid, start, end)


def of(path: Path, readings: Sequence[tuple[int, Reading]], start_s: float, end_s: float) -> Summary:
    record(path, readings)
    return summary(path, start_s, end_s)


def test_a_steady_load(path: Path) -> None:
    found = of(path, steady(61), 10, 40)
    assert (found.start_s, found.end_s) == (START + 10, START + 40)
    assert (found.samples, found.expected, found.coverage, found.longest_gap_s) == (31, 30, 1.0, 1.0)
    assert (found.utilisation_mean, found.utilisation_min, found.memory_utilisation_mean) == (0.99, 0.99, 0.5)
    assert (found.sm_clock_mean_mhz, found.sm_clock_min_mhz) == (2500, 2500)
    assert (found.memory_clock_mean_mhz, found.memory_clock_min_mhz) == (14001, 14001)
    assert (found.power_mean_w, found.power_max_w) == (500, 500)
    assert (found.energy_j, found.energy_s, found.energy_reason) == (15_000, 30, None)
    assert (found.temperature_max_c, found.temperature_margin_min_c) == (70, 20)
    assert (found.throttle_share, found.throttle_source, found.power_cap_share) == (0, "counters", 0)
    assert (found.pcie_gen_min, found.pcie_width_min, found.pcie_replays) == (5, 16, 0)
    assert found.memory_used_max_bytes == 30 << 30
    assert (found.problem, found.problem_at_s, dict(found.reasons)) == (None, None, {})
    # GeForce tells neither.
    assert (found.memory_temperature_max_c, found.ecc_uncorrected) == (None, None)


def test_means_and_extremes_are_of_the_readings_inside(path: Path) -> None:
    readings = [
        (ms, reading._replace(power_mw=1000 * ms // 1000, utilisation_percent=ms // 1000, temperature_c=ms // 1000))
        for ms, reading in steady(11)
    ]
    found = of(path, readings, 3, 5)
    assert (found.power_mean_w, found.power_max_w) == (4, 5)
    assert (found.utilisation_mean, found.utilisation_min) == (0.04, 0.03)
    assert found.temperature_max_c == 5


@pytest.mark.parametrize(("start_s", "end_s"), [(10.3, 12.9), (10.4, 10.6), (0, 60), (0.5, 59.5), (7, 7.001)])
def test_energy_is_taken_at_the_edges_between_readings(path: Path, start_s: float, end_s: float) -> None:
    found = of(path, steady(61), start_s, end_s)
    assert found.energy_s == pytest.approx(end_s - start_s)
    assert found.energy_j == pytest.approx(500 * (end_s - start_s))
    assert found.coverage == 1.0


def test_energy_is_only_of_what_was_recorded(path: Path) -> None:
    found = of(path, steady(11), -20, 30)
    assert (found.energy_j, found.energy_s) == (5000, 10)
    assert found.coverage == pytest.approx((10 + 1) / 50)
    assert found.longest_gap_s == 20


def test_a_gap_is_bridged_by_counters_and_not_by_coverage(path: Path) -> None:
    readings = [(ms, reading) for ms, reading in steady(21) if not 5000 < ms < 12_000]
    found = of(path, readings, 0, 20)
    assert (found.samples, found.expected, found.longest_gap_s) == (15, 20, 7.0)
    assert found.coverage == pytest.approx(14 / 20)
    assert (found.energy_j, found.energy_s) == (10_000, 20)


def test_an_interval_inside_a_gap_is_not_covered(path: Path) -> None:
    readings = [(ms, reading) for ms, reading in steady(21) if not 5000 < ms < 15_000]
    found = of(path, readings, 6, 12)
    assert (found.samples, found.coverage, found.longest_gap_s) == (0, 0, 6.0)
    assert found.utilisation_mean is None
    assert found.throttle_share is not None
    assert found.energy_j == pytest.approx(3000)


def test_a_reading_that_is_not_due_yet_is_no_gap(path: Path) -> None:
    assert of(path, steady(11), 0, 10.9).coverage == 1.0
    assert summary(path, 0, 12).coverage == pytest.approx(10 / 12)


def test_nothing_recorded_is_nothing_known(path: Path) -> None:
    record(path, steady(5))
    for found in (summary(path, 100, 200), summary(path, uuid="GPU-1"), summary(path, 0, 4, uuid="GPU-nonsuch")):
        assert (found.samples, found.coverage) == (0, 0)
        assert (found.utilisation_mean, found.power_max_w, found.throttle_share) == (None, None, None)
        assert (found.throttle_source, found.power_cap_share, found.pcie_replays) == (None, None, None)
        assert found.energy_reason == "fewer than two readings"
        assert found.longest_gap_s == found.end_s - found.start_s


def test_an_interval_without_length(path: Path) -> None:
    assert of(path, steady(5), 2, 2).samples == 1
    found = summary(path, 2.5, 2.5)
    assert (found.samples, found.coverage, found.energy_j) == (0, 0.0, 0)
    backwards = summary(path, 3, 1)
    assert (backwards.start_s, backwards.end_s) == (START + 3, START + 3)


def test_a_reset_counter_gives_no_energy_where_it_happened(path: Path) -> None:
    with writing(path, end_ms=20_000) as writer:
        for ms, reading in steady(21):
            counted = reading.energy_mj or 0
            now = reading._replace(energy_mj=counted - 5_000_000 if ms >= 10_000 else counted)
            for _ in writer.reading(0, BEGIN + ms, now):
                writer.event(BEGIN + ms, "energy_reset", position=0)
    found = summary(path, 5, 15)
    assert (found.energy_j, found.energy_s, found.energy_reason) == (None, None, "the energy counter began anew")
    assert summary(path, 0, 9).energy_j == 4500
    assert summary(path, 10, 20).energy_j == 5000


def test_a_card_without_an_energy_counter(path: Path) -> None:
    found = of(path, [(ms, reading._replace(energy_mj=None)) for ms, reading in steady(5)], 0, 4)
    assert (found.energy_j, found.energy_reason) == (None, "the card has no energy counter")


def counting(
    count: int, *, thermal: int = 0, brake: int = 0, cap: int = 0, events: int = 0
) -> list[tuple[int, Reading]]:
    """Return readings whose counters grow by so many ms a second."""
    return [
        (
            ms,
            reading._replace(
                clock_events=events,
                hw_thermal_ns=ms * thermal * 1000,
                power_brake_ns=ms * brake * 1000,
                power_cap_ns=ms * cap * 1000,
            ),
        )
        for ms, reading in steady(count)
    ]


def test_counters_see_bursts_between_the_readings(path: Path) -> None:
    found = of(path, counting(21, thermal=20, cap=900), 2.5, 17.5)
    assert found.throttle_share == pytest.approx(0.02)
    assert found.throttle_source == "counters"
    assert found.power_cap_share == pytest.approx(0.9)
    assert found.reasons == {"hardware thermal slowdown": pytest.approx(0.02), "power cap": pytest.approx(0.9)}


def test_reasons_at_once_are_not_more_than_the_whole(path: Path) -> None:
    assert of(path, counting(11, thermal=900, brake=900), 0, 10).throttle_share == 1.0


def test_a_flicker_that_counters_do_not_confirm_is_none(path: Path) -> None:
    """0x48 in a single reading: heat is counted, and the counter says it was nothing worth."""
    readings = counting(11)
    readings[5] = (5000, readings[5][1]._replace(clock_events=0x48))
    found = of(path, readings, 0, 10)
    assert found.throttle_share == 0
    assert found.reasons == {"hardware slowdown": pytest.approx(1 / 11)}


def test_hardware_slowdown_alone_has_no_counter_and_counts_beyond_one_reading(path: Path) -> None:
    readings = counting(11)
    readings[2] = (2000, readings[2][1]._replace(clock_events=0x8))
    assert of(path, readings, 0, 10).throttle_share == 0
    for number in (6, 7, 8):
        readings[number] = (readings[number][0], readings[number][1]._replace(clock_events=0x8))
    path.unlink()
    found = of(path, readings, 0, 10)
    assert found.throttle_share == pytest.approx(3 / 11)
    assert found.throttle_source == "counters"


def test_without_counters_the_share_is_sampled(path: Path) -> None:
    blind = {"sw_thermal_ns": None, "hw_thermal_ns": None, "power_brake_ns": None, "power_cap_ns": None}
    readings = [(ms, reading._replace(**blind, clock_events=0x4)) for ms, reading in steady(11)]
    readings[3] = (3000, readings[3][1]._replace(clock_events=0x20))
    found = of(path, readings, 0, 10)
    assert found.throttle_share == pytest.approx(1 / 11)
    assert found.throttle_source == "sampled"
    assert found.power_cap_share == pytest.approx(10 / 11)
    assert found.reasons == {"power cap": pytest.approx(10 / 11), "software thermal slowdown": pytest.approx(1 / 11)}


def test_a_card_that_tells_no_reason_at_all(path: Path) -> None:
    found = of(path, [(ms, Reading(temperature_c=40)) for ms, _ in steady(5)], 0, 4)
    assert (found.throttle_share, found.throttle_source, found.power_cap_share) == (None, None, None)
    assert (found.pcie_gen_min, found.pcie_replays, found.memory_used_max_bytes) == (None, None, None)
    assert found.temperature_max_c == 40


def test_the_link_counts_only_under_load(path: Path) -> None:
    readings = steady(11)
    for number in (0, 1):
        idle = readings[number][1]._replace(utilisation_percent=0, pcie_gen=1, pcie_width=4)
        readings[number] = (readings[number][0], idle)
    found = of(path, readings, 0, 10)
    assert (found.pcie_gen_min, found.pcie_width_min) == (5, 16)
    record(path.with_name("slow.db"), steady(5, pcie_gen=1, pcie_width=4))
    found = summary(path.with_name("slow.db"))
    assert (found.pcie_gen_min, found.pcie_width_min) == (1, 4)


def test_replays_and_ecc_errors_are_growth(path: Path) -> None:
    readings = [
        (ms, reading._replace(pcie_replays=100 + ms // 500, ecc_uncorrected=int(ms > 4000)))
        for ms, reading in steady(11)
    ]
    found = of(path, readings, 0, 10)
    assert (found.pcie_replays, found.ecc_uncorrected) == (20, 1)
    assert summary(path, 6, 10).ecc_uncorrected == 0


def test_a_lost_gpu(path: Path) -> None:
    readings = [(ms, Reading(problem="lost") if ms >= 6000 else reading) for ms, reading in steady(11)]
    found = of(path, readings, 0, 10)
    assert (found.problem, found.problem_at_s) == ("lost", START + 6)
    assert (found.samples, found.longest_gap_s, found.coverage) == (6, 5.0, 0.5)
    assert (found.energy_j, found.energy_s) == (2500, 5)
    assert summary(path, 0, 5).problem is None
    assert summary(path, 7, 9).problem == "lost"


def test_the_whole_file_is_the_default(path: Path) -> None:
    record(path, steady(61))
    found = summary(path)
    assert (found.start_s, found.end_s, found.samples) == (START, START + 60, 61)


def test_a_suspended_machine_is_not_covered(path: Path) -> None:
    """The clock that does not jump stands still meanwhile."""
    with writing(path, end_ms=10_000) as writer:
        for ms, reading in steady(11):
            writer.reading(0, BEGIN + ms, reading)
        writer.event(BEGIN + 5000, "gap", detail={"seconds": 30.0, "suspended_s": 30.0, "why": "suspended"})
    found = summary(path, 0, 10)
    assert (found.coverage, found.longest_gap_s, found.expected) == (0.25, 30.0, 40)
    assert summary(path, 6, 10).coverage == 1.0


def test_a_reboot_is_not_covered(path: Path) -> None:
    record(path, steady(11))
    with writing(path, boot_id="another", mono_ms=100_000, wall_ms=NOON + 40_000, end_ms=10_000) as writer:
        for ms, reading in steady(11):
            writer.reading(0, 100_000 + ms, reading)
    with Telemetry.open(path) as telemetry:
        found = telemetry.summarise("GPU-0")
        after = telemetry.summarise("GPU-0", 100, 110)
    assert (found.samples, found.longest_gap_s) == (22, 30.0)
    assert found.coverage == pytest.approx(21 / 50)
    # Each boot's own counters; not what lies between.
    assert (found.energy_j, found.energy_s) == (10_000, 20)
    assert (after.samples, after.coverage, after.energy_j) == (11, 1.0, 5000)


def test_ten_times_a_second(path: Path) -> None:
    record(path, steady(101, every_ms=100), period_ms=100)
    found = summary(path, 1, 9)
    assert (found.samples, found.expected, found.coverage, found.longest_gap_s) == (81, 80, 1.0, 0.1)
    assert found.energy_j == 4000


# Seconds between readings that come at odd times: no interval's figures may leave their bounds.
ODD = st.lists(st.integers(1, 5000), min_size=1, max_size=30)


@given(ODD, st.floats(-5, 60), st.floats(0, 60), st.sets(st.integers(0, 30)))
def test_no_interval_is_too_strange(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], start_s: float, length_s: float, lost: set[int]
) -> None:
    path = tmp_path_factory.mktemp("odd") / "run.db"
    ms, readings = 0, []
    for number, step in enumerate(steps):
        ms += step
        counted = BUSY._replace(energy_mj=500 * ms, hw_thermal_ns=ms * 500_000)
        readings.append((ms, Reading(problem="lost") if number in lost else counted))
    found = of(path, readings, start_s, start_s + length_s)
    assert 0 <= found.coverage <= 1
    assert 0 <= found.samples <= len(readings)
    assert 0 <= found.longest_gap_s <= length_s + 0.002
    assert found.throttle_share is None or 0 <= found.throttle_share <= 1
    if found.energy_j is not None and found.energy_s:
        assert found.energy_j / found.energy_s == pytest.approx(500)
        assert found.energy_s <= length_s + 0.002
