import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vaultcube.gpu import fit
from vaultcube.gpu.fit import GB, GIB, check, directory_weights, read_shape, weight_files

LLAMA_2_7B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "torch_dtype": "float16",
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}
QWEN_25_7B = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "sliding_window": 131072,
    "use_sliding_window": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 152064,
}
DEEPSEEK_V2_LITE = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "hidden_size": 2048,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "n_routed_experts": 64,
    "max_position_embeddings": 163840,
    "torch_dtype": "bfloat16",
}
GEMMA_3_27B = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "text_config": {
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "num_hidden_layers": 62,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "head_dim": 128,
        "sliding_window": 1024,
        "sliding_window_pattern": 6,
        "max_position_embeddings": 131072,
    },
    "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27},
    "torch_dtype": "bfloat16",
}
CARD_5090 = 34_190_458_880  # 32607 MiB
LLAMA_BYTES = 13_476_839_424
QWEN_BYTES = 15_231_233_024


def shaped(config: dict[str, Any], **changes: Any) -> fit.Shape:
    return read_shape(config | changes)


def test_the_kv_cache_of_llama_2_7b_is_half_a_mebibyte_a_token() -> None:
    assert fit.kv_bytes_per_token(shaped(LLAMA_2_7B)) == 512 * 1024


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (QWEN_25_7B, 2 * 28 * 4 * 128 * 2),
        (DEEPSEEK_V2_LITE, 27 * (512 + 64) * 2),
        (GEMMA_3_27B, 2 * 62 * 16 * 128 * 2),
        ({"n_layer": 12, "n_head": 12, "n_embd": 768, "torch_dtype": "float32"}, 2 * 12 * 12 * 64 * 2),
        (
            {"n_layer": 40, "n_head": 48, "n_embd": 6144, "multi_query": True, "torch_dtype": "float16"},
            2 * 40 * 128 * 2,
        ),
    ],
    ids=["grouped", "latent", "nested", "gpt2", "multi-query"],
)
def test_kv_bytes_of_other_kinds_of_attention(config: dict[str, Any], expected: int) -> None:
    assert fit.kv_bytes_per_token(read_shape(config)) == expected


def test_an_fp8_kv_cache_is_half_as_large() -> None:
    assert fit.kv_bytes_per_token(shaped(LLAMA_2_7B), ["--kv-cache-dtype", "fp8_e5m2"]) == 256 * 1024


def test_sliding_layers_keep_their_window_only() -> None:
    gemma = read_shape(GEMMA_3_27B)
    assert (gemma.layers, gemma.sliding_layers, gemma.window) == (62, 52, 1024)
    assert gemma.kv_elements(131072) == (10 * 131072 + 52 * 1024) * 2 * 16 * 128
    typed = shaped(
        LLAMA_2_7B, sliding_window=512, layer_types=["sliding_attention", "full_attention", "linear_attention"]
    )
    assert (typed.layers, typed.sliding_layers) == (2, 1)


@pytest.mark.parametrize(
    ("scaling", "context"),
    [
        (None, 4096),
        ({"type": "linear", "factor": 2.0}, 8192),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}, 8192),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}, 4096),
        ({"rope_type": "default", "rope_theta": 10000.0}, 4096),
        ({"rope_type": "linear", "factor": "many"}, 4096),
        ("nonsense", 4096),
    ],
)
def test_the_context_with_rope_scaling(scaling: object, context: int) -> None:
    assert shaped(LLAMA_2_7B, rope_scaling=scaling).context == context


def test_what_one_token_reads() -> None:
    untied = fit.active_bytes(shaped(LLAMA_2_7B), LLAMA_BYTES)
    assert untied == LLAMA_BYTES - 32000 * 4096 * 2
    assert fit.active_bytes(shaped(LLAMA_2_7B, tie_word_embeddings=True), LLAMA_BYTES) == LLAMA_BYTES
    assert fit.active_bytes(read_shape(DEEPSEEK_V2_LITE), LLAMA_BYTES) is None


@pytest.mark.parametrize(
    ("changes", "flags", "expected"),
    [
        ({}, [], 100),
        ({"torch_dtype": "float32"}, [], 50),
        ({"torch_dtype": "float32"}, ["--dtype", "float32"], 100),
        ({}, ["--dtype=float32"], 200),
        ({}, ["--quantization", "fp8"], 53),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, ["--dtype", "float32"], 100),
    ],
)
def test_weights_are_cast_as_they_are_loaded(changes: dict[str, Any], flags: list[str], expected: int) -> None:
    assert fit.loaded_bytes(shaped(LLAMA_2_7B, **changes), 100, flags) == expected


@pytest.mark.parametrize(
    ("architecture", "generates"),
    [
        ("LlamaForCausalLM", True),
        ("Qwen2VLForConditionalGeneration", True),
        ("BertModel", False),
        ("XLMRobertaForSequenceClassification", False),
        (None, True),
    ],
)
def test_who_writes_text(architecture: str | None, generates: bool) -> None:  # noqa: FBT001
    assert read_shape({"architectures": [architecture]}).generates is generates


def test_a_7b_model_fits_a_5090_with_about_30000_tokens() -> None:
    found = check(shaped(LLAMA_2_7B), LLAMA_BYTES, [CARD_5090])
    assert found.error is None
    assert found.next_step == ""
    assert found.kv_tokens is not None
    assert 28_000 < found.kv_tokens < 34_000


def test_a_context_that_is_too_long_gets_one_that_fits() -> None:
    found = check(shaped(LLAMA_2_7B, max_position_embeddings=131072), LLAMA_BYTES, [CARD_5090])
    assert found.code == "model-too-large"
    assert found.error == (
        "the model needs 82.7 GB on the GPU (weights 13.5 + 68.7 for one context of 131072 tokens + 0.5 to work with), "
        "and 30.8 GB can be used: 51.9 GB are lacking"
    )
    assert found.longest is not None
    assert 28_000 < found.longest < 34_000
    assert f"--max-model-len {found.longest}" in found.next_step
    assert found.parallel == (1, 3)
    assert found.next_step.endswith(", or 3 GPUs: --pipeline-parallel 3.")


def test_weights_that_are_too_large_get_more_gpus_or_fewer_bits() -> None:
    llama_70b = shaped(
        LLAMA_2_7B,
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
    )
    found = check(llama_70b, 137_953_316_864, [CARD_5090] * 4, 4)
    assert (found.longest, found.parallel, found.bits) == (None, (1, 5), 8)
    assert found.next_step == (
        "Use 5 GPUs: --pipeline-parallel 5, or a version quantised to 8 bits, which would need about 19.2 GB."
    )
    on_two = check(llama_70b, 137_953_316_864, [CARD_5090] * 2, 2)
    assert (on_two.longest, on_two.bits) == (None, 4)
    larger = check(llama_70b, 137_953_316_864, [80 * GB], 1)
    assert larger.parallel == (2, 1)
    assert "2 GPUs: --tensor-parallel 2" in larger.next_step


def test_nothing_helps_a_model_that_is_far_too_large() -> None:
    found = check(shaped(LLAMA_2_7B), 10**14, [CARD_5090])
    assert found.next_step == "Use a smaller model: no context, number of GPUs or precision helps."


@pytest.mark.parametrize(
    ("tensor", "pipeline", "says"),
    [
        (3, 1, "--tensor-parallel 3 does not divide the model's 28 attention heads (4 of KV) evenly"),
        (7, 1, "--tensor-parallel 7"),
        (1, 29, "--pipeline-parallel 29 divides 28 layers"),
    ],
)
def test_what_cannot_be_divided_is_a_bad_parameter(tensor: int, pipeline: int, says: str) -> None:
    found = check(shaped(QWEN_25_7B), QWEN_BYTES, [CARD_5090] * (tensor * pipeline), tensor, pipeline)
    assert found.code == "bad-parameter"
    assert found.error is not None
    assert says in found.error
    if pipeline == 1:
        assert found.next_step == "Use one of 1, 2, 4."


def test_flags_of_vllm_change_what_is_available() -> None:
    shape = shaped(LLAMA_2_7B)
    assert (
        check(shape, LLAMA_BYTES, [CARD_5090], flags=["--gpu_memory_utilization=0.5"]).available_bytes == CARD_5090 // 2
    )
    offloaded = check(shape, LLAMA_BYTES, [CARD_5090], flags=["--cpu-offload-gb", "4"])
    assert check(shape, LLAMA_BYTES, [CARD_5090]).needed_bytes - offloaded.needed_bytes == 4 * GIB
    assert check(shape, LLAMA_BYTES, [CARD_5090], flags=["--gpu-memory-utilization", "nonsense"]).error is None


def test_the_smallest_gpu_decides() -> None:
    assert check(shaped(LLAMA_2_7B), LLAMA_BYTES, [CARD_5090, 8 * GIB], 2).error is not None


def test_on_the_cpu_nobody_is_told_to_use_more_gpus() -> None:
    found = check(shaped(LLAMA_2_7B), LLAMA_BYTES, [8 * GIB], cpu=True)
    assert found.parallel is None
    assert found.error is not None
    assert " GB of memory " in found.error
    assert check(shaped(LLAMA_2_7B), 10**7, [4 * GIB], cpu=True).error is None


@pytest.mark.parametrize(
    ("flags", "value"),
    [
        ([], None),
        (["--a", "1"], "1"),
        (["--a=1"], "1"),
        (["--a", "1", "--a=2"], "2"),
        (["--a", "--b"], ""),
        (["--a"], ""),
        (["--a_b", "1"], None),
    ],
)
def test_flags_are_read_as_argparse_reads_them(flags: list[str], value: str | None) -> None:
    assert fit.flag(flags, "--a") == value
    assert fit.flag(["--a_b", "3"], "--a-b") == "3"


configs = st.fixed_dictionaries(
    {
        "architectures": st.just(["LlamaForCausalLM"]),
        "hidden_size": st.sampled_from([1024, 4096, 8192]),
        "num_hidden_layers": st.integers(1, 100),
        "num_attention_heads": st.sampled_from([8, 28, 32, 64]),
        "num_key_value_heads": st.sampled_from([1, 4, 8]),
        "max_position_embeddings": st.sampled_from([512, 4096, 32768, 131072]),
        "vocab_size": st.sampled_from([32000, 152064]),
        "torch_dtype": st.sampled_from(["float16", "bfloat16", "float32"]),
        "sliding_window": st.sampled_from([None, 1024]),
    }
)
weights = st.integers(10**8, 3 * 10**11)
cards = st.integers(4 * 10**9, 2 * 10**11)


@given(config=configs, size=weights, card=cards, more=st.integers(0, 10**11))
def test_what_fits_a_card_fits_a_larger_one(config: dict[str, Any], size: int, card: int, more: int) -> None:
    if check(read_shape(config), size, [card]).error is None:
        assert check(read_shape(config), size, [card + more]).error is None


@given(config=configs, size=weights, card=cards, context=st.integers(16, 10**6), less=st.integers(1, 10**6))
def test_what_fits_fits_with_a_shorter_context(
    config: dict[str, Any], size: int, card: int, context: int, less: int
) -> None:
    shape = read_shape(config)
    if check(shape, size, [card], 1, 1, context).error is None:
        assert check(shape, size, [card], 1, 1, max(16, context - less)).error is None


@given(config=configs, size=weights, card=cards, tensor=st.sampled_from([1, 2, 4]), pipeline=st.sampled_from([1, 2]))
def test_every_suggestion_fits_when_it_is_followed(
    config: dict[str, Any], size: int, card: int, tensor: int, pipeline: int
) -> None:
    shape = read_shape(config)
    found = check(shape, size, [card] * (tensor * pipeline), tensor, pipeline)
    assert (found.error is None) == (found.code is None)
    assume(found.code == "model-too-large")
    assert found.needed_bytes > found.available_bytes
    if found.longest:
        assert found.longest % fit.SHORTEST_CONTEXT == 0
        assert check(shape, size, [card] * (tensor * pipeline), tensor, pipeline, found.longest).error is None
    if found.parallel:
        gpus = found.parallel[0] * found.parallel[1]
        assert check(shape, size, [card] * gpus, *found.parallel).error is None
    if found.bits:
        quantised = read_shape(config | {"quantization_config": {"quant_method": "gptq"}, "torch_dtype": "float16"})
        smaller = int(fit.loaded_bytes(shape, size) * (found.bits + 0.5) / 16)
        assert check(quantised, smaller, [card] * (tensor * pipeline), tensor, pipeline).error is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    config=st.dictionaries(
        st.sampled_from([*LLAMA_2_7B, "text_config", "rope_scaling", "layer_types", "sliding_window", "head_dim"]),
        json_values,
    )
)
def test_no_config_is_too_strange(config: dict[str, Any]) -> None:
    found = check(read_shape(config), 10**9, [CARD_5090])
    assert found.error is None or found.next_step


def write_weights(path: Path, size: int) -> None:
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))


def test_the_bytes_of_a_directory_are_those_that_are_loaded(tmp_path: Path) -> None:
    for name in ("model-1.safetensors", "model-2.safetensors", "consolidated.safetensors"):
        write_weights(tmp_path / name, 100)
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(1000))
    each = (tmp_path / "model-1.safetensors").stat().st_size
    assert directory_weights(tmp_path) == 2 * each
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "model-1.safetensors"}}))
    assert directory_weights(tmp_path) == each
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    assert directory_weights(tmp_path) == 2 * each


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["pytorch_model.bin", "optimizer.bin", "training_args.bin"], ["pytorch_model.bin"]),
        (["consolidated.safetensors", "tekken.json"], ["consolidated.safetensors"]),
        (["onnx/model.safetensors", "model.Q4.gguf"], ["model.Q4.gguf"]),
        (["README.md"], []),
    ],
)
def test_which_files_are_weights(names: list[str], expected: list[str]) -> None:
    assert weight_files(names) == expected


def test_gigabytes_are_decimal() -> None:
    assert GB == 10**9
