"""A run from start to result with docker replayed, and the ways it can break off. The real engine is in tests/docker."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.replay import Recording
from tests.unit.support import DATA, RUN_ID, box, plan

from vaultcube.errors import DiskTooSmallError
from vaultcube.results.events import AnyEvent
from vaultcube.results.schema import Result, Status, Verdict
from vaultcube.results.store import RESERVE, RunDirectory, RunStore
from vaultcube.stack.docker import Docker, EngineInfo
from vaultcube.stack.lifecycle import JobRun
from vaultcube.stack.plan import Plan
from vaultcube.stack.reservation import NAME, reserve
from vaultcube.stack.signals import Stop

ENGINE = EngineInfo("26.1.5", "2.26.1")
DEAD = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
COMPOSE = f"compose --progress plain --project-name {RUN_ID} "


class Bench:
    """A run directory, a replayed docker, and what comes out."""

    def __init__(self, recording: Recording, root: Path) -> None:
        self.docker = recording
        self.directory = RunStore(root).create(RUN_ID)
        self.seen: list[AnyEvent] = []
        self.plan: Plan = plan(given={"windows": 5})

    def engine(self, case: str = "good", *, exit_code: int = 0, **replies: dict[str, Any]) -> None:
        """Reply as an engine whose container writes these events and ends so; `replies` come first."""
        gone = self.docker.folder / "gone"
        row = json.dumps(["a" * 64, f"{RUN_ID}-ddp-1", "running", "Up", RUN_ID, "ddp", ""])
        state = {"Running": False, "ExitCode": exit_code, "OOMKilled": False, "Error": ""}
        labels = {"Labels": {"com.docker.compose.service": "ddp"}}
        asked = {
            "up": f"{COMPOSE}* up --detach",
            "config": f"{COMPOSE}* config",
            "wait": "wait",
            "events": "events",
            "stop": "stop",
            "down": f"compose --project-name {RUN_ID} down",
            "logs": f"compose --project-name {RUN_ID} logs",
            "inspect": "inspect",
            "ps": "ps",
            "version": "version",
        }
        events = DATA / "runs" / case / "events.jsonl"
        ordinary: dict[str, dict[str, Any]] = {
            "up": {"does": f"cp '{events}' '{self.directory.events}'"},
            "config": {"stdout": '{"services": {}}\n'},
            "down": {"does": f"touch '{gone}'"},
            "logs": {"stdout": "ddp-1  | said\n"},
            "inspect": {
                "stdout": json.dumps([{"Id": "a" * 64, "State": state, "Image": "sha256:1", "Config": labels}])
            },
            "ps": {"does": f"[ -e '{gone}' ] || echo '{row}'"},
            "version": {"stdout": "26.1.5\n"},
        }
        for name, words in asked.items():
            self.docker.says(words, **{**ordinary.get(name, {}), **replies.get(name, {})})

    def run(self, watch: Callable[[AnyEvent], None] | None = None) -> Result:
        with Stop() as stop:
            return JobRun(self.plan, self.directory, Docker(stop), stop, watch or self.seen.append).execute(ENGINE)

    @property
    def cleared(self) -> bool:
        return (self.docker.folder / "gone").exists()


@pytest.fixture
def bench(recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    # The replay answers at once.
    monkeypatch.setattr("vaultcube.stack.lifecycle.POLL_S", 0.02)
    return Bench(recording, tmp_path / "runs with spaces")


def kept(directory: RunDirectory) -> Result:
    found = directory.read_result()
    assert found is not None
    return found


def test_a_run_that_works_leaves_everything_but_containers(bench: Bench) -> None:
    bench.engine()
    found = bench.run()
    assert (found.run.status, found.run.error) == (Status.COMPLETED, None)
    assert found.verdict is Verdict.UNAVAILABLE
    assert found == kept(bench.directory)
    assert len(bench.seen) == 94
    assert bench.cleared
    assert (found.provenance.engine, found.provenance.images) == ("26.1.5", {"ddp": "sha256:1"})
    assert found.provenance.compose_sha256
    # What is missing is told in recorder.log, if the recorder got so far in so short a run.
    assert {one.path for one in found.artifacts} - {"telemetry/recorder.log"} == {
        "plan.json",
        "compose.override.yml",
        "compose.resolved.json",
        "containers.json",
        "container.log",
        "results/events.jsonl",
    }
    reasons = {check.name: check.reason for check in found.checks}
    assert reasons["gpu_utilisation"].startswith("no telemetry was recorded")


def test_the_container_says_why_it_failed(bench: Bench) -> None:
    bench.engine("wrong-allreduce", exit_code=70)
    found = bench.run()
    assert (found.run.status, found.verdict) == (Status.FAILED, Verdict.FAIL)
    assert found.run.error is not None
    assert found.run.error.code == "workload-failed"
    assert "summed 3 elements wrongly" in found.run.error.message


def test_a_start_that_the_engine_refuses_is_told_and_cleared(bench: Bench) -> None:
    said = 'Error response from daemon: could not select device driver "nvidia" with capabilities: [[gpu]]\n'
    bench.engine(up={"stderr": said, "status": 1, "does": ":"})
    found = bench.run()
    assert found.run.status is Status.FAILED
    assert found.run.error is not None
    assert "Container Toolkit" in found.run.error.next_step
    assert {check.verdict for check in found.checks} == {Verdict.UNAVAILABLE}
    assert bench.cleared


def lock_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "lock"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def looks(folder: Path, name: str) -> str:
    """Return a line of shell that notes in a file whether the reservation is held."""
    return f"if flock --nonblock '{folder / NAME}' true; then echo free; else echo held; fi > '{folder / name}'"


def run_reserved(bench: Bench, folder: Path) -> Result:
    with Stop() as stop, reserve(stop, print, folders=[folder]) as reservation:
        job = JobRun(bench.plan, bench.directory, Docker(stop), stop, bench.seen.append, reservation)
        return job.execute(ENGINE)


def test_gpus_are_reserved_until_the_container_runs(bench: Bench, tmp_path: Path) -> None:
    folder = lock_folder(tmp_path)
    bench.engine(up={"does": looks(folder, "up")}, wait={"does": looks(folder, "wait")})
    run_reserved(bench, folder)
    assert [(folder / name).read_text() for name in ("up", "wait")] == ["held\n", "free\n"]


def test_what_a_start_that_failed_left_behind_is_cleared_before_the_next_one_chooses(
    bench: Bench, tmp_path: Path
) -> None:
    folder = lock_folder(tmp_path)
    gone = f"touch '{bench.docker.folder}/gone'"
    bench.engine(up={"status": 1, "stderr": "no\n", "does": ":"}, down={"does": f"{looks(folder, 'down')}; {gone}"})
    run_reserved(bench, folder)
    assert (folder / "down").read_text() == "held\n"


def test_an_interrupted_run_keeps_what_it_had_measured(bench: Bench) -> None:
    bench.engine("truncated", wait={"after_s": 600}, inspect={"stdout": "[]"})
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    found = bench.run()
    timer.join()
    assert found.run.status is Status.INTERRUPTED
    assert found.run.error is not None
    assert (found.run.error.code, found.run.error.message) == ("interrupted", "stopped by SIGINT")
    assert found.metrics["solo_throughput_samples_per_s"].value == pytest.approx(2000, rel=0.01)
    assert bench.cleared


def test_a_run_that_stands_still_is_timed_out(bench: Bench) -> None:
    bench.engine("lost-rank", wait={"after_s": 600})
    bench.plan = bench.plan.model_copy(update={"timeout_s": 0.3})
    found = bench.run()
    assert found.run.status is Status.TIMEOUT
    assert found.run.error is not None
    assert found.run.error.code == "timeout"
    assert bench.cleared


def test_an_engine_that_goes_away_for_good_leaves_a_result(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ten seconds of hope are for engines that restart.
    monkeypatch.setattr("vaultcube.stack.ending.ENGINE_RETURN_S", 0.2)
    lost: dict[str, Any] = {"stdout": "", "stderr": DEAD, "status": 1}
    bench.engine("truncated", wait=lost, inspect=lost, version=lost)
    found = bench.run()
    assert found.run.status is Status.FAILED
    assert found.run.error is not None
    assert found.run.error.code == "engine-lost"
    assert "vaultcube down" in found.run.error.next_step


def test_an_engine_that_restarts_is_waited_for(bench: Bench) -> None:
    back = bench.docker.folder / "back"
    lost: dict[str, Any] = {"stdout": "", "stderr": DEAD, "status": 1}
    retry = f"[ -e '{back}' ] && exit 0; touch '{back}'"
    bench.engine("truncated", wait=lost, inspect=lost, version={**lost, "does": retry})
    assert bench.run().run.error is not None
    assert sum(call.startswith("version") for call in bench.docker.calls) == 2


def test_a_container_that_somebody_removed_is_told(bench: Bench) -> None:
    bench.engine("truncated", wait={"does": f"touch '{bench.docker.folder}/gone'"})
    found = bench.run()
    assert found.run.error is not None
    assert found.run.error.code == "container-killed"
    assert "removed" in found.run.error.message


def test_a_container_that_is_removed_while_it_runs_is_not_waited_for(bench: Bench) -> None:
    removed = bench.docker.folder / "removed"
    row = json.dumps(["a" * 64, f"{RUN_ID}-ddp-1", "running", "Up", RUN_ID, "ddp", ""])
    bench.plan = bench.plan.model_copy(update={"timeout_s": 10.0})
    bench.engine(
        "truncated",
        wait={"does": f"touch '{removed}'"},
        ps={"does": f"[ -e '{removed}' ] || echo '{row}'"},
        inspect={"stdout": "[]\n", "stderr": "Error: No such container: a\n", "status": 1},
    )
    found = bench.run()
    assert found.run.error is not None
    assert found.run.error.code == "container-killed"


def test_a_bug_of_ours_leaves_a_result_and_no_container(bench: Bench) -> None:
    bench.engine()

    def watch(_event: AnyEvent) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bench.run(watch)
    assert bench.cleared
    assert kept(bench.directory).run.status is Status.FAILED


def test_a_last_line_without_its_newline_is_still_watched(bench: Bench) -> None:
    bench.engine("good", wait={"does": f"truncate --size=-1 '{bench.directory.events}'; sleep 0.5"})
    bench.run()
    assert len(bench.seen) == 94


def test_a_disk_that_fills_up_still_takes_the_result(bench: Bench) -> None:
    bench.engine()
    (bench.directory.path / ".plan.json.part").symlink_to("/dev/full")
    found = bench.run()
    assert found.run.error is not None
    assert found.run.error.code == DiskTooSmallError.code
    assert not (bench.directory.path / RESERVE).exists()
    assert kept(bench.directory) == found
    assert not any(" up " in call for call in bench.docker.calls)


def test_other_runs_on_the_same_cpu_disturb(bench: Bench) -> None:
    bench.plan = plan(box(0), ranks=4, given={"windows": 5, "batch_size": 256})
    other = json.dumps(["b" * 64, "x", "running", "Up", "ddp-other", "ddp", ""])
    ours = json.dumps(["a" * 64, "x", "running", "Up", RUN_ID, "ddp", ""])
    bench.engine(ps={"stdout": f"{other}\n{ours}\n", "does": ":"}, events={"stdout": f"{RUN_ID}\nddp-late\nddp-late\n"})
    found = bench.run()
    assert found.disturbances[:2] == [
        "run ddp-late used the CPU at the same time",
        "run ddp-other used the CPU at the same time",
    ]


def test_not_knowing_who_shared_the_cpu_does_not_fail_a_good_run(bench: Bench) -> None:
    bench.plan = plan(box(0), ranks=4, given={"windows": 5, "batch_size": 256})
    bench.engine(events={"stderr": "Error response from daemon: too many events\n", "status": 1})
    found = bench.run()
    assert found.run.status is Status.COMPLETED
    assert found.disturbances[0].startswith("whether another run used the CPU could not be found out: ")


def test_a_run_on_gpus_asks_nothing_about_the_cpu(bench: Bench) -> None:
    bench.engine()
    bench.run()
    assert not any(call.startswith("events") for call in bench.docker.calls)


def test_a_project_that_comes_up_late_is_removed_again(bench: Bench) -> None:
    """An `up` that was cut short may have left a request with the engine."""
    row = json.dumps(["a" * 64, "x", "created", "Created", RUN_ID, "ddp", ""])
    bench.engine(ps={"stdout": f"{row}\n", "does": ":"})
    bench.run()
    assert sum(" down " in call for call in bench.docker.calls) == 2
