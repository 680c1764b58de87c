"""Clearing runs, with docker replayed and real processes as their keepers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.replay import Recording
from tests.unit.support import DATA, RUN_ID, plan, result, unmeasured

from vaultcube.errors import EngineUnreachableError, RefusedError, RunActiveError
from vaultcube.results.lock import locked
from vaultcube.results.schema import Status
from vaultcube.results.store import PLAN, RunDirectory, RunStore
from vaultcube.stack.docker import Docker
from vaultcube.stack.instances import Instance
from vaultcube.stack.takedown import settle, take_down

DEAD = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
DOWN = f"compose --project-name {RUN_ID} down --remove-orphans --timeout 10"
KEEP = (
    "import pathlib, signal, sys\n"
    "from vaultcube.results.lock import locked\n"
    "with locked(pathlib.Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    signal.pause()\n"
)


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """Return a run whose orchestrator was killed after the last window."""
    found = RunStore(tmp_path / "runs").create(RUN_ID)
    found.write(PLAN, plan(given={"windows": 5}).to_json())
    shutil.copy(DATA / "runs" / "good" / "events.jsonl", found.events)
    return found


@pytest.fixture
def keeper(directory: RunDirectory) -> Iterator[subprocess.Popen[str]]:
    """Return a process that looks after the run, and ends when it is told to."""
    with subprocess.Popen(
        [sys.executable, "-c", KEEP, directory.path], stdout=subprocess.PIPE, text=True, env=unmeasured()
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
        child.kill()


def orphan(directory: RunDirectory | None, keeper: int | None = None) -> Instance:
    return Instance(RUN_ID, "ddp", "exited", keeper, str(directory.path) if directory else "")


def engine(recording: Recording, state: str | None = "exited", exit_code: int = 0) -> None:
    """Reply as an engine that holds one container of the run in this state, or none, until it is removed."""
    gone = recording.folder / "gone"
    row = json.dumps(["a" * 64, f"{RUN_ID}-ddp-1", state, "x", RUN_ID, "ddp", ""])
    how = {"Running": state == "running", "ExitCode": exit_code, "OOMKilled": False, "Error": ""}
    labels = {"Labels": {"com.docker.compose.service": "ddp"}}
    recording.says("version --format {{json", '"26.1.5"\n')
    recording.says("version --format {{.", "26.1.5\n")
    recording.says("compose version", "2.26.1\n")
    recording.says("image ls")
    recording.says("ps", does=f"[ -e '{gone}' ] || echo '{row}'" if state else ":")
    recording.says_json("inspect", [{"Id": "a" * 64, "State": how, "Image": "sha256:1", "Config": labels}])
    recording.says(f"compose --project-name {RUN_ID} logs", "ddp-1  | said\n")
    recording.says(f"compose --project-name {RUN_ID} down", does=f"touch '{gone}'")
    recording.says("stop")


def test_an_orphan_that_had_ended_is_judged_as_it_ended(recording: Recording, directory: RunDirectory) -> None:
    engine(recording)
    said = take_down(orphan(directory), Docker())
    assert said == f"{RUN_ID}: cleared; completed, what it had measured is in {directory.path}"
    kept = directory.read_result()
    assert kept is not None
    assert kept.run.status is Status.COMPLETED
    assert kept.provenance.images == {"ddp": "sha256:1"}
    assert kept.metrics["scaling_efficiency"].value == pytest.approx(0.95, abs=0.01)
    assert (directory.path / "container.log").read_text() == "ddp-1  | said\n"
    assert DOWN in recording.calls
    assert not any(call.startswith("stop") for call in recording.calls)


def test_an_orphan_that_ran_is_stopped_and_interrupted(recording: Recording, directory: RunDirectory) -> None:
    engine(recording, "running", 75)
    take_down(orphan(directory), Docker())
    kept = directory.read_result()
    assert kept is not None
    assert kept.run.status is Status.INTERRUPTED
    assert f"stop --time 10 {'a' * 64}" in recording.calls


def test_a_run_without_containers_was_interrupted(recording: Recording, directory: RunDirectory) -> None:
    engine(recording, None)
    said = settle(directory, Docker())
    assert said == f"{RUN_ID}: interrupted; what it had measured is in {directory.path}"
    assert settle(directory, Docker()) == f"{RUN_ID}: nothing of it is running"


def test_what_has_a_result_is_only_cleared(recording: Recording, directory: RunDirectory) -> None:
    engine(recording)
    directory.write_result(result())
    assert take_down(orphan(directory), Docker()) == f"{RUN_ID}: cleared"
    assert directory.read_result() == result()
    assert recording.calls == [DOWN]


def test_a_network_without_a_directory_is_only_cleared(recording: Recording) -> None:
    engine(recording)
    assert take_down(orphan(None), Docker()) == f"{RUN_ID}: cleared"
    assert recording.calls == [DOWN]


def test_a_run_whose_plan_cannot_be_read_is_cleared_all_the_same(recording: Recording, directory: RunDirectory) -> None:
    engine(recording)
    (directory.path / PLAN).write_text("{")
    with pytest.raises(RefusedError, match="cannot be read as a plan") as seen:
        take_down(orphan(directory), Docker())
    assert "\n" not in seen.value.message
    assert DOWN in recording.calls


def test_a_result_that_cannot_be_read_does_not_keep_the_containers(
    recording: Recording, directory: RunDirectory
) -> None:
    engine(recording)
    (directory.path / "result.json").write_text("{")
    take_down(orphan(directory), Docker())
    assert DOWN in recording.calls


def test_an_engine_that_does_not_answer_is_told(recording: Recording, directory: RunDirectory) -> None:
    recording.says("", stderr=DEAD, status=1)
    with pytest.raises(EngineUnreachableError):
        take_down(orphan(None), Docker())
    assert directory.read_result() is None


def test_a_living_keeper_is_asked_to_stop(
    recording: Recording, directory: RunDirectory, keeper: subprocess.Popen[str]
) -> None:
    said = take_down(orphan(directory, keeper.pid), Docker())
    assert said == f"{RUN_ID}: stopped by its own vaultcube (pid {keeper.pid})"
    assert keeper.wait(10) == -15
    assert recording.calls == []


def test_a_keeper_that_is_gone_by_now_makes_an_orphan(
    recording: Recording, directory: RunDirectory, keeper: subprocess.Popen[str]
) -> None:
    engine(recording)
    keeper.kill()
    keeper.wait()
    assert "cleared; completed" in take_down(orphan(directory, keeper.pid), Docker())


def test_a_run_that_is_just_starting_or_ending_is_left_alone(
    directory: RunDirectory, keeper: subprocess.Popen[str]
) -> None:
    with pytest.raises(RunActiveError):
        settle(directory, Docker())
    assert keeper.poll() is None


def test_two_that_clear_the_same_run_do_not_meet(recording: Recording, directory: RunDirectory) -> None:
    """The other one began after we had looked for a keeper."""
    engine(recording)
    with locked(directory.path), pytest.raises(RunActiveError):
        take_down(orphan(directory), Docker())
    assert recording.calls == []
