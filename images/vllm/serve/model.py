"""What is about to be served, and whether this machine has the memory for it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import memory
from common.outcome import BAD_PARAMETERS, CANNOT_RUN_HERE, Problem
from serve import cards, directory, tiny
from serve.cli import TINY
from vaultcube.gpu import fit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serve.cli import Options

GIB = 2**30
KV_SPACE = "VLLM_CPU_KVCACHE_SPACE"
"""vLLM's variable for the KV cache on the CPU, in GiB."""
MOST_KV_SPACE_GIB = 4
BLACKWELL = (10, 0)
"""First compute capability that cu124 has no kernels for."""
_POOLING_FLAGS = {"--runner": {"pooling"}, "--task": {"embed", "embedding", "classify", "score", "reward", "pooling"}}


@dataclass(frozen=True)
class Model:
    """A model that is ready to be loaded, or to be downloaded.

    Attributes:
        source: "tiny", "directory" or "hub".
        location: what vLLM is told to load.
        environment: variables that vLLM needs to find it.
    """

    source: str
    location: str
    config: Mapping[str, Any]
    weights_bytes: int
    revision: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def generates(self, flags: Sequence[str]) -> bool:
        """Say whether it will write text, rather than embeddings or scores."""
        asked = {name: fit.flag(flags, name) for name in _POOLING_FLAGS}
        if any(asked[name] in words for name, words in _POOLING_FLAGS.items()):
            return False
        return asked["--runner"] == "generate" or asked["--task"] == "generate" or fit.read_shape(self.config).generates

    def event(self, options: Options) -> dict[str, Any]:
        """Return the fields of the `model` event."""
        shape = fit.read_shape(self.config)
        # A mixture stored with fewer bits, or a shape that is not told, has no such figure.
        active = fit.active_bytes(shape, self.weights_bytes, options.flags)
        return {
            "model": options.served_model_name,
            "source": self.source,
            "revision": self.revision,
            "architecture": shape.architecture,
            "dtype": fit.served_dtype(shape, options.flags),
            "weights_bytes": self.weights_bytes or None,
            "active_weights_bytes": active or None,
            "kv_bytes_per_token": fit.kv_bytes_per_token(shape, options.flags),
            "max_model_len": options.max_model_len or shape.context,
            "random_weights": self.source == "tiny" or fit.flag(options.flags, "--load-format") == "dummy",
            "generates": self.generates(options.flags),
        }


def cache_folder() -> Path:
    """Return the folder that everything which should outlive the container is below."""
    return Path(os.environ.get("HF_HOME", "/cache/huggingface")).parent


def local(options: Options) -> Model | None:
    """Return the model if it needs no hub: `tiny`, or a directory; None for a hub id.

    Raises:
        Problem: its files are not there, not readable, or not whole.
    """
    if options.model == TINY:
        try:
            folder = tiny.prepare(cache_folder())
        except OSError as error:
            message = f"cannot write the tiny model: {error}"
            raise Problem("disk-too-small", message, "give the container a writable /cache or /tmp") from error
        source = "tiny"
    elif options.model.startswith(("/", "./", "../")):
        folder, source = Path(options.model), "directory"
        if folder.suffix == ".gguf" and folder.is_file():
            return Model(source, str(folder), {}, folder.stat().st_size)
    else:
        return None
    config = directory.read_config(folder)
    # Weights that are not read need not be there.
    dummy = fit.flag(options.flags, "--load-format") == "dummy"
    elsewhere = fit.flag(options.flags, "--tokenizer") is not None or "--skip-tokenizer-init" in options.flags
    weights = 0 if dummy else directory.check_files(folder, needs_tokenizer=not elsewhere)
    return Model(source, str(folder), config, weights, environment={"HF_HUB_OFFLINE": "1"})


def check_memory(model: Model, options: Options) -> str:
    """Check the model against the memory of this container's GPUs, or of the host; return what was found in a line.

    Raises:
        Problem: it does not fit (exit code 69), or cannot be divided like this (64).
    """
    shape = fit.read_shape(model.config)
    if options.device == "cpu":
        available = memory.available()
        if not available or not model.weights_bytes:
            return "memory not checked: its size is not known"
        return _judge(
            fit.check(shape, model.weights_bytes, [available], 1, 1, options.max_model_len, options.flags, cpu=True)
        )
    found = cards.read()
    if not found:
        return "memory not checked: no NVML in this container"
    if len(found) < options.gpus:
        message = f"{options.gpus} GPUs are needed (tensor x pipeline parallel), and {len(found)} can be seen from here"
        raise Problem("gpu-unavailable", message, "give the container more GPUs, or divide over fewer", CANNOT_RUN_HERE)
    used = found[: options.gpus]
    check_flavour(used, os.environ.get("VAULTCUBE_FLAVOUR", ""))
    share = fit.utilisation(options.flags)
    for card in used:
        if card.free_bytes < share * card.total_bytes:
            raise _card_in_use(card, share)
    if not model.weights_bytes or not shape.hidden:
        return "memory not checked: the model's size is not known"
    memories = [card.total_bytes for card in used]
    layout = options.tensor_parallel, options.pipeline_parallel
    return _judge(fit.check(shape, model.weights_bytes, memories, *layout, options.max_model_len, options.flags))


def _judge(found: fit.Fit) -> str:
    if found.error:
        exit_code = BAD_PARAMETERS if found.code == "bad-parameter" else CANNOT_RUN_HERE
        raise Problem(found.code or "model-too-large", found.error, found.next_step, exit_code)
    return f"needs {found.needed_bytes / fit.GB:.1f} GB of {found.available_bytes / fit.GB:.1f} GB"


def check_flavour(used: Sequence[cards.Card], flavour: str) -> None:
    """Raise the problem (exit code 69) of a GPU that this image's flavour has no kernels for."""
    for card in used:
        if flavour == "cu124" and card.capability >= BLACKWELL:
            major, minor = card.capability
            message = f"flavour cu124 has no kernels for {card.name} (compute capability {major}.{minor})"
            raise Problem("flavour-unsupported", message, "use the image flavour cu128", CANNOT_RUN_HERE)


def _card_in_use(card: cards.Card, share: float) -> Problem:
    free, total = card.free_bytes / fit.GB, card.total_bytes / fit.GB
    message = (
        f"GPU {card.index} ({card.name}) has {free:.1f} of {total:.1f} GB free, and vLLM wants {share:.0%} of it: "
        "something else uses it"
    )
    # Rounded down: the figure has to fit.
    less = math.floor(100 * free / total) / 100
    next_step = f"free the GPU, or let vLLM use less of it: -- --gpu-memory-utilization {less:.2f}"
    return Problem("gpu-memory", message, next_step, CANNOT_RUN_HERE)


def kv_space_gib(model: Model, options: Options) -> int:
    """Return the GiB of KV cache on the CPU: room for one longest context, and for a few more where memory is plenty."""
    if model.source == "tiny":
        return 1
    shape = fit.read_shape(model.config)
    a_token = fit.kv_bytes_per_token(shape, options.flags) or 0
    one = math.ceil(a_token * (options.max_model_len or shape.context or 0) / GIB)
    plenty = (memory.available() or 0) // (4 * GIB)
    return max(1, one, min(MOST_KV_SPACE_GIB, plenty))
