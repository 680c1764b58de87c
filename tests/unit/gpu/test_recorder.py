"""The recorder without any driver: its times, its words, its exit codes. With one: tests/rig/test_recorder.py."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support import ROOT

from vaultcube.gpu import recorder
from vaultcube.gpu.recorder import BAD_PARAMETERS, NO_FILE, NO_NVML, Ticks, main

SECOND = 1_000_000_000
# The modules of gpu/ that the recorder container holds.
HELD = {"incidents", "kernellog", "nvml", "nvmlcodes", "reader", "readings", "recorder", "rundb", "xid"}


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
        path = Path(recorder._place(str(tmp_path / "run.db"), stamp=True))
        assert path.parent.stat().st_mode & 0o777 == 0o775
    finally:
        os.umask(mask)
    assert path.parent.parent == tmp_path
    assert path.parent.name.startswith("recorder-20")
    assert Path(recorder._place(str(tmp_path / "run.db"), stamp=False)) == tmp_path / "run.db"
    assert recorder._place("run.db", stamp=False) == "run.db"


def imported(path: Path) -> set[str]:
    """Return the modules that a module imports while it is loaded or later."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{name.name}" for name in node.names} | {str(node.module)}
    return found


def test_the_container_holds_what_the_recorder_needs_and_no_more() -> None:
    package = ROOT / "orchestrator" / "vaultcube"
    needed, todo = set(), ["recorder"]
    while todo:
        name = todo.pop()
        needed.add(name)
        words = imported(package / "gpu" / f"{name}.py")
        ours = {word.split(".")[2] for word in words if word.startswith("vaultcube.gpu.")}
        todo += ours - needed
    assert needed == HELD
    dockerfile = (ROOT / "images" / "recorder" / "Dockerfile").read_text()
    assert set(re.findall(r" gpu/(\w+)\.py", dockerfile)) == HELD | {"__init__"}
    foreign = {
        word.split(".")[0] for name in needed for word in imported(package / "gpu" / f"{name}.py")
    } - sys.stdlib_module_names
    assert foreign == {"vaultcube", "pynvml"}
