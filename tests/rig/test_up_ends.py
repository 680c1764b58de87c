"""Starts of services that do not come to an end: what is refused before, what fails, what is broken off."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.docker.conftest import until
from tests.docker.engines import Call, told
from tests.rig.serving import BYTES_70B, BYTES_70B_AWQ, LLAMA_7B, LLAMA_70B, Serving, behave, make_model

START_S = 60


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "llama")


def result_of(serving: Serving) -> dict[str, Any]:
    """Return the only run's result, which is simulated and proves nothing, and check that nothing is left."""
    found = serving.cube.result()
    assert (found["simulated"], found["verdict"] == "PASS") == (True, False)
    assert serving.nothing_left()
    assert serving.ps() == []
    return found


# --- refused -----------------------------------------------------------------------------------------------------


def test_a_model_too_large_is_refused_before_anything_is_loaded(serving: Serving, tmp_path: Path) -> None:
    large = str(make_model(tmp_path / "large", LLAMA_70B, BYTES_70B, files=3))
    call = Call(serving.cube)
    for words in ([], ["--tensor-parallel", "4"]):
        message = call.refused("model-too-large", 3, "up", "vllm", "--model", large, *words)
        assert re.search(r"needs [\d.]+ GB on (?:the|each) GPU .* [\d.]+ GB are lacking", message), message
        assert serving.nothing_left()
    # Fewer bits over four cards: it is no longer.
    quantised = LLAMA_70B | {"quantization_config": {"quant_method": "awq", "bits": 4}}
    small = str(make_model(tmp_path / "awq", quantised, BYTES_70B_AWQ, files=3))
    call.refused("model-too-large", 3, "up", "vllm", "--model", small)
    record = serving.up("--model", small, "--tensor-parallel", "4")
    assert serving.gpus(record["run"]) == {"vllm": serving.box.uuids}


def test_a_context_that_is_suggested_fits(serving: Serving, tmp_path: Path) -> None:
    model = str(make_model(tmp_path / "long", LLAMA_7B | {"max_position_embeddings": 131072}))
    seen = serving.cube("up", "vllm", "--model", model)
    assert "GB for one context of 131072 tokens" in told(seen, "model-too-large", 3, as_json=False).replace(
        "for one", "GB for one"
    )
    suggested = re.search(r"--max-model-len (\d+)", seen.stderr)
    assert suggested, seen.stderr
    record = serving.up("--model", model, "--max-model-len", suggested[1])
    (status, text), *_ = serving.ask(record["url"], "/v1/models")
    assert status == 200
    assert json.loads(text)["data"][0]["max_model_len"] == int(suggested[1])
    # And one that is asked for is too long, or is not.
    Call(serving.cube).refused("model-too-large", 3, "up", "vllm", "--model", model, "--max-model-len", "65536")


def test_a_flavour_without_kernels_is_refused_before_anything_is_built(serving: Serving, model: Path) -> None:
    serving.engine.ask("tag", "vaultcube/vllm:cu124", "kept/vllm:cu124")
    serving.engine.ask("image", "rm", "vaultcube/vllm:cu124")
    try:
        message = Call(serving.cube).refused(
            "flavour-unsupported", 3, "up", "vllm", "--model", str(model), "--flavour", "cu124"
        )
    finally:
        serving.engine.ask("tag", "kept/vllm:cu124", "vaultcube/vllm:cu124")
        serving.engine.ask("image", "rm", "kept/vllm:cu124")
    assert "NVIDIA GeForce RTX 5090" in message


def test_models_that_are_none_are_refused(serving: Serving, model: Path, tmp_path: Path) -> None:
    call = Call(serving.cube)
    (tmp_path / "empty").mkdir()
    call.refused("model-not-found", 2, "up", "vllm", "--model", str(tmp_path / "empty"))
    call.refused("model-not-found", 2, "up", "vllm", "--model", str(tmp_path / "nowhere"))
    # Cut short as by a full disk: only the server reads so far.
    shard = model / "model-00002-of-00002.safetensors"
    os.truncate(shard, shard.stat().st_size - 1)
    message = told(serving.cube("up", "vllm", "--model", str(model)), "model-unreadable", 3, as_json=False)
    assert "cut short" in message
    result_of(serving)


# --- fails while it loads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("death", "code", "cause"),
    [
        ("cuda", "server-died", "CUDA error: an illegal memory access was encountered"),
        ("memory", "gpu-memory", "CUDA out of memory. Tried to allocate 1.96 GiB"),
    ],
)
def test_a_server_that_dies_while_it_loads_says_why(
    serving: Serving, model: Path, death: str, code: str, cause: str
) -> None:
    behave(model, dies=death)
    seen = serving.cube("up", "vllm", "--model", str(model))
    assert cause in seen.stderr, seen.stderr
    assert f"[{code}]" in seen.stderr
    assert "Traceback" not in seen.stderr
    assert (seen.returncode, seen.stdout) == (1, "")
    result = result_of(serving)
    assert (result["run"]["status"], result["run"]["error"]["code"]) == ("failed", code)


def test_of_two_replicas_the_one_that_died_is_named_and_the_other_is_taken_down(serving: Serving, model: Path) -> None:
    # It cannot be said of one of them alone, and the first to end ends the start.
    behave(model, dies="cuda")
    seen = serving.cube("up", "vllm", "--model", str(model), "--replicas", "2")
    assert (seen.returncode, "CUDA error" in seen.stderr) == (1, True), seen.stderr
    result_of(serving)


def test_a_server_that_never_gets_ready_is_given_up(serving: Serving, model: Path) -> None:
    behave(model, load_s=600)
    message = told(serving.cube("up", "vllm", "--model", str(model), "--timeout", "3s"), "timeout", 1, as_json=False)
    assert "3 s" in message
    assert "load" in message
    assert result_of(serving)["run"]["status"] == "timeout"


# --- broken off --------------------------------------------------------------------------------------------------


def loading(serving: Serving) -> bool:
    """Say whether a server has begun to load its model."""
    return any('"stage":"load"' in file.read_text() for file in serving.cube.runs.glob("*/results/events.jsonl"))


def test_ctrl_c_while_it_loads_leaves_nothing(serving: Serving, model: Path) -> None:
    behave(model, load_s=600)
    child = serving.cube.start("up", "vllm", "--model", str(model))
    until(lambda: loading(serving), START_S, "it loads")
    assert serving.states() == {"vllm": "loading"}
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, ""), err
    assert result_of(serving)["run"]["status"] == "interrupted"


def test_an_up_that_is_killed_is_cleared_by_down(serving: Serving, model: Path) -> None:
    behave(model, load_s=600)
    child = serving.cube.start("up", "vllm", "--model", str(model), "--name", "orphan")
    until(lambda: loading(serving), START_S, "it loads")
    (before,) = serving.ps()
    os.kill(before["keeper"], signal.SIGKILL)
    child.communicate(timeout=60)
    (found,) = serving.ps()
    assert (found["name"], found["state"], found["keeper"]) == ("orphan", "running", None)
    assert "nobody: vaultcube down" in serving.cube("ps").stdout
    assert [gpu["index"] for gpu in found["gpus"]] == [0]
    assert "orphan" in serving.down("orphan")
    assert result_of(serving)["run"]["status"] == "interrupted"


def test_down_stops_a_start_that_is_under_way(serving: Serving, model: Path) -> None:
    behave(model, load_s=600)
    child = serving.cube.start("up", "vllm", "--model", str(model))
    until(lambda: loading(serving), START_S, "it loads")
    assert "stopped by its own vaultcube" in serving.down("vllm")
    child.communicate(timeout=60)
    assert child.returncode == 130
    assert result_of(serving)["run"]["status"] == "interrupted"
