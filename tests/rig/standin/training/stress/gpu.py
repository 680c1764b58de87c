"""In place of `ddp.gpu`: what the soak's worker has to know of its device."""

from __future__ import annotations

from typing import Any, Protocol


class Device(Protocol):
    """The `Simulated` of the engine beside this file."""

    about: dict[str, Any]


def describe(device: Device, local_rank: int) -> dict[str, Any]:  # noqa: ARG001 - as the real one
    """Return the fields of the `device` event."""
    return device.about


def versions() -> dict[str, str | None]:
    """Return the versions of the frameworks; none is there."""
    return dict.fromkeys(("torch", "torchvision", "cuda", "cudnn", "nccl")) | {"stand-in": "1"}
