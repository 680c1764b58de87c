from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.conftest import Command
from tests.unit.replay import Recording
from tests.unit.support import DATA

from vaultcube import workloads
from vaultcube.cli.main import dispatch
from vaultcube.errors import VaultCubeError
from vaultcube.results.schema import Result
from vaultcube.stack.plan import Plan


def dry(vaultcube: Command, *words: str) -> dict[str, Any]:
    seen = vaultcube("bench", "ddp", "--gpus", "none", "--dry-run", "--json", *words)
    assert (seen.returncode, seen.stderr) == (0, "")
    document: dict[str, Any] = json.loads(seen.stdout)
    return document


def test_a_dry_run_needs_no_docker_and_leaves_nothing(vaultcube: Command, tmp_path: Path) -> None:
    vaultcube.env["PATH"] = str(tmp_path)
    document = dry(vaultcube, "--windows", "6", "--channels-last", "--timeout", "5m", "--memory", "8g")
    found = Plan.model_validate(document["plan"])
    assert (found.device, found.params["windows"], found.params["channels_last"]) == ("cpu", 6, True)
    assert (found.timeout_s, found.memory_bytes) == (300, 2**33)
    assert document["command"][0] == "docker"
    assert '"memory": "8589934592"' in document["override"]
    assert list(vaultcube.home.iterdir()) == []


def test_a_dry_run_for_people_ends_with_a_command_to_paste(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    dispatch(["bench", "ddp", "--gpus", "none", "--dry-run", "--results-dir", "runs here"])
    argv = shlex.split(capsys.readouterr().out.splitlines()[-1])
    (override,) = [word for word in argv if word.endswith("compose.override.yml")]
    assert override.startswith(f"{tmp_path}/runs here/ddp-")


def test_every_parameter_is_an_option_and_a_data_folder_becomes_absolute(vaultcube: Command) -> None:
    fields = workloads.load("ddp").params_type.model_fields
    page = vaultcube("bench", "ddp", "--help").stdout
    for name in fields:
        assert f"--{name.replace('_', '-')} " in page or f"--{name.replace('_', '-')} /" in page
    (vaultcube.home / "photos").mkdir()
    vaultcube.home.chmod(0o755)
    assert dry(vaultcube, "--data", "photos")["plan"]["params"]["data"] == str(vaultcube.home / "photos")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--gpus", "0"], 2, "gpu-selection"),
        (["--gpus", "99"], 3, "gpu-unavailable"),
        (["--windows", "4"], 2, "bad-parameter"),
        (["--preset", "nonsuch"], 2, "bad-parameter"),
        (["--preset", ""], 2, "bad-parameter"),
        (["--warmup-steps", "9", "--preset", "smoke"], 2, "bad-parameter"),
        (["--flavour", "cu999"], 2, "usage"),
        (["--timeout", "soon"], 2, "usage"),
        (["--memory", "much"], 2, "usage"),
        (["--ranks", "0"], 2, "usage"),
        (["--profile", "nonsuch"], 2, "profile"),
        (["--data", "nonsuch"], 3, "data-unreadable"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_asked(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VAULTCUBE_RESULTS_DIR", raising=False)
    with pytest.raises(VaultCubeError) as seen:
        dispatch(["bench", "ddp", "--dry-run", *words])
    assert (seen.value.code, seen.value.exit_code) == (said, code)
    assert capsys.readouterr() == ("", "")


# --- whole runs, docker replayed -------------------------------------------------------------------------------


@pytest.fixture
def engine(recording: Recording, vaultcube: Command) -> Recording:
    """Reply as an engine on which the container writes the good run's events."""
    gone, at = recording.folder / "gone", recording.folder / "run"
    row = json.dumps(["a" * 64, "x", "running", "Up", "RUN", "ddp", ""]).replace("RUN", f"'\"$(cat '{at}')\"'")
    events = DATA / "runs" / "good" / "events.jsonl"
    recording.says("version --format {{json", '"26.1.5"\n')
    recording.says("version", "26.1.5\n")
    recording.says("compose version", "2.26.1\n")
    recording.says("image ls", "vaultcube/base:bookworm\nvaultcube/pytorch:cu124\n")
    recording.says(
        "compose --progress plain --project-name *up --detach",
        does='for word; do case "$word" in *.override.yml) at=$(dirname "$word");; esac; done; '
        f"cp '{events}' \"$at/results/\"; basename \"$at\" > '{at}'",
    )
    recording.says("compose --progress plain --project-name *config", "{}\n")
    recording.says("compose --project-name *logs", "ddp-1  | said\n")
    recording.says("compose --project-name *down", does=f"touch '{gone}'")
    recording.says("ps", does=f"[ -e '{gone}' ] || [ ! -e '{at}' ] || echo '{row}'")
    recording.says("network ls")
    recording.says("wait")
    recording.says("events")
    vaultcube.env["PATH"] = os.environ["PATH"]
    return recording


def ends(engine: Recording, exit_code: int) -> None:
    state = {"Running": False, "ExitCode": exit_code, "OOMKilled": False, "Error": ""}
    labels = {"Labels": {"com.docker.compose.service": "ddp"}}
    engine.says_json("inspect", [{"Id": "a" * 64, "State": state, "Image": "sha256:1", "Config": labels}])


BENCH = ["bench", "ddp", "--gpus", "none", "--ranks", "4", "--batch-size", "256"]


def test_a_run_prints_its_result_and_is_found_again(vaultcube: Command, engine: Recording) -> None:
    ends(engine, 0)
    seen = vaultcube(*BENCH)
    assert seen.returncode == 0, seen.stderr
    assert "verdict UNAVAILABLE" in seen.stdout
    assert "  all ranks together\n" in seen.stderr
    assert vaultcube("runs", "show", "last").stdout == seen.stdout
    assert vaultcube("logs", "last").stdout == "ddp-1  | said\n"


def test_with_json_the_result_is_all_there_is_on_stdout(vaultcube: Command, engine: Recording) -> None:
    ends(engine, 0)
    seen = vaultcube(*BENCH, "--json", "--strict")
    found = Result.model_validate_json(seen.stdout)
    assert found.verdict == "UNAVAILABLE"
    # --strict makes it an error, told on stderr; a second document would be no JSON any more.
    assert seen.returncode == 1
    assert "the verdict is UNAVAILABLE" in seen.stderr
    assert "[verdict]" in seen.stderr


def test_a_run_that_failed_is_one_document_and_its_own_exit_code(vaultcube: Command, engine: Recording) -> None:
    ends(engine, 64)
    seen = vaultcube(*BENCH, "--json")
    assert seen.returncode == 2
    found = Result.model_validate_json(seen.stdout)
    assert found.run.error is not None
    assert found.run.error.code == "bad-parameter"


def test_a_verdict_outlives_its_reader(vaultcube: Command, engine: Recording) -> None:
    ends(engine, 0)
    vaultcube.env["PYTHONUNBUFFERED"] = "1"
    read, write = os.pipe()
    os.close(read)
    seen = vaultcube(*BENCH, "--strict", stdout=write)
    os.close(write)
    assert seen.returncode == 1
    assert "[verdict]" in seen.stderr


def test_an_engine_that_is_not_there_is_refused_and_nothing_is_kept(vaultcube: Command, recording: Recording) -> None:
    recording.says("", stderr="Cannot connect to the Docker daemon at unix:///var/run/docker.sock.\n", status=1)
    vaultcube.env["PATH"] = os.environ["PATH"]
    seen = vaultcube(*BENCH)
    assert (seen.returncode, seen.stdout) == (3, "")
    assert "[engine-unreachable]" in seen.stderr
    assert not vaultcube.runs.exists()


def test_logs_of_what_never_ran(vaultcube: Command, tmp_path: Path) -> None:
    vaultcube.env["PATH"] = str(tmp_path)
    seen = vaultcube("logs", "nonsuch")
    assert seen.returncode == 2
    assert "there is no run 'nonsuch'" in seen.stderr
