from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.gpu.recording import BEGIN, BUSY, NOON, begun, infos, record, steady, writing
from tests.unit.support import ROOT, unmeasured

from vaultcube.gpu.readings import Reading
from vaultcube.gpu.rundb import GPUS_MAX, FormatError, Writer, check, settle
from vaultcube.gpu.telemetry import Telemetry


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run with spaces #1?.db"


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    db = sqlite3.connect(path)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def test_a_session_ends_as_one_plain_file(path: Path) -> None:
    record(path, steady(3))
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert rows(path, "PRAGMA journal_mode") == [("delete",)]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    assert rows(path, "SELECT ended_ms, ended_by FROM sessions") == [(2000, "SIGTERM")]


def test_people_read_units_and_wall_time(path: Path) -> None:
    with writing(path) as writer:
        writer.reading(1, BEGIN, BUSY._replace(energy_mj=7))
        writer.reading(1, BEGIN + 1000, BUSY._replace(energy_mj=500_007, clock_events=0x44, power_cap_ns=250_000_000))
        writer.event(BEGIN + 1000, "xid", position=1, code=79, sources="nvml")
    db = sqlite3.connect(path)
    db.row_factory = sqlite3.Row
    first, second = map(dict, db.execute("SELECT * FROM samples"))
    (event,) = map(dict, db.execute("SELECT * FROM events"))
    db.close()
    assert (first["time"], first["mono_s"]) == ("2026-01-01T12:00:00.000Z", BEGIN / 1000)
    assert (first["gpu"], first["uuid"], first["energy_j"], first["power_cap_s"]) == (1, "GPU-1", None, None)
    assert (first["since_s"], second["since_s"]) == (None, 1.0)
    assert (second["energy_j"], second["power_cap_s"], second["clock_events"]) == (500.0, 0.25, "0x44")
    assert (second["power_w"], second["memory_used_mib"], second["memory_temperature_c"]) == (500.0, 30720.0, None)
    assert (event["time"], event["kind"], event["code"], event["gpu"]) == ("2026-01-01T12:00:01.000Z", "xid", 79, 1)


def test_wall_time_follows_the_clock_s_jumps(path: Path) -> None:
    with writing(path) as writer:
        writer.reading(0, BEGIN, BUSY)
        writer.clock(BEGIN + 500, NOON + 3_600_500)
        writer.reading(0, BEGIN + 1000, BUSY)
    assert rows(path, "SELECT time FROM samples") == [("2026-01-01T12:00:00.000Z",), ("2026-01-01T13:00:01.000Z",)]


def test_counters_are_kept_as_growth_and_a_fall_is_told(path: Path) -> None:
    with writing(path) as writer:
        for ms, energy, replays, told in [
            (0, 1000, 5, []),
            (1000, 1500, 5, []),
            # One reading that failed: the next one's growth is of both seconds.
            (2000, None, 6, []),
            (3000, 2500, 6, []),
            (4000, 100, 2, ["energy_mj", "pcie_replays"]),
            (5000, 300, 2, []),
        ]:
            assert writer.reading(0, BEGIN + ms, BUSY._replace(energy_mj=energy, pcie_replays=replays)) == told
    found = rows(path, "SELECT energy_mj, pcie_replays FROM readings")
    assert found == [(None, None), (500, 0), (None, 1), (1000, 0), (None, None), (200, 0)]


def test_nanoseconds_lose_nothing_over_time(path: Path) -> None:
    step = 333_333_333_333
    with writing(path) as writer:
        for number in range(4):
            writer.reading(0, BEGIN + number, BUSY._replace(power_cap_ns=number * step + 999))
    assert rows(path, "SELECT sum(power_cap_us) FROM readings") == [((3 * step + 999) // 1000,)]


def test_what_a_card_does_not_tell_stays_null(path: Path) -> None:
    record(path, [(0, Reading()), (1000, Reading(problem="lost"))])
    values = rows(path, "SELECT * FROM readings")
    assert values[0] == (0, *[None] * 23)
    assert values[1] == (1000 << 6, "lost", *[None] * 22)


def test_a_second_recorder_of_the_same_boot_goes_on_in_the_same_time(path: Path) -> None:
    record(path, steady(3))
    writer = Writer(str(path), begun(mono_ms=BEGIN + 10_000, wall_ms=NOON + 10_000), infos(3))
    assert writer.before == (8000, begun().boot_id)
    writer.reading(2, BEGIN + 10_000, BUSY)
    writer.close(BEGIN + 10_000, "SIGINT")
    assert rows(path, "SELECT t_ms, base_ms FROM sessions") == [(0, BEGIN), (10_000, BEGIN)]
    assert rows(path, "SELECT id >> 6, id & 63, since_ms FROM readings")[-1] == (10_000, 2, None)
    assert len(rows(path, "SELECT * FROM gpus")) == 3
    with writing(path, mono_ms=BEGIN + 20_000, wall_ms=NOON + 20_000) as third:
        third.reading(0, BEGIN + 20_000, BUSY)
    assert rows(path, "SELECT since_ms, energy_mj FROM readings")[-1] == (18_000, None)


@pytest.mark.parametrize(("boot", "mono"), [("another", 7000), ("another", BEGIN + 90_000), (begun().boot_id, 7000)])
def test_after_a_reboot_time_goes_on_by_the_wall(path: Path, boot: str, mono: int) -> None:
    record(path, steady(3))
    later = NOON + 2000 + 60_000
    with writing(path, boot_id=boot, mono_ms=mono, wall_ms=later) as writer:
        assert writer.before == (60_000, begun().boot_id)
        writer.reading(0, mono + 1000, BUSY)
    assert rows(path, "SELECT max(id >> 6) FROM readings") == [(63_000,)]
    assert rows(path, "SELECT time, mono_s FROM samples")[-1] == ("2026-01-01T12:01:03.000Z", mono / 1000 + 1)


def test_a_wall_clock_that_was_set_back_does_not_mix_boots(path: Path) -> None:
    record(path, steady(3))
    with writing(path, boot_id="another", mono_ms=7000, wall_ms=NOON - 10**9) as writer:
        assert writer.before is not None
        assert writer.before.away_ms == 1
        writer.reading(0, 7000, BUSY)
    assert rows(path, "SELECT max(id >> 6) FROM readings") == [(2001,)]


def test_no_more_gpus_than_a_key_has_room_for(path: Path) -> None:
    with writing(path, infos(GPUS_MAX)) as writer:
        writer.reading(GPUS_MAX - 1, BEGIN, BUSY)
    assert rows(path, "SELECT uuid FROM samples") == [(f"GPU-{GPUS_MAX - 1}",)]
    with pytest.raises(FormatError, match="64 GPUs"):
        Writer(str(path), begun(), [infos()[0]._replace(uuid="GPU-new")])


@pytest.mark.parametrize("made", ["CREATE TABLE mine (a)", "CREATE TABLE meta (key, value)"])
def test_a_database_of_somebody_else_is_left_alone(path: Path, made: str) -> None:
    db = sqlite3.connect(path)
    db.execute(made)
    db.close()
    before = path.read_bytes()
    with pytest.raises(FormatError, match="not vaultcube"):
        Writer(str(path), begun(), infos())
    assert path.read_bytes() == before


def test_a_newer_version_says_which(path: Path) -> None:
    record(path, steady(1))
    db = sqlite3.connect(path)
    db.execute("UPDATE meta SET value = 'vaultcube.telemetry/2'")
    db.commit()
    with pytest.raises(FormatError, match="/1 but vaultcube"):
        check(db)
    db.close()


def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    path.write_text("notes, of which there are many\n" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        Writer(str(path), begun(), infos())
    assert path.read_text().startswith("notes")


KILLED = """
import os, sys
from tests.unit.gpu.recording import BEGIN, begun, infos, steady
from vaultcube.gpu.rundb import Writer
writer = Writer(sys.argv[1], begun(), infos())
for ms, reading in steady(50):
    writer.reading(0, BEGIN + ms, reading)
    writer.commit()
writer.reading(0, BEGIN + 50_000, reading)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def killed(path: Path) -> Path:
    """Return the file of a writer that was killed between two commits."""
    env = {**unmeasured(), "PYTHONPATH": f"{ROOT}/orchestrator:{ROOT}"}
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], env=env, check=False, timeout=60).returncode == -9
    return path


def test_what_was_committed_outlives_a_kill(killed: Path) -> None:
    with Telemetry.open(killed) as telemetry:
        assert telemetry.summarise("GPU-0").samples == 50
        assert telemetry.meta.ended_by is None
    # Reading changed nothing.
    assert sorted(file.suffix for file in killed.parent.iterdir()) == [".db", ".db-shm", ".db-wal"]


def test_a_killed_file_is_settled_into_one(killed: Path) -> None:
    settle(killed)
    assert [file.name for file in killed.parent.iterdir()] == [killed.name]
    with Telemetry.open(killed) as telemetry:
        assert telemetry.summarise("GPU-0").samples == 50


def test_settling_does_not_disturb_a_writer(path: Path) -> None:
    with writing(path) as writer:
        writer.reading(0, BEGIN, BUSY)
        settle(path)
        writer.reading(0, BEGIN + 1000, BUSY)
        writer.commit()
        settle(path)
        with Telemetry.open(path) as telemetry:
            assert telemetry.summarise("GPU-0").samples == 2
    settle(path)
    settle(path.with_name("nonsuch"))
    assert not path.with_name("nonsuch").exists()


def test_a_day_of_four_gpus_is_small(path: Path) -> None:
    """A twelfth of it, with values that waver: 345 600 readings may take 25 MB."""
    waver = random.Random(1)  # noqa: S311 - figures, no secrets
    count = 7200
    with writing(path, infos(4)) as writer:
        counted = [812_345_678, 10**15, 0]
        for second in range(count):
            for gpu in range(4):
                power = 556_000 + waver.randint(-9000, 9000)
                counted[0] += power
                counted[1] += waver.randint(0, 10**9)
                counted[2] += waver.random() < 0.01
                reading = BUSY._replace(
                    temperature_c=71 + waver.randint(-2, 2),
                    power_mw=power,
                    energy_mj=counted[0],
                    sm_clock_mhz=2580 + waver.randint(-90, 90),
                    utilisation_percent=waver.randint(90, 100),
                    memory_used_bytes=(30 << 30) + waver.randint(0, 1 << 30),
                    clock_events=4,
                    power_cap_ns=counted[1],
                    pcie_replays=counted[2],
                )
                writer.reading(gpu, BEGIN + second * 1000 + gpu, reading)
            writer.commit()
    assert path.stat().st_size * 345_600 / (4 * count) < 25e6


def test_the_log_beside_the_file_stays_short(path: Path) -> None:
    with writing(path) as writer:
        for ms, reading in steady(2000):
            writer.reading(0, BEGIN + ms, reading)
            writer.commit()
        assert path.with_name(f"{path.name}-wal").stat().st_size <= 1 << 20


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        Writer(str(tmp_path / "nonsuch" / "run.db"), begun(), infos())
    assert list(tmp_path.iterdir()) == []
