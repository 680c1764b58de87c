from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.unit.replay import Recording

from vaultcube.stack.asking import Containers

ID = "a" * 64
PS = "ps --quiet --no-trunc"
INSPECTED = {
    "Id": ID,
    "Name": "/trainer",
    "Created": "2026-01-01T12:00:00.5Z",
    "State": {"Status": "running"},
    "Config": {"Labels": None, "Env": ["PATH=/bin"]},
    "HostConfig": {"DeviceRequests": [{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}]},
}


def test_the_containers_that_live(recording: Recording) -> None:
    recording.says(PS, f"{ID}\n")
    recording.says_json("inspect", [INSPECTED])
    asked = Containers()
    (container,), reason = asked.result(30)
    assert asked.wait(0)
    assert reason is None
    assert (container.name, container.requests[0].number) == ("trainer", -1)


def test_none_is_an_answer(recording: Recording) -> None:
    recording.says(PS, "")
    assert Containers().result(30) == ([], None)


def test_an_engine_that_does_not_answer_is_a_reason(recording: Recording) -> None:
    recording.says(PS, stderr="Cannot connect to the Docker daemon at unix:///x. Is it running?\n", status=1)
    found, reason = Containers().result(30)
    assert found == []
    assert reason is not None
    assert reason.startswith("no Docker engine answers")


def test_without_docker_there_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Containers().result(30) == ([], "there is no docker command on the PATH")


def test_one_that_hangs_is_given_up_and_ended(recording: Recording) -> None:
    pid = recording.folder / "pid"
    recording.says(PS, does=f"echo $$ > '{pid}.part'; mv '{pid}.part' '{pid}'; exec sleep 600")
    asked = Containers()
    assert asked.result(0) == ([], "the engine did not answer within 0 s")
    while not pid.exists():
        assert not asked.result(0.05)[0]
    before = asked.wait(0)
    asked.cancel()
    assert (before, asked.wait(30)) == (False, True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_what_cannot_be_understood_is_no_answer_and_no_bug(recording: Recording) -> None:
    recording.says(PS, f"{ID}\n")
    recording.says("inspect", "half a docum")
    found, reason = Containers().result(30)
    assert found == []
    assert reason == "the engine's answer cannot be read: Expecting value: line 1 column 1 (char 0)"


def test_documents_of_another_shape_are_no_answer_either(recording: Recording) -> None:
    recording.says(PS, f"{ID}\n")
    recording.says("inspect", json.dumps([{"Id": ID}]))
    found, reason = Containers().result(30)
    assert found == []
    assert reason == "the engine's answer cannot be read: 'State'"
