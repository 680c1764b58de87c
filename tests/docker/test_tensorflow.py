"""`vaultcube bench tensorflow` on the real engine, in the real image, on the CPU."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from tests.docker.conftest import FAST, ROOT, Vaultcube, docker

from vaultcube.results.schema import Result, Status, Verdict

IMAGE = "vaultcube/tensorflow:cu124"
# The least work there is: the tests look at what surrounds it.
LEAST = ["bench", "tensorflow", "--gpus", "none", "--model", "mobilenet", "--batch-size", "2", "--image-size", "32"]
LEAST += ["--steps-per-window", "1", "--warmup-steps", "1", "--max-warmup-steps", "1"]
ON_GPUS = {"scaling_efficiency", "throughput", "gpu_utilisation", "pcie_link", "no_gpu_lost", "no_xid"}
START_S = 180
pytestmark = [pytest.mark.docker, pytest.mark.image, pytest.mark.usefixtures("tensorflow_image")]


@pytest.fixture(scope="module")
def tensorflow_image() -> None:
    """Fail without the image."""
    if not docker("image", "ls", "--quiet", IMAGE):
        pytest.fail(f"these tests need {IMAGE} (make setup)")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Vaultcube, Result]:
    """Return a smoke run, as anybody without a GPU makes it."""
    cube = Vaultcube(tmp_path_factory.mktemp("smoke") / "runs with spaces")
    seen = cube("bench", "tensorflow", "--gpus", "none", "--json", timeout=280)
    assert seen.returncode == 0, seen.stderr
    assert not cube.left_behind()
    return cube, Result.model_validate_json(seen.stdout)


def events(cube: Vaultcube, result: Result) -> list[dict[str, Any]]:
    text = (cube.runs / result.run.id / "results/events.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_run_on_the_cpu_completes_and_is_not_judged_as_gpus_are(smoke: tuple[Vaultcube, Result]) -> None:
    _, result = smoke
    assert result.run.status is Status.COMPLETED
    verdicts = {check.name: check.verdict for check in result.checks}
    assert {name for name, verdict in verdicts.items() if verdict is Verdict.UNAVAILABLE} == ON_GPUS
    assert {name for name, verdict in verdicts.items() if verdict is Verdict.PASS} == {
        "no_rank_lost",
        "allreduce_correct",
        "loss_finite",
        "devices_detected",
        "operations_correct",
        "memory_allocated",
    }
    assert result.verdict is Verdict.UNAVAILABLE


def test_every_device_proves_itself_before_anything_is_timed(smoke: tuple[Vaultcube, Result]) -> None:
    told = events(*smoke)
    (detection,) = [one for one in told if one["kind"] == "detection"]
    assert (detection["wanted"], detection["found"]) == (2, 2)
    operations = [(one["rank"], one["name"], one["placed"][-5:]) for one in told if one["kind"] == "operation"]
    assert sorted(operations) == [(rank, name, f"CPU:{rank}") for rank in (0, 1) for name in ("matmul", "xla_matmul")]
    assert sorted(one["rank"] for one in told if one["kind"] == "allocation") == [0, 1]
    kinds = [one["kind"] for one in told]
    assert max(kinds.index(kind) for kind in ("operation", "allocation", "allreduce")) < kinds.index("phase")


def test_the_figures_are_those_of_the_events(smoke: tuple[Vaultcube, Result]) -> None:
    cube, result = smoke
    windows = [one for one in events(cube, result) if one["kind"] == "window" and one["phase"] == "all"]
    by_index = {index: [one for one in windows if one["index"] == index] for index in range(5)}
    assert all({one["rank"] for one in both} == {0, 1} for both in by_index.values())
    samples = sum(one["samples"] for one in windows)
    elapsed = sum(max(one["elapsed_s"] for one in both) for both in by_index.values())
    assert result.metrics["throughput_samples_per_s"].value == pytest.approx(samples / elapsed)
    low, high = result.metrics["scaling_efficiency"].ci95 or (0, 0)
    assert 0 < low <= result.metrics["scaling_efficiency"].value <= high


def test_result_and_events_fit_the_published_schemas(smoke: tuple[Vaultcube, Result]) -> None:
    cube, result = smoke
    schemas = ROOT / "docs/schema"
    jsonschema.validate(json.loads(result.to_json()), json.loads((schemas / "result.schema.json").read_text()))
    event = jsonschema.Draft202012Validator(json.loads((schemas / "event.schema.json").read_text()))
    for one in events(cube, result):
        event.validate(one)


def test_the_provenance_names_what_ran_and_the_container_has_the_least_it_needs(
    smoke: tuple[Vaultcube, Result],
) -> None:
    cube, result = smoke
    assert result.provenance.images["tensorflow"].startswith("sha256:")
    assert result.provenance.frameworks["tensorflow"] == "2.17.1"
    service = json.loads((cube.runs / result.run.id / "compose.resolved.json").read_text())["services"]["tensorflow"]
    assert service["user"].split(":")[0] != "0"
    assert (service["read_only"], service["cap_drop"], service["network_mode"]) == (True, ["ALL"], "none")
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("cap_add")
    assert not service["deploy"]["resources"].get("reservations", {}).get("devices")


@pytest.mark.usefixtures("image")
def test_it_is_put_beside_ddp(smoke: tuple[Vaultcube, Result]) -> None:
    cube, result = smoke
    seen = cube(*FAST, "--json")
    assert seen.returncode == 0, seen.stderr
    theirs = Result.model_validate_json(seen.stdout)
    document = json.loads(cube("runs", "compare", theirs.run.id, result.run.id, "--json").stdout)
    jsonschema.validate(document, json.loads((ROOT / "docs/schema/compare.schema.json").read_text()))
    (rate,) = [one for one in document["metrics"] if one["name"] == "throughput_samples_per_s"]
    assert rate["ratio"] == pytest.approx(rate["second"]["value"] / rate["first"]["value"])
    assert {"workload", "model", "batch_size", "image_size"} <= {one["what"] for one in document["differences"]}


# --- runs that do not come to their end ------------------------------------------------------------------------


def refused(vaultcube: Vaultcube, *words: str) -> dict[str, Any]:
    """Run one that fails; return the error that its result tells, which stderr has in two lines."""
    seen = vaultcube(*LEAST, *words)
    error: dict[str, Any] = vaultcube.result()["run"]["error"]
    assert seen.stderr.splitlines()[-2:] == [
        f"vaultcube: {error['message']}",
        f"  next: {error['next_step']}  [{error['code']}]",
    ]
    assert "Traceback (most recent call last)" not in seen.stderr
    return {**error, "exit": seen.returncode}


def test_a_model_that_keras_has_not(vaultcube: Vaultcube) -> None:
    error = refused(vaultcube, "--model", "nonsuch")
    assert (error["code"], error["exit"]) == ("bad-parameter", 2)
    assert "nonsuch" in error["message"]


def test_a_precision_that_only_gpus_have(vaultcube: Vaultcube) -> None:
    error = refused(vaultcube, "--precision", "tf32")
    assert (error["code"], error["exit"]) == ("bad-parameter", 2)


def test_too_little_memory_for_the_container(vaultcube: Vaultcube) -> None:
    error = refused(vaultcube, "--memory", "300m")
    assert (error["code"], error["exit"]) == ("container-out-of-memory", 1)


def test_a_signal_in_the_middle_leaves_what_was_measured(
    vaultcube: Vaultcube, wait_for: Callable[[Callable[[], Any], float], Any]
) -> None:
    child = vaultcube.start(*LEAST, "--windows", "1000")
    files = vaultcube.runs.glob
    wait_for(lambda: any('"kind":"window"' in one.read_text() for one in files("*/results/events.jsonl")), START_S)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=120)
    assert (child.returncode, "[interrupted]" in err) == (130, True), out + err
    result = vaultcube.result()
    assert (result["run"]["status"], result["verdict"]) == ("interrupted", "UNAVAILABLE")


def test_a_worker_that_is_killed_is_named(
    vaultcube: Vaultcube, wait_for: Callable[[Callable[[], Any], float], Any]
) -> None:
    child = vaultcube.start(*LEAST, "--windows", "1000")
    files = vaultcube.runs.glob
    wait_for(lambda: any('"kind":"window"' in one.read_text() for one in files("*/results/events.jsonl")), START_S)
    (container,) = docker("ps", "--quiet", "--filter", f"label=io.vaultcube.run={vaultcube.run_ids()[0]}").split()
    # The brackets keep the shell from finding itself.
    find = "tr '\\0' ' ' <$p/cmdline | grep -q 'mirrored[.]worker'"
    script = f"for p in /proc/[0-9]*; do if {find}; then kill -9 ${{p#/proc/}}; fi; done"
    docker("exec", container, "sh", "-c", script)
    out, err = child.communicate(timeout=120)
    assert (child.returncode, "Traceback" in err) == (1, False), out + err
    error = vaultcube.result()["run"]["error"]
    assert error["code"] == "workload-failed"
    assert "SIGKILL" in error["message"]
