"""`vaultcube doctor` in our own process, with docker replayed and on a machine without GPU."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from tests.unit.cli.conftest import Command
from tests.unit.replay import Recording
from tests.unit.support import DATA, ROOT

from vaultcube.cli.main import dispatch
from vaultcube.errors import GpuSelectionError, PreflightError, UsageError

NO_GPUS = ["--gpus", "none"]


@pytest.fixture
def engine(recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recording:
    """Return a replaying docker of a machine in order."""
    monkeypatch.setenv("VAULTCUBE_RESULTS_DIR", str(tmp_path / "runs"))
    recording.says("info", (DATA / "preflight" / "docker-info-26.1.json").read_text())
    recording.says("compose version", "2.26.1-4\n")
    recording.says("buildx version", "github.com/docker/buildx v0.13.1 x\n")
    recording.says("image ls", "vaultcube/pytorch:cu124\n")
    recording.says("ps", "")
    return recording


def test_a_machine_that_is_fit(engine: Recording, capsys: pytest.CaptureFixture[str]) -> None:
    dispatch(["doctor", *NO_GPUS])
    text = capsys.readouterr().out
    assert "docker             PASS         engine 26.1.5+dfsg1\n" in text
    assert "UNAVAILABLE: no GPU is asked for\n" in text
    assert "\x1b" not in text
    assert not [call for call in engine.calls if call.startswith("run")]


def test_the_document_follows_its_published_schema(engine: Recording, capsys: pytest.CaptureFixture[str]) -> None:
    assert engine
    dispatch(["doctor", "--json", *NO_GPUS])
    document = json.loads(capsys.readouterr().out)
    schema = json.loads((ROOT / "docs/schema/doctor.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)
    assert document["schema"] == "vaultcube.doctor/1"
    assert document["flavour"] == "cpu"
    assert document["checks"][-1]["code"] == "access"


def test_a_fault_is_printed_and_then_raised(recording: Recording, capsys: pytest.CaptureFixture[str]) -> None:
    recording.says("compose version", "2.20.0\n")
    with pytest.raises(PreflightError, match="not fit: compose"):
        dispatch(["doctor", "--json", "--check", "compose"])
    (check,) = json.loads(capsys.readouterr().out)["checks"]
    assert check["status"] == "FAIL"
    assert check["seen"] == "compose 2.20.0 is older than 2.24.4"
    assert "2.24.4" in check["next_step"]


def test_one_check_asks_one_thing(engine: Recording) -> None:
    dispatch(["doctor", "--check", "compose"])
    assert engine.calls == ["compose version --short"]


def test_words_that_make_no_sense(engine: Recording) -> None:
    with pytest.raises(UsageError, match="no check 'nonsense'"):
        dispatch(["doctor", "--check", "nonsense"])
    with pytest.raises(GpuSelectionError):
        dispatch(["doctor", "--gpus", "0"])
    with pytest.raises(UsageError):
        dispatch(["doctor", "--profile", "nonsense"])
    assert engine.calls == []


def test_the_exit_code_and_one_document_only(vaultcube: Command) -> None:
    vaultcube.env["PATH"] = "/nonexistent"
    seen = vaultcube("doctor", "--json", "--check", "docker", "--check", "clock")
    assert seen.returncode == 3
    document = json.loads(seen.stdout)
    assert [one["code"] for one in document["checks"]] == ["docker", "clock"]
    assert "vaultcube: this machine is not fit: docker\n" in seen.stderr
    assert "[preflight]" in seen.stderr
