from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.unit.replay import Recording

from vaultcube.errors import NotFoundError, UsageError
from vaultcube.results.lock import locked
from vaultcube.stack.docker import Docker
from vaultcube.stack.instances import Instance, instances, pick


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
