"""The programs in images/ are no package: they are found as in a container, by their folders."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

IMAGES = Path(__file__).resolve().parents[3] / "images"
PROGRAM_PATH = [str(IMAGES), str(IMAGES / "pytorch"), str(IMAGES / "vllm")]
sys.path[:0] = PROGRAM_PATH

from ddp.params import Params  # noqa: E402 - found by the lines above


@pytest.fixture
def program_env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(PROGRAM_PATH), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def params() -> Callable[..., Params]:
    base = Params(
        preset="smoke",
        device="cpu",
        ranks=2,
        model="resnet50",
        batch_size=4,
        image_size=64,
        precision="fp32",
        channels_last=False,
        data=None,
        windows=5,
        steps_per_window=2,
        warmup_steps=2,
        max_warmup_steps=8,
        allreduce_timeout_s=30.0,
        hang_timeout_s=120.0,
        seed=0,
    )
    return lambda **changes: replace(base, **changes)
