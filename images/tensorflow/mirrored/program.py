"""What is this program's own: its options, its presets, its environment, and what its log says of its end."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mirrored import startlog
from training import presets
from training.params import Params
from training.program import Program

if TYPE_CHECKING:
    from pathlib import Path

    from common.outcome import Problem


@dataclass(frozen=True)
class MirroredParams(Params):
    """The parameters of a run under MirroredStrategy."""

    xla: bool


_FALSIFY = (
    "NVIDIA_TF32_OVERRIDE",
    # Would take all memory at once, compile what was not asked for, or use another Keras than what is pinned.
    "TF_FORCE_GPU_ALLOW_GROWTH",
    "TF_XLA_FLAGS",
    "TF_USE_LEGACY_KERAS",
    # Floods the log, and slows every step.
    "TF_CPP_MAX_VLOG_LEVEL",
)


def environment(params: Params) -> dict[str, str]:
    """Return the environment of the worker: what the user set stays, except what would falsify a measurement."""
    wanted = {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        # All GPUs are in one process, and the container may have no other interface.
        "NCCL_SOCKET_IFNAME": "lo",
    }
    given = {name: value for name, value in os.environ.items() if name not in _FALSIFY}
    forced = {
        "PYTHONUNBUFFERED": "1",
        "KERAS_BACKEND": "tensorflow",
        # Why there is no GPU stands in the log alone, and which library is missing only at this level.
        "TF_CPP_MIN_LOG_LEVEL": "0",
        "TF_CPP_VMODULE": "dso_loader=1",
    }
    if params.device == "cpu":
        forced["CUDA_VISIBLE_DEVICES"] = ""
    return wanted | given | forced


def read_log(path: Path) -> str:
    """Return what TensorFlow has logged so far, nothing where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def autopsy(params: Params, path: Path) -> Problem | None:
    """Return what the log of a worker says that died without a word."""
    log = read_log(path)
    # Without GPUs it always says that there are none, which is no news.
    return startlog.cause(log) if params.device == "cuda" else startlog.fatal(log)


PROGRAM = Program(
    name="mirrored",
    workload="tensorflow",
    about="Measures data-parallel training with TensorFlow",
    models="a Keras application: resnet50, mobilenet_v2, ...",
    switches={"xla": "compile the step with XLA"},
    params=MirroredParams,
    presets=presets.adapted(
        {
            "acceptance": {"xla": False},
            "seed": {"xla": False},
            # TensorFlow takes two minutes to trace ResNet-50 on two cores, and a quarter of that for this.
            "smoke": {"xla": False, "model": "mobilenet"},
        }
    ),
    environment=environment,
    # What TensorFlow decodes.
    image_suffixes=(".jpg", ".jpeg", ".png", ".bmp", ".gif"),
    child="mirrored.worker",
    child_name="the worker",
    memory_setting="TENSORFLOW_MEMORY",
    keeps_log=True,
    autopsy=autopsy,
)
