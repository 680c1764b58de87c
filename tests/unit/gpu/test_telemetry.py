from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.gpu.recording import BEGIN, BOOT, BUSY, NOON, infos, record, steady, writing
from tests.unit.support import ROOT, unmeasured

from vaultcube.gpu.telemetry import Telemetry, TelemetryError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def test_what_a_file_says_about_itself(path: Path) -> None:
    record(path, steady(11))
    with Telemetry.open(path) as telemetry:
        meta = telemetry.meta
    assert (meta.schema, meta.simulated, meta.driver, meta.cuda) == (
        "vaultcube.telemetry/1",
        False,
        "575.57.08",
        "12.9",
    )
    assert (meta.boot_id, meta.period_s, meta.kernel_log, meta.xid_events) == (BOOT, 1.0, "/dev/kmsg", True)
    assert (meta.started_s, meta.last_s, meta.started_wall_s) == (BEGIN / 1000, BEGIN / 1000 + 10, NOON / 1000)
    assert (meta.sessions, meta.ended_by) == (1, "SIGTERM")
    assert [gpu.uuid for gpu in meta.gpus] == ["GPU-0", "GPU-1"]
    assert meta.gpus[1].pci_bus_id == "00000000:02:00.0"


def test_one_simulated_session_marks_the_file(path: Path) -> None:
    record(path, steady(2), simulated=True)
    record(path, [], boot_id="another", mono_ms=1000, wall_ms=NOON + 60_000)
    with Telemetry.open(path) as telemetry:
        assert telemetry.meta.simulated
        assert telemetry.meta.sessions == 2


def test_events_in_order_with_both_clocks(path: Path) -> None:
    with writing(path) as writer:
        writer.event(BEGIN + 2000, "aer", count=70, sources="kernel", detail={"port": "0000:00:03.0"})
        number = writer.event(BEGIN + 1000, "xid", code=79, sources="kernel", detail={"text": "gone"})
        writer.amend(number, position=1, count=2, sources="nvml,kernel", detail={"text": "gone", "more": 1})
    with Telemetry.open(path) as telemetry:
        xid, aer = telemetry.events()
        assert telemetry.events(BEGIN / 1000 + 1.5) == [aer]
        assert telemetry.events(end_s=BEGIN / 1000 + 1.5) == [xid]
        assert telemetry.events(0, 1) == []
    assert (xid.at_s, xid.wall_s) == (BEGIN / 1000 + 1, NOON / 1000 + 1)
    assert (xid.kind, xid.uuid, xid.code, xid.count) == ("xid", "GPU-1", 79, 2)
    assert (xid.sources, xid.detail) == (("nvml", "kernel"), {"text": "gone", "more": 1})
    assert (aer.uuid, aer.code, aer.count) == (None, None, 70)


def test_an_earlier_boot_lies_before_in_time(path: Path) -> None:
    with writing(path) as writer:
        writer.event(BEGIN, "lost", position=0)
    with writing(path, boot_id="another", mono_ms=1000, wall_ms=NOON + 60_000) as writer:
        writer.event(1000, "restart")
    with Telemetry.open(path) as telemetry:
        lost, restart = telemetry.events()
        assert telemetry.meta.started_s == lost.at_s
    assert (lost.at_s, restart.at_s) == (-59.0, 1.0)
    assert restart.wall_s - lost.wall_s == 60


def test_a_file_is_read_while_it_is_written(path: Path) -> None:
    with writing(path) as writer:
        with Telemetry.open(path) as telemetry:
            assert telemetry.meta.gpus
            assert telemetry.summarise("GPU-0").samples == 0
            for ms, reading in steady(5):
                writer.reading(0, BEGIN + ms, reading)
            assert telemetry.summarise("GPU-0").samples == 0
            writer.commit()
            assert telemetry.summarise("GPU-0").samples == 5
        assert len(list(path.parent.iterdir())) == 3
    assert len(list(path.parent.iterdir())) == 1


def test_a_reader_does_not_keep_the_writer_from_ending(path: Path) -> None:
    with writing(path) as writer:
        telemetry = Telemetry.open(path)
        writer.reading(0, BEGIN, BUSY)
    assert telemetry.summarise("GPU-0").samples == 1
    telemetry.close()
    with Telemetry.open(path) as again:
        assert again.summarise("GPU-0").samples == 1
        assert again.meta.ended_by == "SIGTERM"


READ = """
import os, sys
from vaultcube.gpu.telemetry import Telemetry
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
assert not os.access(os.path.dirname(sys.argv[1]), os.W_OK)
with Telemetry.open(sys.argv[1]) as telemetry:
    print(telemetry.summarise("GPU-0").samples)
"""


def read_as_nobody(path: Path) -> str:
    """Read a file as a user who may not write its folder."""
    argv = [sys.executable, "-B", "-c", READ, str(path)]
    env = {**unmeasured(), "PYTHONPATH": f"{ROOT}/orchestrator"}
    path.parent.chmod(0o555)
    seen = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env=env)
    path.parent.chmod(0o755)
    assert seen.returncode == 0, seen.stderr
    return seen.stdout.strip()


@pytest.fixture
def public() -> Iterator[Path]:
    """Return a folder that everybody can reach."""
    with tempfile.TemporaryDirectory(prefix="vaultcube-telemetry-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_finished_file_needs_no_writable_folder(public: Path) -> None:
    record(public / "run.db", steady(3))
    assert read_as_nobody(public / "run.db") == "3"


def test_nor_does_one_that_is_being_written(public: Path) -> None:
    with writing(public / "run.db") as writer:
        writer.reading(0, BEGIN, BUSY)
        writer.commit()
        assert read_as_nobody(public / "run.db") == "1"


def test_nor_does_one_whose_writer_was_killed_and_that_was_copied(public: Path) -> None:
    """With the index of its log, and without."""
    with writing(public / "live.db") as writer:
        for ms, reading in steady(4):
            writer.reading(0, BEGIN + ms, reading)
        writer.commit()
        for end in ("", "-wal", "-shm"):
            shutil.copy(public / f"live.db{end}", public / f"run.db{end}")
    assert read_as_nobody(public / "run.db") == "4"
    (public / "run.db-shm").unlink()
    assert read_as_nobody(public / "run.db") == "4"
    assert not (public / "run.db-shm").exists()


def test_what_is_no_telemetry_says_so(path: Path) -> None:
    with pytest.raises(TelemetryError, match="there is no telemetry at"):
        Telemetry.open(path)
    path.write_text("notes\n" * 500)
    with pytest.raises(TelemetryError, match="not a database"):
        Telemetry.open(path)
    path.write_bytes(b"")
    with pytest.raises(TelemetryError, match=r"not vaultcube\.telemetry/1"):
        Telemetry.open(path)
    with pytest.raises(TelemetryError, match="there is no telemetry at"):
        Telemetry.open(path.parent)


def test_a_file_cut_short_says_so(path: Path) -> None:
    record(path, steady(3000))
    with path.open("r+b") as file:
        file.truncate(40_000)
    with pytest.raises(TelemetryError), Telemetry.open(path) as telemetry:
        telemetry.summarise("GPU-0")


def test_a_file_without_a_session_says_so(path: Path) -> None:
    record(path, [])
    db = sqlite3.connect(path)
    db.execute("DELETE FROM sessions")
    db.commit()
    db.close()
    with Telemetry.open(path) as telemetry:
        with pytest.raises(TelemetryError, match="broke off"):
            _ = telemetry.meta
        assert telemetry.events() == []


def test_gpus_keep_their_numbers_over_sessions(path: Path) -> None:
    record(path, steady(2))
    with writing(path, infos(3)[::-1], mono_ms=BEGIN + 5000, wall_ms=NOON + 5000) as writer:
        writer.reading(0, BEGIN + 5000, BUSY)
        writer.reading(2, BEGIN + 5001, BUSY)
    with Telemetry.open(path) as telemetry:
        assert [gpu.uuid for gpu in telemetry.meta.gpus] == ["GPU-0", "GPU-1", "GPU-2"]
        assert [telemetry.summarise(f"GPU-{number}").samples for number in range(3)] == [3, 0, 1]
