"""What telemetry says of a GPU under load, on files as the recorder writes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.unit.gpu.recording import BEGIN, BOOT, BUSY, NOON, infos, record, steady, writing

from vaultcube.gpu.loads import Piece
from vaultcube.gpu.readings import Reading
from vaultcube.gpu.telemetry import Telemetry, TelemetryError

START = datetime.fromtimestamp(NOON / 1000, UTC)
UUID = infos()[0].uuid


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def piece(start_s: float, end_s: float, *, phase: str = "flop/bf16", part: int = 1, boot: str = BOOT) -> Piece:
    """Return a piece by seconds since the recording began."""
    first = BEGIN / 1000
    return Piece(boot, phase, part, first + start_s, first + end_s, first + start_s + 2)


def test_phases_and_parts_are_counted_apart(path: Path) -> None:
    record(path, [(ms, one._replace(sm_clock_mhz=2000 + ms // 1000)) for ms, one in steady(100)])
    pieces = [piece(10, 20), piece(20, 30, phase="bytes/memory"), piece(30, 40, part=3)]
    with Telemetry.open(path) as telemetry, telemetry.under_load(UUID, pieces) as loaded:
        found = {(one.part, one.phase): one for one in loaded.figures()}
    assert set(found) == {(1, "flop/bf16"), (1, "bytes/memory"), (3, "flop/bf16")}
    one = found[1, "flop/bf16"]
    assert (one.readings, one.settled, one.busy, one.power_mean_w) == (10, 8, 8, 500)
    # Once settled: seconds 12 to 19.
    assert one.sm_clock_mean_mhz == 2015.5
    assert (one.temperature_max_c, one.temperature_margin_min_c) == (70, 20)
    assert (one.pcie_link_min, one.pcie_replays) == (16 << 5, 0)
    assert (one.throttled_us, one.throttled_of_ms) == (0, 10_000)
    assert (one.sampled, one.throttled_sampled, one.alone_sampled) == (10, 0, 0)


def test_time_held_back_in_a_pause_is_not_the_loads(path: Path) -> None:
    # The recorder was away from second 10 to 60, and the card was held back meanwhile.
    told = [(second * 1000, BUSY._replace(hw_thermal_ns=0)) for second in range(10)]
    told += [(second * 1000, BUSY._replace(hw_thermal_ns=40 * 10**9)) for second in range(60, 70)]
    record(path, told)
    with Telemetry.open(path) as telemetry, telemetry.under_load(UUID, [piece(60, 70)]) as loaded:
        (one,) = loaded.figures()
        assert (one.throttled_us, one.throttled_of_ms) == (0, 9000)
    with Telemetry.open(path) as telemetry, telemetry.under_load(UUID, [piece(0, 70)]) as loaded:
        (one,) = loaded.figures()
        assert one.throttled_us == 40_000_000


def test_each_condition_has_its_first_and_last_time(path: Path) -> None:
    def odd(second: int) -> Reading:
        return BUSY._replace(
            utilisation_percent=50 if second in {31, 33} else 99,
            temperature_margin_c=0 if second == 40 else 20,
            temperature_c=91 if second == 41 else 70,
            pcie_width=8 if second in {50, 55} else 16,
            pcie_replays=second // 60,
            hw_thermal_ns=10**9 * (second >= 70),
            clock_events=0x40 if second == 75 else 0,
        )

    record(path, [(second * 1000, odd(second)) for second in range(100)])

    def after(seconds: int) -> datetime:
        return START + timedelta(seconds=seconds)

    with Telemetry.open(path) as telemetry, telemetry.under_load(UUID, [piece(10, 90)]) as loaded:
        assert loaded.when("idle") == (after(31), after(33), 2)
        assert loaded.when("idle", ["flop/bf16"]) == (after(31), after(33), 2)
        assert loaded.when("idle", ["bytes/memory"]) is None
        assert loaded.when("hot", limits={"limit": 1}) == (after(40), after(40), 1)
        assert loaded.when("warm", limits={"limit": 90}) == (after(41), after(41), 1)
        assert loaded.when("slow_link", limits={"link": 16 << 5}) == (after(50), after(55), 2)
        assert loaded.when("replays") == (after(60), after(60), 1)
        assert loaded.when("throttled") == (after(70), after(75), 2)
        assert loaded.when("loaded") == (after(12), after(89), 78)
        assert loaded.when("last", limits={"part": 3}) is None


def test_a_load_of_an_earlier_boot_is_found_by_its_own_clock(path: Path) -> None:
    record(path, steady(50))
    # Rebooted ten minutes after noon: the clock began anew.
    with writing(path, mono_ms=30_000, wall_ms=NOON + 600_000, boot_id="second", end_ms=20_000) as writer:
        for second in range(20):
            writer.reading(0, 30_000 + second * 1000, BUSY._replace(power_mw=400_000))
    later = Piece("second", "flop/bf16", 3, 35.0, 45.0, 37.0)
    with Telemetry.open(path) as telemetry, telemetry.under_load(UUID, [piece(10, 20), later]) as loaded:
        powers = {one.part: one.power_mean_w for one in loaded.figures()}
        assert powers == {1: 500, 3: 400}
        when = loaded.when("last", limits={"part": 3})
        assert when is not None
        assert when.first == START + timedelta(seconds=607)


def test_what_is_not_recorded_has_no_figures(path: Path) -> None:
    record(path, [(second * 1000, Reading(problem="lost")) for second in range(50)])
    with Telemetry.open(path) as telemetry:
        for uuid, pieces in (
            (UUID, [piece(10, 20)]),
            ("GPU-of-nobody", [piece(10, 20)]),
            (UUID, [piece(10, 20, boot="of nobody")]),
            (UUID, []),
        ):
            with telemetry.under_load(uuid, pieces) as loaded:
                assert loaded.figures() == []
                assert loaded.when("loaded") is None


def test_what_a_card_does_not_tell_is_none(path: Path) -> None:
    record(path, [(second * 1000, Reading(temperature_c=40)) for second in range(50)])
    with Telemetry.open(path) as telemetry, telemetry.under_load(UUID, [piece(10, 20)]) as loaded:
        (one,) = loaded.figures()
    assert (one.readings, one.settled, one.busy, one.sampled) == (10, 0, 0, 0)
    assert one.power_mean_w is one.sm_clock_mean_mhz is one.pcie_link_min is one.pcie_replays is None
    assert one.throttled_us is one.throttled_of_ms is one.temperature_margin_min_c is None


def test_a_file_that_breaks_off_says_so(path: Path) -> None:
    record(path, steady(50))
    telemetry = Telemetry.open(path)
    telemetry._db.execute("CREATE TEMP TABLE pieces (already)")
    with pytest.raises(TelemetryError, match="cannot be read"), telemetry.under_load(UUID, []):
        pass
    telemetry.close()
