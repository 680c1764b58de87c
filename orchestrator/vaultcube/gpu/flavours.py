"""Which image flavour runs on which GPU. Pure.

Sources: the architectures compiled into the published wheels (torch 2.6.0+cu124: sm_50 to sm_90 without PTX;
torch 2.8.0+cu128: up to sm_120), NVIDIA's CUDA compatibility guide for the driver floors.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from vaultcube.errors import FlavourError
from vaultcube.results.schema import Gpu


class Flavour(StrEnum):
    """Which CUDA an image carries."""

    CU124 = "cu124"
    CU128 = "cu128"
    CPU = "cpu"


class Capability(NamedTuple):
    """A CUDA compute capability, ordered by generation."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> Capability:
        """Read `12.0`."""
        major, minor = text.split(".")
        return cls(int(major), int(minor))


BLACKWELL = Capability(10, 0)
# First and last compute capability that each flavour has kernels for.
RANGES = {
    Flavour.CU124: (Capability(5, 0), Capability(9, 0)),
    Flavour.CU128: (Capability(7, 0), Capability(12, 1)),
}


def runs_on(flavour: Flavour, gpu: Gpu) -> bool:
    """Say whether the flavour's images have kernels for this GPU."""
    low, high = RANGES[flavour]
    return low <= Capability.parse(gpu.compute_capability) <= high


def choose_flavour(requested: str, gpus: Sequence[Gpu]) -> tuple[Flavour, str]:
    """Return the flavour and one line that says why.

    Args:
        requested: `auto` or a flavour.
        gpus: the chosen GPUs; none means the CPU.

    Raises:
        FlavourError: the flavour has no kernels for a chosen GPU, or `cpu` was asked for together with GPUs.
    """
    if not gpus:
        if requested in {"auto", Flavour.CPU}:
            return Flavour.CPU, "flavour cpu: no GPU is used"
        return Flavour(requested), f"flavour {requested}, on the CPU: no GPU is used"
    if requested == "auto":
        newest = max(gpus, key=lambda gpu: Capability.parse(gpu.compute_capability))
        needs_new = Capability.parse(newest.compute_capability) >= BLACKWELL
        flavour = Flavour.CU128 if needs_new else Flavour.CU124
        why = f"flavour {flavour}: {newest.name} has compute capability {newest.compute_capability}"
    else:
        flavour, why = Flavour(requested), f"flavour {requested}: asked for"
    if flavour is Flavour.CPU:
        raise FlavourError("--flavour cpu uses no GPU, and GPUs were chosen", next_step="Add --gpus none.")
    for gpu in gpus:
        if not runs_on(flavour, gpu):
            able = [other.value for other in RANGES if all(runs_on(other, one) for one in gpus)]
            raise FlavourError(
                f"flavour {flavour} has no kernels for GPU {gpu.index} ({gpu.name}, compute capability "
                f"{gpu.compute_capability})",
                next_step=f"Use --flavour {able[0]}."
                if able
                else "No flavour runs on every chosen GPU: leave this one out.",
            )
    return flavour, why
