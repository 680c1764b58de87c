"""`vaultcube bench vllm` against a fresh server on the CPU: real vLLM, its own load generator, and nothing left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.docker.conftest import ROOT, Vaultcube
from tests.docker.services import EAGER, START_S, cube_at, stages

pytestmark = [
    pytest.mark.docker,
    pytest.mark.image,
    pytest.mark.usefixtures("serving_images"),
    pytest.mark.timeout(900),
]

SIZES = ["--input-len", "8", "--output-len", "8", "--concurrency", "1,2"]
BENCH = ["bench", "vllm", "--gpus", "none", *SIZES]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Vaultcube, dict[str, Any], str]:
    """Return the command, the result of a measurement, and its progress."""
    cube = cube_at(tmp_path_factory.mktemp("bench"))
    seen = cube(*BENCH, "--json", *EAGER, timeout=START_S)
    assert seen.returncode == 0, seen.stderr
    return cube, json.loads(seen.stdout), seen.stderr


def run_of(cube: Vaultcube) -> Path:
    (run,) = cube.run_ids()
    return cube.runs / run


def test_it_completes_and_says_what_it_could_not_judge(measured: tuple[Vaultcube, dict[str, Any], str]) -> None:
    _, result, _ = measured
    jsonschema.validate(result, json.loads((ROOT / "docs/schema/result.schema.json").read_text()))
    assert (result["run"]["status"], result["verdict"]) == ("completed", "UNAVAILABLE")
    verdicts = {check["name"]: check["verdict"] for check in result["checks"]}
    assert verdicts["no_request_failed"] == "PASS"
    assert verdicts["output_tokens_per_s"] == verdicts["mbu"] == "UNAVAILABLE"


def test_its_server_loaded_before_it_was_measured(measured: tuple[Vaultcube, dict[str, Any], str]) -> None:
    cube, result, err = measured
    assert stages(run_of(cube)) == ["check", "load", "kv_cache", "warmup", "ready"]
    assert err.count("ready after") == 1
    metrics = {name: metric["value"] for name, metric in result["metrics"].items()}
    assert metrics["load_s"] > 1
    for level in ("c1", "c2"):
        assert metrics[f"output_tokens_per_s_{level}"] > 0
        assert 0 < metrics[f"ttft_p50_s_{level}"] <= metrics[f"e2e_p50_s_{level}"]


def test_the_figures_are_the_events(measured: tuple[Vaultcube, dict[str, Any], str]) -> None:
    cube, result, _ = measured
    lines = (run_of(cube) / "results/events.jsonl").read_text().splitlines()
    levels = [event for event in map(json.loads, lines) if event["kind"] == "level" and event["replica"] is None]
    assert [level["concurrency"] for level in levels] == [1, 2]
    for level in levels:
        assert level["output_tokens"] == 8 * level["completed"]
        rate = result["metrics"][f"output_tokens_per_s_c{level['concurrency']}"]["value"]
        assert rate == pytest.approx(level["output_tokens_per_s"])


def test_nothing_of_it_is_left(measured: tuple[Vaultcube, dict[str, Any], str]) -> None:
    cube, result, _ = measured
    assert not cube.left_behind()
    assert result["run"]["id"] not in {one["run"] for one in json.loads(cube("ps", "--json").stdout)}
    assert not list((Path(cube.env["XDG_DATA_HOME"]) / "vaultcube").glob("secrets/*"))
    shown = cube("runs", "show", result["run"]["id"])
    assert "output_tokens_per_s" in shown.stdout


def test_a_flag_that_vllm_does_not_know_is_a_bad_parameter(tmp_path: Path) -> None:
    cube = cube_at(tmp_path)
    seen = cube(*BENCH, "--", "--enforce-egaer", timeout=START_S)
    assert seen.returncode == 2, seen.stderr
    assert "enforce-egaer" in seen.stderr
    assert not cube.left_behind()
