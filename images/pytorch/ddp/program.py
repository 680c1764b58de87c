"""What is this program's own: its options, its presets, and the environment of its ranks."""

from __future__ import annotations

import os
from dataclasses import dataclass

from training import presets
from training.params import Params
from training.program import Program


@dataclass(frozen=True)
class DdpParams(Params):
    """The parameters of a DDP run."""

    channels_last: bool


def environment(params: Params) -> dict[str, str]:
    """Return the environment of the ranks: what is set by the user stays, except what would falsify a measurement."""
    wanted = {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        # All ranks are on one machine: no interface but the loopback one is needed, or even there.
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        # NCCL >= 2.24 places host memory with NUMA calls that containers forbid.
        "NCCL_CUMEM_HOST_ENABLE": "0",
        # torch 2.6 turns this on by itself, and it hangs at random (pytorch#153960).
        "TORCH_NCCL_USE_COMM_NONBLOCKING": "0",
        # Without name lookup every connection warns that it cannot name its peer.
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
    given = dict(os.environ)
    for name in ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"):
        given.pop(name, None)
    forced = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    if params.device == "cpu":
        forced["CUDA_VISIBLE_DEVICES"] = ""
    return wanted | given | forced


PROGRAM = Program(
    name="ddp",
    workload="ddp",
    about="Measures data-parallel training",
    models="a torchvision classification model",
    switches={"channels_last": "keep images and weights in NHWC order"},
    params=DdpParams,
    presets=presets.adapted(
        {"acceptance": {"channels_last": True}, "seed": {"channels_last": False}, "smoke": {"channels_last": False}}
    ),
    environment=environment,
    # What torchvision's ImageFolder takes for an image.
    image_suffixes=(".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"),
    child="ddp.agent",
    child_name="torchrun",
    memory_setting="DDP_MEMORY",
)
