"""What a rank has to know of its device, and the proof that kernels run on it. Imports torch."""

from __future__ import annotations

import os
from typing import Any

import torch
import torchvision
from torch.nn import functional

from common.outcome import CANNOT_RUN_HERE, Problem, first_line
from training import arch, machine
from training.params import Params


def select(params: Params, local_rank: int) -> torch.device:
    """Return this rank's device, made the current one, proven to run kernels.

    Raises:
        Problem: the image or the device cannot do it (exit code 69), or the device computes wrongly (70).
    """
    if params.device == "cpu":
        # One thread a rank: two ranks on two cores then measure the program, not the scheduler.
        torch.set_num_threads(1)
        return torch.device("cpu")
    device, properties = opened(local_rank)
    capability = (properties.major, properties.minor)
    flavour = os.environ.get("VAULTCUBE_FLAVOUR", "")
    arch.check(properties.name, capability, torch.cuda.get_arch_list(), params.precision, flavour)
    prove(device)
    return device


def opened(index: int) -> tuple[torch.device, Any]:
    """Return GPU `index`, made the current one, and its properties.

    Raises:
        Problem: it cannot be used (exit code 69).
    """
    device = torch.device("cuda", index)
    try:
        torch.cuda.set_device(device)
        torch.cuda.init()
        return device, torch.cuda.get_device_properties(device)
    except (RuntimeError, AssertionError) as error:
        raise Problem(
            "cuda-unavailable",
            f"GPU {index} cannot be used: {first_line(str(error))}",
            "see `nvidia-smi` on the host: the driver may be too old for this image, or the GPU lost",
            CANNOT_RUN_HERE,
        ) from error


def prove(device: torch.device) -> None:
    """Launch kernels of the framework, cuBLAS and cuDNN whose results are known exactly.

    Raises:
        Problem: a result is wrong. RuntimeError: a kernel could not be launched.
    """
    ramp = torch.arange(4096, device=device, dtype=torch.float32)
    square = (torch.arange(64 * 64, device=device) % 7).reshape(64, 64)
    image, weight = torch.ones(1, 3, 8, 8, device=device), torch.ones(4, 3, 3, 3, device=device)
    wrong = [
        name
        for name, got, expected in (
            ("elementwise", ramp * 2 + 1, torch.arange(4096, dtype=torch.float32) * 2 + 1),
            ("matrix product", square.float() @ square.float(), (square.cpu() @ square.cpu()).float()),
            ("convolution", functional.conv2d(image, weight), torch.full((1, 4, 6, 6), 27.0)),
        )
        if not torch.equal(got.cpu(), expected)
    ]
    if wrong:
        raise Problem(
            "device-wrong-result",
            f"{device} computes wrongly: {', '.join(wrong)}",
            "stop using this GPU until a stress test has cleared it",
        )


def describe(device: torch.device, local_rank: int) -> dict[str, Any]:
    """Return the fields of the `device` event."""
    if device.type == "cpu":
        return {
            "device_index": local_rank,
            "name": machine.cpu_name(),
            "uuid": None,
            "compute_capability": None,
            "memory_bytes": machine.memory_bytes(),
            "architectures": [],
        }
    properties = torch.cuda.get_device_properties(device)
    return {
        "device_index": local_rank,
        "name": properties.name,
        # As NVML and nvidia-smi write it.
        "uuid": f"GPU-{properties.uuid}",
        "compute_capability": arch.dotted((properties.major, properties.minor)),
        "memory_bytes": properties.total_memory,
        "architectures": torch.cuda.get_arch_list(),
    }


def versions() -> dict[str, str | None]:
    """Return the versions of the frameworks, None for what this build has not."""
    cudnn = torch.backends.cudnn.version()
    return {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cuda": torch.version.cuda,
        "cudnn": None if cudnn is None else f"{cudnn // 10000}.{cudnn // 100 % 100}.{cudnn % 100}",
        "nccl": ".".join(str(part) for part in torch.cuda.nccl.version()) if torch.version.cuda else None,
    }


def peak_memory(device: torch.device) -> int | None:
    """Return the most bytes that tensors took on the device at once, None on the CPU."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else None
