"""Presets: sets of parameters with a name, the same for every program, so that programs can be compared.

Any option on the command line overrides its value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_EVERY: dict[str, Any] = {
    "model": "resnet50",
    "data": None,
    "allreduce_timeout_s": 60.0,
    "hang_timeout_s": 300.0,
    "seed": 0,
}

PRESETS: dict[str, dict[str, Any]] = {
    # What a box is accepted by: the batch that today's GPUs need to be busy, in the precision people train in.
    "acceptance": _EVERY
    | {
        "batch_size": 256,
        "image_size": 224,
        "precision": "bf16",
        "windows": 10,
        "steps_per_window": 20,
        "warmup_steps": 20,
        "max_warmup_steps": 200,
    },
    # The setting of the customer's own script: batch 32, fp32, 100 iterations.
    "seed": _EVERY
    | {
        "batch_size": 32,
        "image_size": 224,
        "precision": "fp32",
        "windows": 5,
        "steps_per_window": 20,
        "warmup_steps": 10,
        "max_warmup_steps": 100,
    },
    # Proves the whole path on two CPU cores in well under a minute; its figures mean nothing.
    "smoke": _EVERY
    | {
        "batch_size": 4,
        "image_size": 64,
        "precision": "fp32",
        "windows": 5,
        "steps_per_window": 2,
        "warmup_steps": 2,
        "max_warmup_steps": 8,
        "allreduce_timeout_s": 30.0,
        "hang_timeout_s": 120.0,
    },
}


def adapted(changes: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the presets, each with what `changes` has for it: a program's switches, and where it has to differ."""
    return {preset: shared | dict(changes[preset]) for preset, shared in PRESETS.items()}
