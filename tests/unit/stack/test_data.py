"""Models that cannot be served are refused before anything is built. What fits is gpu/fit's to say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.stack.test_plan_service import plan
from tests.unit.support import box

from vaultcube.errors import BadParameterError, ModelNotFoundError, ModelTooLargeError, ModelUnreadableError
from vaultcube.stack.data import check_data, check_model

LLAMA_2_7B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "max_position_embeddings": 4096,
    "torch_dtype": "float16",
    "vocab_size": 32000,
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's directory whose weights take no disk."""
    folder = tmp_path / "my model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_2_7B))
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(13_476_839_424)
    return folder


def test_a_model_that_fits(model: Path) -> None:
    check_model(plan(given={"model": str(model)}))


def test_one_that_does_not_says_what_would_help(model: Path) -> None:
    with (model / "model.safetensors").open("wb") as file:
        file.truncate(60 * 10**9)
    with pytest.raises(ModelTooLargeError, match="GB are lacking") as seen:
        check_model(plan(given={"model": str(model)}))
    assert "3 GPUs: --pipeline-parallel 3" in seen.value.next_step
    check_model(plan(given={"model": str(model), "pipeline_parallel": 3}))


def test_a_layout_that_cannot_be(model: Path) -> None:
    with pytest.raises(BadParameterError, match="does not divide"):
        check_model(plan(given={"model": str(model), "tensor_parallel": 3}))


def test_without_a_gpu_only_the_server_can_say(model: Path) -> None:
    with (model / "model.safetensors").open("wb") as file:
        file.truncate(60 * 10**9)
    check_model(plan(box(0), given={"model": str(model)}))


def test_what_is_no_model(model: Path) -> None:
    one = plan(given={"model": str(model)})
    (model / "config.json").write_text("{")
    with pytest.raises(ModelUnreadableError, match="not JSON"):
        check_model(one)
    (model / "config.json").write_text("[]")
    with pytest.raises(ModelUnreadableError, match="is not a JSON object"):
        check_model(one)
    (model / "config.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"no config\.json"):
        check_model(one)


def test_a_folder_that_is_not_there_or_that_the_container_cannot_read(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no folder"):
        check_data(plan(given={"model": str(tmp_path / "nonsuch")}))
    model.chmod(0o700)
    with pytest.raises(ModelUnreadableError, match="cannot read"):
        check_data(plan(given={"model": str(model)}, user="4242:4242"))
