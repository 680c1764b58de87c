"""`bench tensorflow` on a simulated machine: pinned, measured and judged as `bench ddp` is, and held against it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.docker.conftest import Vaultcube, until
from tests.rig import images
from tests.rig.box import Box
from tests.rig.engine import RigEngine, RigError

from vaultcube.results.schema import Result, Verdict

BENCH = ("bench", "tensorflow", "--preset", "smoke", "--model", "resnet50", "--steps-per-window", "1", "--json")
PINS = ("--gpus", "device=1,3")
STEP_S = 0.05


@pytest.fixture
def cube(request: pytest.FixtureRequest, box: Box, vaultcube: Vaultcube) -> Vaultcube:
    """Return the command, its engine with both ways to GPUs, or that of the parameter, and TensorFlow's stand-in in it."""
    engine: RigEngine = request.getfixturevalue(f"rig_{getattr(request, 'param', 'both')}")
    if not engine.ask("image", "ls", "--quiet", "vaultcube/tensorflow:cu124"):
        try:
            images.tensorflow().load(engine)
        except RigError as error:
            pytest.fail(str(error))
    images.pace(box.path, STEP_S)
    return vaultcube


def events(cube: Vaultcube, result: Result) -> list[dict[str, Any]]:
    text = (cube.runs / result.run.id / "results/events.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def bench(cube: Vaultcube, *words: str) -> Result:
    seen = cube(*words)
    assert seen.stdout, seen.stderr
    result = Result.model_validate_json(seen.stdout)
    assert seen.returncode == 0, [check for check in result.checks if check.verdict is not Verdict.PASS]
    return result


@pytest.mark.parametrize("cube", ["hook", "cdi"], indirect=True)
def test_it_computes_on_the_gpus_that_it_was_given_and_on_no_other(cube: Vaultcube, box: Box) -> None:
    box.load(1, 3)
    result = bench(cube, *BENCH, *PINS, "--telemetry-hz", "10")
    pinned = [box.uuids[1], box.uuids[3]]
    assert [gpu.uuid for gpu in result.gpus] == pinned
    told = events(cube, result)
    assert [one["uuid"] for one in told if one["kind"] == "device"] == pinned
    (detection,) = [one for one in told if one["kind"] == "detection"]
    assert (detection["wanted"], detection["found"]) == (2, 2)
    # Every check may be met, and nothing is proven by a simulator.
    assert (result.simulated, result.verdict) == (True, Verdict.UNAVAILABLE)
    assert {check.name: check.verdict for check in result.checks if check.verdict is not Verdict.PASS} == {}
    assert {"devices_detected", "operations_correct", "memory_allocated", "scaling_efficiency", "no_xid"} <= {
        check.name for check in result.checks
    }
    assert result.metrics["gpu_utilisation"].value > 0.9


def test_a_gpu_that_it_holds_is_for_nobody_else(cube: Vaultcube, box: Box) -> None:
    box.load(1, 3)
    images.pace(box.path, 0.5)
    child = cube.start(*BENCH, *PINS)
    try:
        files = cube.runs.glob
        until(lambda: any('"kind":"window"' in one.read_text() for one in files("*/results/events.jsonl")), 60)
        refused = cube("bench", "ddp", "--preset", "smoke", "--gpus", "device=3")
        assert (refused.returncode, "[gpu-busy]" in refused.stderr) == (3, True), refused.stderr
    finally:
        images.pace(box.path, STEP_S)
        child.communicate(timeout=120)
    assert child.returncode == 0


def test_the_wheels_image_is_refused_on_blackwell_before_anything_is_looked_for(cube: Vaultcube) -> None:
    seen = cube(*BENCH, *PINS, "--flavour", "cu124")
    assert (seen.returncode, "[flavour-unsupported]" in seen.stderr) == (3, True), seen.stderr
    assert "flavour cu124 has no kernels for GPU 1" in seen.stderr
    assert "Use --flavour cu128, which is built FROM NVIDIA's own image" in seen.stderr
    assert not cube.runs.exists()


@pytest.mark.parametrize("box", ["2x4090"], indirect=True)
def test_older_cards_get_the_wheels_image(cube: Vaultcube, box: Box) -> None:
    # A reading of an idle card, where one falls into the short run, would fail it.
    box.load()
    plan = json.loads(cube(*BENCH, "--dry-run").stdout)["plan"]
    assert (plan["image"], plan["world_size"]) == ("vaultcube/tensorflow:cu124", 2)
    result = bench(cube, *BENCH)
    assert [gpu.name for gpu in result.gpus] == ["NVIDIA GeForce RTX 4090"] * 2


def test_it_is_held_against_ddp(cube: Vaultcube, box: Box) -> None:
    box.load(1, 3)
    theirs = bench(cube, "bench", "ddp", *BENCH[2:], *PINS)
    ours = bench(cube, *BENCH, *PINS)
    document = json.loads(cube("runs", "compare", theirs.run.id, ours.run.id, "--json").stdout)
    both = {one["name"]: one for one in document["metrics"]}
    # Both sleep as long.
    assert both["throughput_samples_per_s"]["ratio"] == pytest.approx(1, rel=0.2)
    assert both["devices_missing"]["first"] is None
    checks = {one["name"]: (one["first"], one["second"]) for one in document["checks"]}
    assert checks["scaling_efficiency"][0]["target"] == checks["scaling_efficiency"][1]["target"]
    differing = {one["what"] for one in document["differences"]}
    assert {"workload", "xla", "channels_last"} <= differing
    assert not differing & {"batch_size", "precision", "model", "gpus", "gpu uuids", "driver"}
    assert sum("is simulated" in note for note in document["notes"]) == 2
    text = cube("runs", "compare", theirs.run.id, ours.run.id).stdout
    assert text.startswith(
        f"A  {theirs.run.id}: ddp on 2x NVIDIA GeForce RTX 5090, completed, UNAVAILABLE, SIMULATED\n"
    )
