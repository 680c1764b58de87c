"""The programs in images/ are no package: they are found as in a container, by their folders."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

IMAGES = Path(__file__).resolve().parents[3] / "images"
# images/tensorflow is no package: where the framework is installed, the folder of that name is passed over.
PROGRAM_PATH = [str(IMAGES), *(str(IMAGES / name) for name in ("pytorch", "vllm", "tensorflow"))]
sys.path[:0] = PROGRAM_PATH

from ddp.program import DdpParams  # noqa: E402 - found by the lines above
from mirrored.program import PROGRAM, MirroredParams  # noqa: E402 - likewise


@pytest.fixture
def program_env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(PROGRAM_PATH), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def params() -> Callable[..., DdpParams]:
    base = DdpParams(
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


@pytest.fixture
def mirrored() -> Callable[..., MirroredParams]:
    base = MirroredParams(device="cpu", ranks=2, preset="smoke", **PROGRAM.presets["smoke"])
    return lambda **changes: replace(base, **changes)
