"""ps, down, logs, runs and images in our own process, with docker replayed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Command
from tests.unit.replay import Recording
from tests.unit.support import RUN_ID, plan, result

from vaultcube.cli.main import dispatch
from vaultcube.errors import NotFoundError, RefusedError, RunActiveError, UsageError
from vaultcube.results.lock import locked
from vaultcube.results.store import LOG, PLAN, RunDirectory, RunStore
from vaultcube.stack.instances import HeldGpu, Instance

OTHER = "ddp-20260102-120000-cd34"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    """Return where the command keeps runs, empty."""
    monkeypatch.setenv("VAULTCUBE_RESULTS_DIR", str(tmp_path / "runs"))
    return RunStore(tmp_path / "runs")


def made(store: RunStore, name: str = RUN_ID) -> RunDirectory:
    found = store.create(name)
    found.write(PLAN, plan().to_json())
    return found


def holds(recording: Recording, *rows: tuple[str, str, str], networks: str = "") -> None:
    """Reply as an engine with these containers: run, state, run directory."""
    lines = [json.dumps(["a" * 64, "x", state, "x", run, "ddp", folder]) for run, state, folder in rows]
    recording.says("ps", "".join(line + "\n" for line in lines))
    recording.says("network ls", networks)
    recording.says("compose")


def test_nothing_is_running(recording: Recording, capsys: pytest.CaptureFixture[str]) -> None:
    holds(recording)
    for words in (["ps"], ["down"], ["down", "--all"]):
        dispatch(words)
        assert capsys.readouterr().out == "nothing is running\n"
    dispatch(["ps", "--json"])
    assert capsys.readouterr().out == "[]\n"
    assert not any(call.startswith("compose") for call in recording.calls)


def test_what_is_running_and_who_looks_after_it(
    recording: Recording, store: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = made(store)
    recording.says("ps --quiet")
    holds(recording, (RUN_ID, "running", str(directory.path)), (OTHER, "exited", ""), networks="ddp-net\n")
    with locked(directory.path):
        dispatch(["ps"])
        rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        dispatch(["ps", "--json"])
        document = json.loads(capsys.readouterr().out)
    assert rows[0][:5] == ["NAME", "WORKLOAD", "STATE", "GPUS", "ADDRESS"]
    assert rows[1] == [RUN_ID, "ddp", "running", "-", "-", "pid", str(os.getpid()), str(directory.path)]
    assert rows[2][:3] == [OTHER, "ddp", "exited"]
    assert "vaultcube" in rows[2]
    assert rows[3][0] == "ddp-net"
    assert [one["run"] for one in document] == [RUN_ID, OTHER, "ddp-net"]
    assert document[0]["keeper"] == os.getpid()
    assert document[0]["gpus"] == []


def test_the_gpus_of_a_run_are_shown_by_index(
    recording: Recording, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    holds(recording, (RUN_ID, "running", ""), (OTHER, "running", ""))
    held = (HeldGpu(0, "GPU-a"), HeldGpu(3, "GPU-b"))

    def with_gpus(found: Sequence[Instance], _docker: object) -> list[Instance]:
        return [replace(found[0], gpus=held), replace(found[1], gpus=None)]

    monkeypatch.setattr("vaultcube.stack.instances.with_gpus", with_gpus)
    dispatch(["ps"])
    first, second = [line.split("  ") for line in capsys.readouterr().out.splitlines()[1:]]
    assert ("0, 3" in first, "unknown" in second) == (True, True)
    dispatch(["ps", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document[0]["gpus"] == [{"index": 0, "uuid": "GPU-a"}, {"index": 3, "uuid": "GPU-b"}]
    assert document[1]["gpus"] is None


def test_one_or_all_are_taken_down(recording: Recording, capsys: pytest.CaptureFixture[str]) -> None:
    holds(recording, (RUN_ID, "exited", ""), (OTHER, "exited", ""))
    dispatch(["down", OTHER[:14]])
    assert capsys.readouterr().out == f"{OTHER}: cleared\n"
    dispatch(["down", "--all"])
    assert capsys.readouterr().out == f"{RUN_ID}: cleared\n{OTHER}: cleared\n"
    with pytest.raises(UsageError, match="2 are there"):
        dispatch(["down"])
    with pytest.raises(UsageError, match="exclude each other"):
        dispatch(["down", RUN_ID, "--all"])


def test_what_one_run_refuses_does_not_keep_the_others(
    recording: Recording, store: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = made(store)
    (broken.path / PLAN).write_text("{")
    recording.says(f"ps --all --no-trunc --filter label=io.vaultcube.run={RUN_ID}")
    holds(recording, (RUN_ID, "exited", str(broken.path)), (OTHER, "exited", ""))
    with pytest.raises(RefusedError, match="cannot be read as a plan"):
        dispatch(["down", "--all"])
    assert f"{OTHER}: cleared\n" in capsys.readouterr().out


def test_a_run_that_has_nothing_left_is_settled_or_not_known(
    recording: Recording, store: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    made(store).write_result(result())
    holds(recording)
    dispatch(["down", RUN_ID])
    assert capsys.readouterr().out == f"{RUN_ID}: nothing of it is running\n"
    with pytest.raises(NotFoundError):
        dispatch(["down", "nonsuch"])


def test_no_runs_are_no_error(store: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    dispatch(["runs", "list"])
    assert capsys.readouterr().out == f"no runs in {store.root}\n"
    dispatch(["runs", "list", "--json"])
    assert capsys.readouterr().out == "[]\n"


def test_runs_are_kept_in_the_users_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("VAULTCUBE_RESULTS_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    dispatch(["runs", "list"])
    assert capsys.readouterr().out == f"no runs in {tmp_path}/.local/share/vaultcube/runs\n"


def test_kept_runs_are_listed_and_shown(store: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    made(store).write_result(result())
    lost = made(store, "ddp-20251231-120000-cd34")
    dispatch(["runs", "list"])
    listed = capsys.readouterr().out.splitlines()
    assert listed[1].split() == [RUN_ID, "ddp", "2026-01-01T12:00:00+00:00", "completed", "UNAVAILABLE"]
    assert listed[2].split() == [lost.id, "ddp", "2026-01-01T12:00:00+00:00", "lost", "-"]
    dispatch(["runs", "list", "--json", "--results-dir", str(store.root)])
    assert [row["status"] for row in json.loads(capsys.readouterr().out)] == ["completed", "lost"]
    dispatch(["runs", "show"])
    assert f"verdict UNAVAILABLE   kept in {store.root / RUN_ID}" in capsys.readouterr().out
    dispatch(["runs", "show", "last", "--json"])
    assert capsys.readouterr().out == result().to_json()
    with pytest.raises(NotFoundError, match="was killed"):
        dispatch(["runs", "show", lost.id])


def test_a_run_that_goes_on_has_no_result_yet(store: RunStore) -> None:
    directory = made(store)
    with locked(directory.path), pytest.raises(RunActiveError, match="still going on"):
        dispatch(["runs", "show", RUN_ID])


def test_two_kept_runs_are_put_side_by_side(store: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    made(store).write_result(result())
    again = result().run.model_copy(update={"id": OTHER})
    made(store, OTHER).write_result(result(run=again, params={"batch_size": 128}))
    dispatch(["runs", "compare", RUN_ID, "last"])
    text = capsys.readouterr().out
    assert text.startswith(f"A  {RUN_ID}: ddp on 4x")
    assert "batch_size  256" in text
    dispatch(["runs", "compare", RUN_ID, OTHER, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert (document["first"]["id"], document["second"]["id"]) == (RUN_ID, OTHER)
    assert document["differences"] == [{"what": "batch_size", "first": 256, "second": 128}]


def test_runs_that_cannot_be_compared_say_why(store: RunStore) -> None:
    made(store).write_result(result())
    with pytest.raises(NotFoundError, match="there is no run 'nonsuch'"):
        dispatch(["runs", "compare", RUN_ID, "nonsuch"])
    with pytest.raises(UsageError, match=f"last and {RUN_ID} are the same run") as seen:
        dispatch(["runs", "compare", "last", RUN_ID])
    assert "runs list" in seen.value.next_step
    with pytest.raises(UsageError, match="Missing argument"):
        dispatch(["runs", "compare", RUN_ID])
    active = made(store, OTHER)
    with locked(active.path), pytest.raises(RunActiveError, match=f"{OTHER} is still going on"):
        dispatch(["runs", "compare", RUN_ID, OTHER])
    with pytest.raises(NotFoundError, match="was killed"):
        dispatch(["runs", "compare", OTHER, RUN_ID])
    active.write("result.json", "{}")
    with pytest.raises(NotFoundError, match="cannot be read as a result"):
        dispatch(["runs", "compare", RUN_ID, OTHER])


def test_logs_of_a_running_one_are_dockers_own(vaultcube: Command, recording: Recording, store: RunStore) -> None:
    made(store)
    recording.says("version", '"26.1.5"\n')
    recording.says("compose version", "2.26.1\n")
    recording.says("image ls")
    recording.says(f"compose --project-name {RUN_ID} logs --follow", "ddp-1  | following\n", status=0)
    recording.says(f"compose --project-name {RUN_ID} logs", "ddp-1  | said\n", status=0)
    holds(recording, (RUN_ID, "running", ""))
    vaultcube.env |= {"PATH": os.environ["PATH"], "VAULTCUBE_RESULTS_DIR": str(store.root)}
    assert vaultcube("logs").stdout == "ddp-1  | said\n"
    assert recording.calls[-1] == f"compose --project-name {RUN_ID} logs"
    vaultcube("logs", "--follow", RUN_ID)
    assert recording.calls[-1] == f"compose --project-name {RUN_ID} logs --follow"


def test_the_last_ones_logs_are_not_those_of_another_that_runs(
    vaultcube: Command, recording: Recording, store: RunStore
) -> None:
    recording.says("version", '"26.1.5"\n')
    recording.says("compose version", "2.26.1\n")
    recording.says("image ls")
    holds(recording, (OTHER, "running", ""))
    vaultcube.env |= {"PATH": os.environ["PATH"], "VAULTCUBE_RESULTS_DIR": str(store.root)}
    # Nothing was kept here: the only one that runs is meant.
    vaultcube("logs")
    assert recording.calls[-1] == f"compose --project-name {OTHER} logs"
    made(store).write(LOG, "ddp-1  | of the last one\n")
    assert vaultcube("logs").stdout == "ddp-1  | of the last one\n"


def test_logs_that_were_not_kept_are_told(recording: Recording, store: RunStore) -> None:
    made(store)
    holds(recording)
    with pytest.raises(NotFoundError, match="no log of"):
        dispatch(["logs", "last"])


# --- images ----------------------------------------------------------------------------------------------------

IMAGE = {
    "Id": "sha256:0123456789abcdef",
    "Size": 7_420_000_000,
    "Created": "2026-01-01T02:17:15.800344791Z",
    "Config": {"Labels": {"org.opencontainers.image.version": "0.1.0"}},
    "RepoTags": ["vaultcube/pytorch:cu124"],
}


def test_images_are_listed_whether_they_are_here_or_not(
    recording: Recording, capsys: pytest.CaptureFixture[str]
) -> None:
    recording.says_json("image inspect vaultcube/pytorch:cu124", [IMAGE])
    recording.says("image inspect", "[]", stderr="Error response from daemon: No such image: x\n", status=1)
    dispatch(["images", "list"])
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    shown = {row[0]: [cell.strip() for cell in row if cell] for row in rows[1:]}
    assert shown["vaultcube/pytorch:cu124"] == [
        "vaultcube/pytorch:cu124",
        "0123456789ab",
        "7.42 GB",
        "2026-01-01T02:17:15",
        "0.1.0",
    ]
    assert "not built" in shown["vaultcube/vllm:cpu"]
    dispatch(["images", "list", "--json"])
    local = {one["name"]: one["local"] for one in json.loads(capsys.readouterr().out)}
    assert local["vaultcube/pytorch:cu124"]["size_bytes"] == 7_420_000_000
    assert local["vaultcube/vllm:cpu"] is None


def test_a_built_image_is_named_with_its_size(recording: Recording, capsys: pytest.CaptureFixture[str]) -> None:
    recording.says("version", '"26.1.5"\n')
    recording.says("compose version", "2.26.1\n")
    recording.says("image ls")
    recording.says("buildx version", "0.13.1\n")
    recording.says_json("image inspect", [IMAGE])
    recording.says("buildx bake")
    dispatch(["images", "build", "pytorch", "--flavour", "cu124", "--base-image", "mine:1"])
    assert capsys.readouterr().out == "vaultcube/pytorch:cu124  0123456789ab  7.42 GB\n"
