import contextlib
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stress import cli, launcher
from stress.params import CPU_PHASES, PHASES

from common.outcome import Problem
from training import machine

CPU = ["--gpu", "gpu-0", "--device", "cpu"]


def run(
    results: Path, *argv: str, env: dict[str, str], timeout: float = 60, **more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stress", "--results", str(results), *argv],
        env=env | more,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def events(results: Path, key: str = "gpu-0") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (results / key / "events.jsonl").read_text().splitlines()]


@pytest.fixture
def framework(tmp_path: Path, program_env: dict[str, str]) -> dict[str, str]:
    """Return an environment with a torch that cannot be imported, whether or not there is one here."""
    folder = tmp_path / "frameworks"
    folder.mkdir()
    (folder / "torch.py").write_text("raise ImportError('a torch of paper')\n")
    return program_env | {"PYTHONPATH": os.pathsep.join([str(folder), program_env["PYTHONPATH"]])}


def test_what_it_starts_with_is_told_before_any_framework(tmp_path: Path, framework: dict[str, str]) -> None:
    seen = run(tmp_path, *CPU, "--seconds", "5", env=framework)
    assert seen.returncode == 70
    assert "error [worker-failed]: ImportError: a torch of paper" in seen.stderr
    started, error = events(tmp_path)
    assert (started["kind"], started["program"], started["device"], started["world_size"]) == (
        "started",
        "stress",
        "cpu",
        1,
    )
    assert started["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert len(started["session"]) == 32
    assert (started["resumed_s"], started["fault_injected"]) == (0, False)
    assert started["params"]["phases"] == list(CPU_PHASES)
    assert (error["kind"], error["rank"], error["code"], error["exit_code"]) == ("error", 0, "worker-failed", 70)


def test_a_fault_is_told(tmp_path: Path, framework: dict[str, str]) -> None:
    seen = run(tmp_path, *CPU, "--seconds", "5", env=framework, STRESS_FAULT="flip:fp32:3")
    assert events(tmp_path)[0]["fault_injected"] is True
    assert "A FAULT IS INJECTED (flip:fp32:3)" in seen.stdout
    seen = run(tmp_path, *CPU, "--seconds", "5", env=framework, STRESS_FAULT="melt")
    assert (seen.returncode, events(tmp_path)[-1]["code"]) == (64, "bad-parameter")


def test_sessions_follow_each_other_in_one_file(tmp_path: Path, framework: dict[str, str]) -> None:
    for _ in range(2):
        run(tmp_path, *CPU, "--seconds", "5", env=framework)
    kinds = [event["kind"] for event in events(tmp_path)]
    assert kinds == ["started", "error"] * 2
    sessions = {event["session"] for event in events(tmp_path) if event["kind"] == "started"}
    assert len(sessions) == 2


def covered(results: Path, *more: dict[str, Any]) -> Path:
    """Leave the events of a soak of 50 s."""
    path = results / "gpu-0" / "events.jsonl"
    path.parent.mkdir()
    lines = [
        {"kind": "started", "boot_id": "b"},
        {"kind": "checked", "from_mono": 10, "until_mono": 60, "mono": 60.5},
        *more,
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_what_is_finished_stays_as_it_is(tmp_path: Path, framework: dict[str, str]) -> None:
    path = covered(tmp_path, {"kind": "finished"})
    before = path.read_bytes()
    seen = run(tmp_path, *CPU, "--seconds", "50", env=framework)
    assert (seen.returncode, seen.stdout) == (0, "gpu-0  50 s are covered already\n")
    assert path.read_bytes() == before


def test_who_was_stopped_begins_no_session(tmp_path: Path, framework: dict[str, str]) -> None:
    path = covered(tmp_path)
    before = path.read_bytes()
    (tmp_path / "gpu-0.stopped.json").write_text('{"schema":1,"gpu":"gpu-0","code":"gpu-lost","message":"it is lost"}')
    seen = run(tmp_path, *CPU, "--seconds", "90", env=framework)
    assert (seen.returncode, seen.stdout) == (0, "")
    assert "error [stopped]: gpu-0 was stopped before, and does not go on by itself: it is lost" in seen.stderr
    assert path.read_bytes() == before
    (tmp_path / "gpu-0.stopped.json").unlink()
    assert run(tmp_path, *CPU, "--seconds", "90", env=framework).returncode == 70


def test_a_gpu_that_is_gone_and_that_the_recorder_has_lost_is_not_tried_again(
    tmp_path: Path, framework: dict[str, str]
) -> None:
    path = covered(tmp_path, {"kind": "device", "uuid": "GPU-1"}, {"kind": "error"})
    before = path.read_bytes()
    argv = [sys.executable, "-m", "stress", "--results", str(tmp_path), "--gpu=gpu-0", "--device=cuda"]
    with subprocess.Popen([*argv, "--recorder-lost-s=60"], env=framework, stderr=subprocess.PIPE, text=True) as worker:
        beat = 0
        while worker.poll() is None:
            # As the recorder does, a little faster.
            beat += 1
            document = {"schema": 1, "session": "a", "beat": beat, "gpus": [{"uuid": "GPU-1", "lost": True}]}
            part = tmp_path / "recorder.json.part"
            part.write_text(json.dumps(document))
            part.replace(tmp_path / "recorder.json")
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(0.3)
        assert worker.stderr
        assert "error [gpu-lost]: the recorder has lost this GPU (GPU-1)" in worker.stderr.read()
    assert worker.returncode == 0
    assert json.loads((tmp_path / "gpu-0.stopped.json").read_text())["code"] == "gpu-lost"
    # Nothing began, and nothing failed anew.
    assert path.read_bytes() == before


def test_a_gpu_that_is_gone_and_that_the_recorder_sees_is_a_failure(tmp_path: Path, framework: dict[str, str]) -> None:
    covered(tmp_path, {"kind": "device", "uuid": "GPU-1"}, {"kind": "error"})
    seen = run(tmp_path, "--gpu=gpu-0", "--device=cuda", "--recorder-lost-s=60", env=framework)
    assert (seen.returncode, events(tmp_path)[-1]["code"]) == (69, "no-gpu")


def test_what_is_covered_is_finished_at_once(tmp_path: Path, framework: dict[str, str]) -> None:
    covered(tmp_path)
    assert run(tmp_path, *CPU, "--seconds", "50", env=framework).returncode == 0
    started, finished = events(tmp_path)[2:]
    assert (started["kind"], started["resumed_s"]) == ("started", 50)
    assert (finished["kind"], finished["covered_s"]) == ("finished", 50)
    # More is wanted: then there is something to do.
    assert run(tmp_path, *CPU, "--seconds", "51", env=framework).returncode == 70


def test_two_workers_never_share_a_folder(tmp_path: Path, framework: dict[str, str]) -> None:
    path = covered(tmp_path)
    before = path.read_bytes()
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        seen = run(tmp_path, *CPU, env=framework)
    assert seen.returncode == 64
    assert "another worker is writing" in seen.stderr
    assert "next: end it" in seen.stderr
    # The other one's soak is not blamed for it.
    assert path.read_bytes() == before


def test_nonsense_is_refused_in_the_events_too(tmp_path: Path, framework: dict[str, str]) -> None:
    seen = run(tmp_path, *CPU, "--seconds", "99999999", env=framework)
    assert seen.returncode == 64
    assert "99999999 is not between 1 and 2600000" in seen.stderr
    (error,) = events(tmp_path)
    assert (error["code"], error["exit_code"], error["rank"]) == ("bad-parameter", 64, -1)
    assert run(tmp_path, "--gpu", "../x", env=framework).returncode == 64
    assert not (tmp_path.parent / "x").exists()


def test_a_disk_that_takes_no_more_is_told_on_stderr(tmp_path: Path, framework: dict[str, str]) -> None:
    argv = [sys.executable, "-m", "stress", "--results", str(tmp_path), *CPU]
    seen = subprocess.run(
        ["bash", "-c", 'ulimit -f 0; exec "$@"', "bash", *argv],
        env=framework,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert seen.returncode == 74
    assert "error [events-unwritable]: cannot write" in seen.stderr
    assert "next: free some disk space" in seen.stderr


def test_a_gpu_that_is_not_there_is_exit_69(tmp_path: Path, framework: dict[str, str]) -> None:
    seen = run(tmp_path, "--gpu", "gpu-0", "--device", "cuda", env=framework)
    assert seen.returncode == 69
    assert [event["code"] for event in events(tmp_path)] == ["no-gpu"]


@pytest.mark.parametrize(
    ("argv", "gpus", "device", "phases"),
    [
        ([], 1, "cuda", PHASES),
        ([], 0, "cpu", CPU_PHASES),
        (["--device", "cpu"], 1, "cpu", CPU_PHASES),
        (["--phases", "bf16"], 0, "cpu", ("bf16",)),
        (["--phases", "transfer,tf32"], 2, "cuda", ("transfer", "tf32")),
    ],
)
def test_what_the_machine_decides(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], gpus: int, device: str, phases: tuple[str, ...]
) -> None:
    monkeypatch.setattr(machine, "gpu_count", lambda: gpus)
    params = launcher.resolve(cli.parse(["--results", "/r", "--gpu", "gpu-0", *argv]))
    assert (params.device, params.phases) == (device, phases)


@pytest.mark.parametrize("phase", ["tf32", "transfer"])
def test_phases_of_gpus_are_refused_on_a_cpu(phase: str) -> None:
    with pytest.raises(Problem, match=phase) as caught:
        launcher.resolve(cli.parse(["--results", "/r", *CPU, "--phases", f"fp32,{phase}"]))
    assert caught.value.exit_code == 64


def test_the_worker_computes_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    monkeypatch.setenv("STRESS_FAULT", "flip:fp32:1")
    params = launcher.resolve(cli.parse(["--results", "/r", *CPU]))
    environment = launcher.environment(params)
    assert not {"NVIDIA_TF32_OVERRIDE", "STRESS_FAULT"} & set(environment)
    assert environment["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""


ERROR = {"kind": "error", "code": "device-failed", "message": "m", "next_step": "n", "exit_code": 70}


@pytest.mark.parametrize(
    ("seen", "code", "oom_killed", "expected"),
    [
        ([{"kind": "finished"}], 0, False, None),
        ([ERROR], 70, False, "device-failed"),
        ([], 0, False, "worker-failed"),
        ([], -9, False, "worker-failed"),
        ([], -9, True, "container-out-of-memory"),
        ([], 74, False, "events-unwritable"),
        ([{"kind": "finished"}], 1, False, "worker-failed"),
    ],
)
def test_how_a_session_ended(seen: list[dict[str, Any]], code: int, expected: str | None, *, oom_killed: bool) -> None:
    problem = launcher.conclude(seen, code, oom_killed=oom_killed)
    assert (problem and problem.code) == expected
