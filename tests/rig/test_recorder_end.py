"""How the recorder of the simulated box ends: nothing to record, signals, kills, full disks."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from tests.docker.conftest import until
from tests.docker.engines import as_before, in_root
from tests.rig.box import Box
from tests.rig.recordings import PATIENCE_S, RECORDER, Recording, readings, recording, refused
from tests.unit.support import unmeasured

from vaultcube.gpu.telemetry import Telemetry


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """Return a box that shows changes at once."""
    found = Box(tmp_path / "box", jitter=False)
    found.set(reread_ms=50)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "telemetry" / "run.db"


# --- nothing to record ----------------------------------------------------------------------------------------


def test_without_any_gpu_there_is_nothing_to_record(tmp_path: Path, path: Path) -> None:
    seen = refused(Box(tmp_path / "none", "none"), path)
    assert (seen.returncode, seen.stdout, seen.stderr) == (69, "", "recorder: NVML: the driver lists no GPU\n")


def test_a_gpu_that_is_not_there(box: Box, path: Path) -> None:
    box.lose(1)
    seen = refused(box, path, "--gpu", box.uuids[0], "--gpu", box.uuids[1])
    assert (seen.returncode, seen.stdout) == (69, "")
    assert seen.stderr == (f"recorder: NVML: the driver lists no {box.uuids[1]}, and 1 of its GPUs do not answer\n")
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(("fault", "words"), [("mismatch", "version mismatch"), ("permission", "Permission")])
def test_a_driver_that_does_not_start(box: Box, path: Path, fault: str, words: str) -> None:
    box.set(init_error=fault)
    seen = refused(box, path)
    assert (seen.returncode, seen.stdout) == (69, "")
    assert words in seen.stderr
    assert seen.stderr.count("\n") == 1


# --- how it ends ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda how: how.name)
def test_a_signal_ends_it_well(box: Box, path: Path, how: signal.Signals) -> None:
    with recording(box, path, period=60) as run:
        run.process.send_signal(how)
        assert run.process.wait(PATIENCE_S) == 0
        assert run.process.stderr is not None
        assert run.process.stderr.read() == ""
    with Telemetry.open(path) as telemetry:
        assert telemetry.meta.ended_by == how.name


def test_a_kill_costs_a_second_at_most(box: Box, path: Path) -> None:
    with recording(box, path, killed=True) as run:
        run.goes_on(2)
        killed_at = time.monotonic()
        run.process.kill()
        run.process.wait(PATIENCE_S)
    with Telemetry.open(path) as telemetry:
        # Half a second between commits, a tenth between readings; the rest is for a busy machine.
        assert killed_at - telemetry.meta.last_s < 1
        assert telemetry.meta.ended_by is None
        assert telemetry.summarise(box.uuids[0]).coverage > 0.5
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()


def test_a_second_recorder_goes_on_in_the_file(box: Box, path: Path) -> None:
    with recording(box, path, killed=True) as run:
        run.goes_on(0.3)
        run.process.kill()
        run.process.wait(PATIENCE_S)
    until(lambda: time.monotonic() > run.last_s() + 0.5, PATIENCE_S)
    with recording(box, path) as again:
        again.goes_on(0.3)
        # A busy machine may add gaps of its own.
        (gap,) = [gap for gap in again.events("gap") if gap.detail["why"] == "no recorder"]
        assert gap.detail["seconds"] > 0.4
        with Telemetry.open(path) as telemetry:
            assert telemetry.meta.sessions == 2
        assert again.stop() == 0


def test_a_recorder_that_was_stopped_for_a_while_says_so(box: Box, path: Path) -> None:
    with recording(box, path) as run:
        run.goes_on(0.5)
        run.process.send_signal(signal.SIGSTOP)
        since = time.monotonic()
        until(lambda: time.monotonic() > since + 1.5, PATIENCE_S)
        run.process.send_signal(signal.SIGCONT)
        gap = max(run.until(lambda: run.events("gap")), key=lambda event: event.detail["seconds"])
        assert gap.detail["why"] == "late"
        assert gap.detail["seconds"] > 1.4
        assert gap.detail["missed"] >= 13
        run.goes_on(0.5)
        assert run.summary(0).longest_gap_s > 1.4
        assert run.stop() == 0
    times = [float(str(row[0])) for row in readings(path, "mono_s", "gpu = 0")]
    _, again = max(pairwise(times), key=lambda pair: pair[1] - pair[0])
    since_then = [at - again for at in times if at > again]
    # What was missed is not made up for: ten a second and no more, but for one that came late.
    assert len(since_then) <= max(since_then) * 10 + 1.5


PARENT = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def test_it_ends_with_its_parent(box: Box, path: Path) -> None:
    argv = [sys.executable, "-c", PARENT, *RECORDER, "--db", str(path), "--with-parent"]
    env = {**unmeasured(), **box.env()}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    until(lambda: not alive(child), PATIENCE_S, "the recorder ended")
    with Telemetry.open(path) as telemetry:
        assert telemetry.meta.ended_by == "parent"


def alive(pid: int) -> bool:
    """Say whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_parent_that_is_gone_already(box: Box, path: Path) -> None:
    seen = refused(box, path, "--with-parent", "1", "--period", "60")
    assert seen.returncode == 0
    with Telemetry.open(path) as telemetry:
        assert telemetry.meta.ended_by == "parent"


# --- disks ----------------------------------------------------------------------------------------------------


def on_a_disk(box: Box, folder: Path, script: str, kept: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Record into a folder of a private mount namespace, and keep what it held; mounts are the script's."""
    folder.mkdir()
    kept.mkdir()
    argv = [*as_before(), *RECORDER, "--db", f"{folder}/run.db", *words]
    shell = f'{script}; "$@"; code=$?; cp -a {folder}/. {kept}; exit $code'
    return subprocess.run(
        in_root(["unshare", "--mount", "--propagation", "private", "sh", "-c", shell, "sh", *argv]),
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **box.env()},
        check=False,
    )


def test_a_disk_that_fills_up_ends_it_with_what_was_recorded(box: Box, tmp_path: Path) -> None:
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    script = f"mount -t tmpfs -o size=180k,mode=1777 vaultcube-test {disk}"
    seen = on_a_disk(box, disk, script, kept, "--period", "0.1")
    assert seen.returncode == 74, seen.stderr
    assert seen.stdout == "recording\n"
    why = f"{disk}/run.db cannot be written: the disk is full (the one of {disk})"
    assert seen.stderr == f"recorder: RECORDING HAS ENDED: {why}\n"
    with Telemetry.open(kept / "run.db") as telemetry:
        assert telemetry.summarise(box.uuids[0]).samples > 10
        assert telemetry.meta.ended_by is None
    db = sqlite3.connect(kept / "run.db")
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()


def test_a_disk_that_may_not_be_written(box: Box, tmp_path: Path) -> None:
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    script = f"mount -t tmpfs -o ro vaultcube-test {disk}"
    seen = on_a_disk(box, disk, script, kept)
    assert (seen.returncode, seen.stdout) == (74, "")
    assert seen.stderr == f"recorder: {disk}/run.db cannot be written: unable to open database file\n"


def test_a_file_of_somebody_else_is_left_alone(box: Box, path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("notes\n" * 500)
    seen = refused(box, path)
    assert (seen.returncode, seen.stdout) == (74, "")
    assert seen.stderr == f"recorder: {path} cannot be written: file is not a database\n"
    assert path.read_text() == "notes\n" * 500


def test_recording_goes_on_when_nobody_listens(box: Box, path: Path) -> None:
    argv = [*RECORDER, "--db", str(path), "--period", "0.1"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env={**os.environ, **box.env()}) as process:
        assert process.stdout is not None
        process.stdout.close()
        run = Recording(box, path, process)  # type: ignore[arg-type]
        run.until(lambda: run.summary(0).samples > 5)
        assert run.stop() == 0
