"""The recorder without any driver: its times, its words, its exit codes. With one: tests/rig/test_recorder.py."""

from __future__ import annotations

import ast
import os
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.gpu.recording import BEGIN, BOOT, NOON, infos, record, steady
from tests.unit.support import ROOT

from vaultcube.gpu import recorder, recorderargs
from vaultcube.gpu.kernellog import VARIABLE, KernelLog
from vaultcube.gpu.reader import Opened
from vaultcube.gpu.recorder import BAD_PARAMETERS, NO_FILE, NO_NVML, Recorder, main
from vaultcube.gpu.telemetry import Event, Telemetry
from vaultcube.gpu.ticks import Ticks

SECOND = 1_000_000_000
# The modules of gpu/ that a recorder loads; as a process it runs beside what is measured.
LOADED = {"beat", "incidents", "kernellog", "nvml", "nvmlcodes", "reader", "readings", "recorder", "recorderargs"}
LOADED |= {"rundb", "ticks", "xid"}


def test_ticks_are_even_and_do_not_drift() -> None:
    ticks = Ticks(5, SECOND)
    for number in range(100):
        assert ticks.next_ns == 5 + number * SECOND
        # Each a little late, which nobody adds up.
        assert ticks.due(5 + number * SECOND + 30_000_000) == (True, 0)


def test_before_its_time_nothing_is_due() -> None:
    ticks = Ticks(0, SECOND)
    assert ticks.due(0) == (True, 0)
    assert ticks.due(SECOND - 1) == (False, 0)
    assert ticks.due(SECOND) == (True, 0)


@pytest.mark.parametrize(
    ("now_s", "due", "missed", "next_s"),
    [
        (1.4, True, 0, 2),
        # Nearer to the next one: that one is waited for.
        (1.6, False, 1, 2),
        (5.2, True, 4, 6),
        (5.7, False, 5, 6),
    ],
)
def test_late_ticks_are_left_out_and_never_bunched(now_s: float, due: bool, missed: int, next_s: int) -> None:  # noqa: FBT001 - a table
    ticks = Ticks(0, SECOND)
    ticks.due(0)
    assert ticks.due(int(now_s * SECOND)) == (due, missed)
    assert ticks.next_ns == next_s * SECOND


@given(st.integers(10**8, 60 * 10**9), st.lists(st.integers(0, 10**11), min_size=1, max_size=50))
def test_every_tick_is_taken_or_missed(period: int, steps: list[int]) -> None:
    ticks, now, last = Ticks(0, period), 0, None
    taken = missed = 0
    for step in steps:
        now += step
        due, left_out = ticks.due(now)
        missed += left_out
        if due:
            taken += 1
            assert last is None or now - last >= period // 2
            last = now
        assert ticks.next_ns == (taken + missed) * period
        assert ticks.next_ns > now


@pytest.mark.parametrize("period", ["0", "0.05", "61", "nan", "-1", "one"])
def test_a_period_out_of_bounds_is_refused(period: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as seen:
        main(["--db", "run.db", "--period", period])
    assert seen.value.code == BAD_PARAMETERS
    error = capsys.readouterr().err
    assert error.startswith("recorder: ")
    assert error.count("\n") == 1


def run(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-P", "-m", "vaultcube.gpu.recorder", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, cwd=cwd, env=os.environ)


def test_without_a_driver_it_ends_with_one_line(tmp_path: Path) -> None:
    seen = run("--db", str(tmp_path / "new" / "run.db"), "--gpu", "GPU-nonsuch")
    assert (seen.returncode, seen.stdout) == (NO_NVML, "")
    assert seen.stderr.startswith("recorder: NVML: ")
    assert seen.stderr.count("\n") == 1
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_no_bug(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    seen = run("--db", str(tmp_path / "file" / "run.db"))
    assert (seen.returncode, seen.stdout) == (NO_FILE, "")
    assert "file/run.db cannot be written: " in seen.stderr
    assert seen.stderr.count("\n") == 1


def test_a_stamp_gives_each_recording_a_folder(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        path = Path(recorderargs.place(str(tmp_path / "run.db"), stamp=True))
        assert path.parent.stat().st_mode & 0o777 == 0o775
    finally:
        os.umask(mask)
    assert path.parent.parent == tmp_path
    assert path.parent.name.startswith("recorder-20")
    assert Path(recorderargs.place(str(tmp_path / "run.db"), stamp=False)) == tmp_path / "run.db"
    assert recorderargs.place("run.db", stamp=False) == "run.db"


# --- clocks and boots, which no test can turn ------------------------------------------------------------------


class Turned(Recorder):
    """A recorder that begins on a machine whose clocks a test turns; it has no signals and no NVML."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, *, boot_id: str = BOOT) -> None:
        self.offset_ms, self.asleep_ms = NOON - BEGIN, 0
        monkeypatch.setattr(recorder, "_clocks", lambda: (self.offset_ms, self.asleep_ms))
        monkeypatch.setattr(recorder, "_boot_id", lambda: boot_id)
        # A minute after the recordings that tests make.
        monkeypatch.setattr(time, "monotonic_ns", lambda: (BEGIN + 60_000) * 1_000_000)
        self._path = str(path)
        self._beat_path = None
        self._period = SECOND
        self._log = KernelLog({VARIABLE: os.devnull})
        self._open(
            Opened(
                places=(0, 1),
                gpus=tuple(infos()),
                others=(),
                missing=((2, "lost"),),
                driver="575.57.08",
                cuda="12.9",
                simulated=False,
                xid_events=True,
            )
        )

    def look(self, at_ms: int) -> None:
        """Let it look at the clocks."""
        self._look_at_clocks(at_ms * 1_000_000)

    def close(self) -> list[Event]:
        """End it, and return the events that it wrote."""
        self._writer.close(BEGIN + 60_000, "SIGTERM")
        self._log.close()
        with Telemetry.open(self._path) as telemetry:
            return telemetry.events()


@pytest.fixture
def turned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Turned:
    return Turned(tmp_path / "run.db", monkeypatch)


def test_a_gpu_that_was_lost_from_the_start_is_told_of(turned: Turned) -> None:
    (lost,) = turned.close()
    assert (lost.kind, lost.detail["nvml_index"]) == ("lost", 2)


def test_wall_time_that_is_set_is_told_of_and_slewing_is_followed(turned: Turned) -> None:
    start = turned._writer._base
    turned.offset_ms += 40
    turned.look(start + 1000)
    turned.offset_ms += 40
    turned.look(start + 2000)
    turned.offset_ms -= 3_600_000
    turned.look(start + 3000)
    _, jump = turned.close()
    assert (jump.kind, jump.detail) == ("clock_jump", {"seconds": -3600.0})
    db = sqlite3.connect(turned._path)
    clock = db.execute("SELECT t_ms, wall_ms - t_ms FROM clock").fetchall()
    db.close()
    first = clock[0][1]
    # The first 40 ms alone are not worth a row.
    assert clock == [(0, first), (2000, first + 80), (3000, first + 80 - 3_600_000)]


def test_a_machine_that_slept_did_not_record(turned: Turned) -> None:
    start = turned._writer._base
    turned.asleep_ms += 60_000
    turned.offset_ms += 60_000
    turned.look(start + 1000)
    turned.look(start + 2000)
    _, gap = turned.close()
    assert gap.kind == "gap"
    assert gap.detail == {"seconds": 60.0, "suspended_s": 60.0, "missed": 60, "why": "suspended"}


@pytest.mark.parametrize(("boot_id", "kind"), [("another", "restart"), (BOOT, "gap")])
def test_what_lies_between_two_sessions_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, boot_id: str, kind: str
) -> None:
    record(tmp_path / "run.db", steady(3))
    event = Turned(tmp_path / "run.db", monkeypatch, boot_id=boot_id).close()[0]
    assert event.kind == kind
    assert event.detail["seconds"] == 58
    assert event.detail.get("boot_id", BOOT) == boot_id


def test_both_clocks_are_read_in_one_breath() -> None:
    offset, asleep = recorder._clocks()
    assert abs(offset - (time.time_ns() - time.monotonic_ns()) / 1e6) < 1000
    assert asleep >= 0


def imported(path: Path) -> set[str]:
    """Return the modules that a module imports while it is loaded or later."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{name.name}" for name in node.names} | {str(node.module)}
    return found


def test_it_loads_little_and_nothing_foreign_but_nvml() -> None:
    package = ROOT / "orchestrator" / "vaultcube"
    needed, todo = set(), ["recorder"]
    while todo:
        name = todo.pop()
        needed.add(name)
        words = imported(package / "gpu" / f"{name}.py")
        ours = {word.split(".")[2] for word in words if word.startswith("vaultcube.gpu.")}
        todo += ours - needed
    assert needed == LOADED
    foreign = {
        word.split(".")[0] for name in needed for word in imported(package / "gpu" / f"{name}.py")
    } - sys.stdlib_module_names
    assert foreign == {"vaultcube", "pynvml"}


def test_the_image_holds_the_whole_package() -> None:
    package = ROOT / "orchestrator" / "vaultcube"
    dockerfile = (ROOT / "images" / "recorder" / "Dockerfile").read_text()
    copied = re.findall(
        r"^COPY --from=vaultcube --chmod=755 (\S+) /opt/recorder/vaultcube/(\S*)$", dockerfile, re.MULTILINE
    )
    assert all(source.rpartition("/")[0] == place.rstrip("/") for source, place in copied)
    held = {path.parent.relative_to(package) for suffix in ("py", "toml") for path in package.rglob(f"*.{suffix}")}
    assert {Path(place) for _, place in copied} == {path for path in held if path.parts[:1] != ("_assets",)}
