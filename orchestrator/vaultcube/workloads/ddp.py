"""`ddp`: ResNet training under PyTorch DistributedDataParallel, weak scaling over all GPUs."""

from __future__ import annotations

from pydantic import Field

from vaultcube.workloads._training import ModelName, Training, TrainingParams, adapted


class DdpParams(TrainingParams):
    """Parameters of a DDP run."""

    model: ModelName = Field(description="torchvision classification model")
    channels_last: bool = Field(description="NHWC memory format")


class Ddp(Training):
    """PyTorch DistributedDataParallel."""

    name = "ddp"
    summary = "PyTorch DistributedDataParallel training: throughput and weak scaling over all GPUs"
    image = "pytorch"
    service = "ddp"
    program = "ddp"
    params_type = DdpParams
    presets = adapted(
        {"acceptance": {"channels_last": True}, "seed": {"channels_last": False}, "smoke": {"channels_last": False}}
    )


WORKLOAD = Ddp()
