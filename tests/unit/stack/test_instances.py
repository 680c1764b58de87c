from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import pytest
from tests.unit.replay import Recording
from tests.unit.support import DATA, gpu

from vaultcube.errors import NotFoundError, UsageError
from vaultcube.gpu.readings import NvmlError
from vaultcube.results.lock import locked
from vaultcube.results.schema import Gpu
from vaultcube.results.service import ServiceRecord
from vaultcube.stack.docker import Docker
from vaultcube.stack.instances import HeldGpu, Instance, instances, pick, with_gpus

RECORD = ServiceRecord(
    name="mine",
    run="vllm-a",
    workload="vllm",
    url="http://127.0.0.1:8000",
    model="tiny",
    device="cpu",
    gpus=(),
    simulated=False,
    servers=1,
    ready=datetime(2026, 1, 1, tzinfo=UTC),
    load_s=1.0,
    first_token_s=1.1,
    up_s=2.0,
    key_needed=False,
    random_weights=True,
    example="curl",
    stop="vaultcube down mine",
)


def row(run: str, state: str, directory: str = "") -> str:
    return json.dumps(["a" * 64, f"{run}-ddp-1", state, "Up", run, "ddp", directory])


def test_nothing_is_running(recording: Recording) -> None:
    recording.says("ps")
    recording.says("network")
    assert instances(Docker()) == []


def test_runs_are_put_together_from_containers_and_networks(recording: Recording, tmp_path: Path) -> None:
    rows = [
        row("ddp-b", "exited"),
        row("ddp-a", "exited", str(tmp_path)),
        row("ddp-a", "running", str(tmp_path)),
        row("ddp-b", "dead"),
        row("ddp-d", "created", "/nonsuch"),
    ]
    recording.says("ps", "\n".join(rows) + "\n")
    recording.says("network", "ddp-c\nddp-a\n")
    with locked(tmp_path):
        found = instances(Docker())
    assert found == [
        Instance("ddp-a", "ddp", "running", os.getpid(), str(tmp_path)),
        Instance("ddp-b", "ddp", "dead, exited", None, ""),
        Instance("ddp-c", "", "network left", None, ""),
        Instance("ddp-d", "ddp", "created", None, "/nonsuch"),
    ]
    assert found[0].as_dict()["keeper"] == os.getpid()


@pytest.mark.parametrize(
    ("states", "servers", "state"),
    [
        (["running"], 1, "ready"),
        (["running"] * 3, 2, "ready"),
        # The proxy and one of its two servers.
        (["running"] * 2, 2, "partly gone"),
        (["running", "running", "exited"], 2, "exited, running"),
    ],
)
def test_a_service_is_ready_when_all_of_it_runs(
    recording: Recording, tmp_path: Path, states: list[str], servers: int, state: str
) -> None:
    (tmp_path / "service.json").write_text(RECORD.model_copy(update={"servers": servers}).to_json())
    rows = [json.dumps(["a" * 64, "c", one, "Up 5 s", "vllm-a", "vllm", str(tmp_path), "mine"]) for one in states]
    recording.says("ps", "\n".join(rows) + "\n")
    recording.says("network")
    (found,) = instances(Docker())
    assert (found.name, found.state, found.url) == ("mine", state, RECORD.url)


@pytest.mark.parametrize(
    ("status", "started", "state"),
    [
        ("Up 3 s (health: starting)", "2025-12-31T23:58:00.123456789Z", "ready"),
        ("Up 3 s (health: starting)", "2026-01-01T00:00:05.123456789Z", "loading again"),
        ("Up 3 s (healthy)", "2026-01-01T00:00:05.123456789Z", "ready"),
        ("Up 3 s (unhealthy)", "2025-12-31T23:58:00.123456789Z", "unhealthy"),
    ],
)
def test_a_server_that_was_started_again_is_not_called_ready(
    recording: Recording, tmp_path: Path, status: str, started: str, state: str
) -> None:
    (tmp_path / "service.json").write_text(RECORD.to_json())
    recording.says("ps", json.dumps(["a" * 64, "c", "running", status, "vllm-a", "vllm", str(tmp_path), "mine"]) + "\n")
    recording.says("network")
    how = {"Running": True, "ExitCode": 0, "StartedAt": started}
    recording.says_json("inspect", [{"Id": "a" * 64, "State": how, "Config": {}, "Image": "sha256:1"}])
    (found,) = instances(Docker())
    assert found.state == state


# --- their GPUs --------------------------------------------------------------------------------------------------

RECORDED = json.loads((DATA / "docker" / "gpu-containers.json").read_text())
OURS = next(one for one in RECORDED if one["Name"] == "/rec-cdi-1")
RUN = "ddp-20260101-120000-ab12"
UUID = "GPU-b393768e-83d6-5ae9-89ff-76eae99966d4"


class Driver:
    """NVML that lists a GPU of another machine and that of the recorded run, or does not start."""

    def __init__(self, problem: NvmlError | None = None) -> None:
        self.problem = problem

    def __enter__(self) -> Self:
        if self.problem:
            raise self.problem
        return self

    def __exit__(self, *_: object) -> None:
        return

    def gpus(self) -> list[Gpu]:
        return [gpu(0), gpu(1).model_copy(update={"uuid": UUID})]


def holding(recording: Recording, *containers: object) -> None:
    recording.says("ps --quiet", "a\n" * bool(containers))
    recording.says_json("inspect", list(containers))


def test_a_run_shows_the_gpus_it_holds(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaultcube.stack.instances.Nvml", Driver)
    foreign = next(one for one in RECORDED if one["Name"] == "/gpus-all")
    holding(recording, OURS, foreign)
    first, second = with_gpus(named(RUN, "ddp-2"), Docker())
    assert (first.gpus, second.gpus) == ((HeldGpu(1, UUID),), ())
    assert first.as_dict()["gpus"] == ({"index": 1, "uuid": UUID},)


def test_nvml_is_not_asked_where_nobody_holds_a_gpu(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaultcube.stack.instances.Nvml", None)
    assert with_gpus([], Docker()) == []
    assert recording.calls == []
    holding(recording)
    assert [one.gpus for one in with_gpus(named(RUN), Docker())] == [()]


def test_without_nvml_it_is_unknown_which_ones(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaultcube.stack.instances.Nvml", lambda: Driver(NvmlError("mismatch", "mismatch")))
    holding(recording, OURS)
    assert [one.gpus for one in with_gpus(named(RUN, "ddp-2"), Docker())] == [None, ()]


# --- picking one -------------------------------------------------------------------------------------------------


def named(*names: str) -> list[Instance]:
    return [Instance(name, "ddp", "running", None, "") for name in names]


def test_an_instance_is_picked_by_its_name_or_the_beginning_of_it() -> None:
    found = named("ddp-1", "ddp-12", "vllm-3")
    assert pick(found, "vllm").run == "vllm-3"
    assert pick(found, "ddp-1").run == "ddp-1"
    assert pick(found, "ddp-12").run == "ddp-12"
    assert pick(named("only"), None).run == "only"


@pytest.mark.parametrize("name", ["nonsuch", ""])
def test_a_name_that_nothing_has(name: str) -> None:
    with pytest.raises(NotFoundError):
        pick(named("ddp-1"), name)
    with pytest.raises(NotFoundError, match="nothing is running"):
        pick([], None)


@pytest.mark.parametrize("name", ["ddp", None])
def test_more_than_one_is_asked_back(name: str | None) -> None:
    with pytest.raises(UsageError, match="2 are there: ddp-1, ddp-12") as seen:
        pick(named("ddp-1", "ddp-12"), name)
    assert "--all" in seen.value.next_step
