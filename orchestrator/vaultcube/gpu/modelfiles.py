"""What a language model's own files say of its size: config.json, and which files are its weights.

Standard library only: the vLLM image carries this file too.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".gguf")
_CONTEXT_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
    "n_ctx",
)
# These stretch positions inside the context that the config states already.
_ROPE_WITHIN_CONTEXT = {"su", "longrope", "llama3", "mrope", "default", "proportional"}
_GENERATING = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "ForVision2Seq", "ForImageTextToText")


@dataclass(frozen=True)
class Shape:
    """What a model's config.json says of its size. Zero or None is what it does not tell.

    Attributes:
        architecture: the first of `architectures`.
        layers: layers with a KV cache, of which `sliding_layers` keep the last `window` tokens only.
        latent: elements a token and layer of latent attention (MLA); 0 for the common kinds.
        context: longest context in tokens, rope scaling included.
        dtype: of the weights as stored.
        quantised: the method, where the weights are stored with fewer bits.
        experts: of a mixture; 0 for a dense model.
        tied: input and output embedding are one matrix.
        generates: it writes text, rather than embeddings or scores.
    """

    architecture: str | None = None
    layers: int = 0
    hidden: int = 0
    intermediate: int = 0
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    latent: int = 0
    sliding_layers: int = 0
    window: int = 0
    context: int | None = None
    vocabulary: int = 0
    dtype: str | None = None
    quantised: str | None = None
    experts: int = 0
    tied: bool = False
    generates: bool = True

    def kv_elements_per_token(self, tensor_parallel: int = 1, pipeline_parallel: int = 1) -> int:
        """Return the elements of KV cache that one token takes in every attention layer of one GPU."""
        return math.ceil(self.layers / pipeline_parallel) * self._elements_per_layer(tensor_parallel)

    def kv_elements(self, tokens: int, tensor_parallel: int = 1, pipeline_parallel: int = 1) -> int:
        """Return the elements of KV cache on one GPU that a sequence of `tokens` takes."""
        full = math.ceil((self.layers - self.sliding_layers) / pipeline_parallel)
        sliding = math.ceil(self.sliding_layers / pipeline_parallel)
        kept = min(tokens, self.window) if self.window else tokens
        return (full * tokens + sliding * kept) * self._elements_per_layer(tensor_parallel)

    def _elements_per_layer(self, tensor_parallel: int) -> int:
        return self.latent or 2 * math.ceil(self.kv_heads / tensor_parallel) * self.head_dim


def read_shape(config: Mapping[str, Any]) -> Shape:
    """Read a config.json. Never raises: what is missing, or of the wrong type, counts as not told."""
    architectures = config.get("architectures")
    architecture = architectures[0] if isinstance(architectures, list) and architectures else None
    text = _text_part(config)
    hidden = _number(text, "hidden_size", "n_embd", "d_model", "dim")
    heads = _number(text, "num_attention_heads", "n_head", "num_heads", "n_heads")
    layers = _number(text, "num_hidden_layers", "n_layer", "num_layers", "n_layers")
    kv_heads = _number(text, "num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
    if not kv_heads:
        kv_heads = 1 if text.get("multi_query") is True else heads
    latent = _number(text, "kv_lora_rank")
    attention, sliding, window = _attention_layers(text, layers)
    quantisation = config.get("quantization_config") or text.get("quantization_config")
    dtype = next(
        (
            value
            for part in (text, config)
            for key in ("torch_dtype", "dtype")
            if isinstance(value := part.get(key), str)
        ),
        None,
    )
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    return Shape(
        architecture=architecture if isinstance(architecture, str) else None,
        layers=attention,
        hidden=hidden,
        intermediate=_number(text, "intermediate_size", "n_inner", "ffn_dim") or 4 * hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=_number(text, "head_dim", "kv_channels") or (hidden // heads if heads else 0),
        latent=latent + _number(text, "qk_rope_head_dim") if latent else 0,
        sliding_layers=sliding,
        window=window,
        context=_context(text),
        vocabulary=_number(text, "vocab_size"),
        dtype=dtype.removeprefix("torch.") if dtype else None,
        quantised=_method(quantisation),
        experts=_number(text, "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
        tied=tied is True,
        generates=not isinstance(architecture, str) or any(mark in architecture for mark in _GENERATING),
    )


def _text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the language model's part of a config: multimodal ones nest it."""
    for key in ("text_config", "llm_config", "language_config", "thinker_config"):
        inner = config.get(key)
        if isinstance(inner, dict):
            return _text_part(inner)
    return config


def _number(config: Mapping[str, Any], *keys: str) -> int:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**12:
            return value
    return 0


def _attention_layers(text: Mapping[str, Any], layers: int) -> tuple[int, int, int]:
    """Return layers with a KV cache, how many of them slide, and the window in tokens."""
    window = _number(text, "sliding_window")
    kinds = text.get("layer_types") or text.get("layers_block_type")
    if isinstance(kinds, list) and kinds:
        sliding = sum(kind == "sliding_attention" for kind in kinds) if window else 0
        return sum("attention" in str(kind) and "linear" not in str(kind) for kind in kinds), sliding, window
    if not window or text.get("use_sliding_window") is False:
        return layers, 0, 0
    pattern = _number(text, "sliding_window_pattern")
    return layers, layers - layers // pattern if pattern else layers, window


def _context(text: Mapping[str, Any]) -> int | None:
    stated = [value for key in _CONTEXT_KEYS if (value := _number(text, key))]
    if not stated:
        return None
    context = min(stated)
    scaling = text.get("rope_scaling") or text.get("rope_parameters")
    if not isinstance(scaling, dict):
        return context
    kind, factor = scaling.get("rope_type", scaling.get("type")), scaling.get("factor")
    if kind in _ROPE_WITHIN_CONTEXT or isinstance(factor, bool) or not isinstance(factor, (int, float)):
        return context
    if kind == "yarn":
        context = _number(scaling, "original_max_position_embeddings") or context
    return int(context * factor) if 1 <= factor < 10**6 else context


def _method(quantisation: object) -> str | None:
    if not isinstance(quantisation, dict) or not quantisation:
        return None
    method = quantisation.get("quant_method")
    return method if isinstance(method, str) else "quantised"


def directory_weights(path: str | os.PathLike[str]) -> int:
    """Return the bytes of the weight files that vLLM would load from a model's directory.

    Safetensors come before other formats, and an index says which of them belong to the model.

    Raises:
        OSError: the directory, or a file of it, cannot be read.
    """
    folder = Path(path)
    names = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(_WEIGHT_SUFFIXES))
    return sum((folder / name).stat().st_size for name in weight_files(names, _index(folder)))


def _index(folder: Path) -> Sequence[str]:
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
        return sorted({str(name) for name in index["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def weight_files(names: Sequence[str], indexed: Sequence[str] = ()) -> list[str]:
    """Return which of a model's top-level files are the weights that vLLM loads."""
    top = [name for name in names if "/" not in name]
    tensors = [name for name in top if name.endswith(".safetensors")]
    # Mistral's own format lies beside the common one, with the same numbers in it.
    if any(name.startswith("model") for name in tensors):
        tensors = [name for name in tensors if not name.startswith("consolidated")]
    if tensors:
        return [name for name in tensors if name in indexed] or tensors
    for suffix in _WEIGHT_SUFFIXES[1:]:
        # Optimizers' and trainers' states are no weights.
        if found := [name for name in top if name.endswith(suffix) and not name.startswith(("optimizer", "training_"))]:
            return found
    return []
