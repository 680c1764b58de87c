"""The recorder beside a run, where there is no driver. With GPUs it is in tests/rig."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from tests.unit.support import RUN_ID, box, plan

from vaultcube.results.store import TELEMETRY, RunDirectory, RunStore
from vaultcube.stack.telemetry import recorder_args, recorder_said, recording


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunStore(tmp_path / "runs with spaces").create(RUN_ID)


def test_the_recorder_is_told_its_parent_gpus_and_period(directory: RunDirectory) -> None:
    found = plan(gpus="device=1,3", telemetry_hz=10)
    args = recorder_args(found, directory)
    # Not left to the recorder: by the time it looks, a parent that was killed is another one.
    assert args[args.index("--with-parent") + 1] == str(os.getpid())
    assert [args[at + 1] for at, word in enumerate(args) if word == "--gpu"] == [gpu.uuid for gpu in found.gpus]
    assert args[args.index("--period") + 1] == "0.1"
    assert args[args.index("--db") + 1] == str(directory.path / TELEMETRY)


def test_a_recorder_that_cannot_start_leaves_its_words(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No place where a driver's library could be found.
    monkeypatch.setenv("LD_LIBRARY_PATH", str(directory.path))
    (directory.path / "libnvidia-ml.so.1").write_text("no library")
    with recording(plan(), directory) as child:
        while child is not None and child.running:
            time.sleep(0.01)
    assert recorder_said(directory).startswith("recorder: NVML: ")


def test_a_container_that_records_finds_a_folder_of_its_group(directory: RunDirectory) -> None:
    found = plan(recorder="container").model_copy(update={"user": f"{os.getuid()}:{os.getgid()}"})
    with recording(found, directory) as child:
        assert child is None
        seen = (directory.path / TELEMETRY).parent.stat()
    assert (seen.st_mode & 0o7777, seen.st_gid) == (0o2775, os.getgid())


def test_a_run_that_is_not_recorded_gets_no_folder(directory: RunDirectory) -> None:
    with recording(plan(recorder="off"), directory) as child:
        assert child is None
    assert not (directory.path / TELEMETRY).parent.exists()


def test_a_run_on_the_cpu_is_not_recorded(directory: RunDirectory) -> None:
    assert plan(box(0)).recorder == "off"
    assert recorder_said(directory) == ""
