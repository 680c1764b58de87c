"""`vaultcube bench ddp` on the real engine, in the real image, on the CPU: runs that come to their end."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import zlib
from pathlib import Path

import jsonschema
import pytest
from tests.docker.conftest import FAST, ROOT, Vaultcube

from vaultcube.results.schema import Result, Status, Verdict
from vaultcube.results.store import RunDirectory
from vaultcube.stack.collect import build_result, read_events
from vaultcube.stack.ending import read_plan
from vaultcube.stack.outcome import Outcome

pytestmark = [pytest.mark.docker, pytest.mark.image, pytest.mark.usefixtures("image")]

ON_GPUS = {"scaling_efficiency", "throughput", "gpu_utilisation", "pcie_link", "no_gpu_lost", "no_xid"}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Vaultcube, Result]:
    """Return a smoke run, as `make demo` does it on a machine without a GPU."""
    cube = Vaultcube(tmp_path_factory.mktemp("smoke") / "runs with spaces")
    seen = cube("bench", "ddp", "--gpus", "none", "--json")
    assert seen.returncode == 0, seen.stderr
    assert not cube.left_behind()
    return cube, Result.model_validate_json(seen.stdout)


def test_a_run_on_the_cpu_completes_and_is_not_judged_as_gpus_are(smoke: tuple[Vaultcube, Result]) -> None:
    _, result = smoke
    assert result.run.status is Status.COMPLETED
    assert result.verdict is Verdict.UNAVAILABLE
    verdicts = {check.name: check.verdict for check in result.checks}
    assert {name for name, verdict in verdicts.items() if verdict is Verdict.UNAVAILABLE} == ON_GPUS
    assert {name for name, verdict in verdicts.items() if verdict is Verdict.PASS} == verdicts.keys() - ON_GPUS


def test_the_figures_are_those_of_the_events(smoke: tuple[Vaultcube, Result]) -> None:
    cube, result = smoke
    events = [
        json.loads(line) for line in (cube.runs / result.run.id / "results/events.jsonl").read_text().splitlines()
    ]
    windows = [event for event in events if event["kind"] == "window" and event["phase"] == "all"]
    by_index = {index: [event for event in windows if event["index"] == index] for index in range(5)}
    assert all(len(both) == 2 for both in by_index.values())
    samples = sum(event["samples"] for event in windows)
    elapsed = sum(max(event["elapsed_s"] for event in both) for both in by_index.values())
    assert result.metrics["throughput_samples_per_s"].value == pytest.approx(samples / elapsed)
    low, high = result.metrics["scaling_efficiency"].ci95 or (0, 0)
    assert 0 < low <= result.metrics["scaling_efficiency"].value <= high


def test_the_provenance_names_what_ran(smoke: tuple[Vaultcube, Result]) -> None:
    _, result = smoke
    provenance = result.provenance
    assert provenance.images["ddp"].startswith("sha256:")
    assert (provenance.frameworks["torch"] or "").startswith("2.6.0")
    assert all([provenance.engine, provenance.compose, provenance.kernel, provenance.cpu, provenance.git])


def test_the_run_directory_is_complete_and_its_sums_are_right(smoke: tuple[Vaultcube, Result]) -> None:
    cube, result = smoke
    directory = cube.runs / result.run.id
    kept = {artifact.path for artifact in result.artifacts}
    assert kept == {
        "plan.json",
        "compose.override.yml",
        "compose.resolved.json",
        "container.log",
        "results/events.jsonl",
    }
    for artifact in result.artifacts:
        assert hashlib.sha256((directory / artifact.path).read_bytes()).hexdigest() == artifact.sha256
    resolved = (directory / "compose.resolved.json").read_bytes()
    assert hashlib.sha256(resolved).hexdigest() == result.provenance.compose_sha256


def test_result_and_events_fit_the_published_schemas(smoke: tuple[Vaultcube, Result]) -> None:
    cube, result = smoke
    schemas = ROOT / "docs/schema"
    jsonschema.validate(json.loads(result.to_json()), json.loads((schemas / "result.schema.json").read_text()))
    event = jsonschema.Draft202012Validator(json.loads((schemas / "event.schema.json").read_text()))
    for line in (cube.runs / result.run.id / "results/events.jsonl").read_text().splitlines():
        event.validate(json.loads(line))


def test_the_container_has_the_least_it_needs(smoke: tuple[Vaultcube, Result]) -> None:
    cube, result = smoke
    service = json.loads((cube.runs / result.run.id / "compose.resolved.json").read_text())["services"]["ddp"]
    assert service["user"].split(":")[0] != "0"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert not service.get("cap_add")
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["network_mode"] == "none"
    assert service["init"] is True
    assert not service.get("privileged")
    assert not service["deploy"]["resources"].get("reservations", {}).get("devices")


def test_a_copied_run_is_judged_the_same_elsewhere(smoke: tuple[Vaultcube, Result], tmp_path: Path) -> None:
    cube, result = smoke
    copy = RunDirectory(shutil.copytree(cube.runs / result.run.id, tmp_path / result.run.id))
    plan = read_plan(copy)
    again = build_result(
        plan, copy, read_events(copy), Outcome(status=Status.COMPLETED), result.provenance, result.run.finished
    )
    assert (again.checks, again.metrics, again.verdict) == (result.checks, result.metrics, result.verdict)


def test_what_was_kept_can_be_read_again(smoke: tuple[Vaultcube, Result]) -> None:
    cube, result = smoke
    listed = json.loads(cube("runs", "list", "--json").stdout)
    assert [(run["id"], run["status"], run["verdict"]) for run in listed] == [
        (result.run.id, "completed", "UNAVAILABLE")
    ]
    assert json.loads(cube("runs", "show", "last", "--json").stdout) == json.loads(result.to_json())
    shown = cube("runs", "show", result.run.id[:12]).stdout
    assert "scaling_efficiency" in shown
    assert f"kept in {cube.runs / result.run.id}" in shown
    assert "all ranks" in cube("logs", "last").stdout
    assert cube("down", result.run.id).stdout == f"{result.run.id}: nothing of it is running\n"


def test_strict_lets_unavailable_fail(vaultcube: Vaultcube) -> None:
    seen = vaultcube(*FAST, "--ranks", "1", "--strict")
    assert seen.returncode == 1
    assert "[verdict]" in seen.stderr
    result = vaultcube.result()
    (scaling,) = [check for check in result["checks"] if check["name"] == "scaling_efficiency"]
    assert scaling["verdict"] == "UNAVAILABLE"
    assert scaling["reason"] == "there is one rank, and nothing to scale over"


def test_two_at_once_do_not_meet_and_say_that_they_shared(vaultcube: Vaultcube) -> None:
    first, second = vaultcube.start(*FAST, "--json"), vaultcube.start(*FAST, "--json")
    outs = [json.loads(child.communicate(timeout=240)[0]) for child in (first, second)]
    assert [child.returncode for child in (first, second)] == [0, 0]
    ids = [out["run"]["id"] for out in outs]
    assert len(set(ids)) == 2
    for mine, other in ((outs[0], ids[1]), (outs[1], ids[0])):
        assert f"run {other} used the CPU at the same time" in mine["disturbances"]


def test_a_folder_of_images_is_trained_on(vaultcube: Vaultcube, tmp_path: Path) -> None:
    data = tmp_path / "image folder"
    for name in ("cat", "dog"):
        (data / name).mkdir(parents=True)
        for index in range(4):
            (data / name / f"{index}.png").write_bytes(png(index * 60))
    seen = vaultcube(*FAST, "--data", str(data), "--json")
    assert seen.returncode == 0, seen.stderr
    assert json.loads(seen.stdout)["params"]["data"] == str(data)


def png(shade: int, side: int = 40) -> bytes:
    """Return a grey square as PNG."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = (b"\0" + bytes([shade]) * side) * side
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
