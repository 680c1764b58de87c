"""Which image flavour runs on which GPU. Pure.

Sources: the architectures compiled into the published wheels (torch 2.6.0+cu124: sm_50 to sm_90 without PTX;
torch 2.8.0+cu128: up to sm_120), NVIDIA's CUDA compatibility guide for the driver floors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from vaultcube.errors import FlavourError
from vaultcube.results.schema import Gpu

# The flavour of an image that is the same for every CUDA, and for none.
ANY = "any"


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


class Kernels(NamedTuple):
    """What an image has kernels for: first and last compute capability. `note` is what whoever is sent there should know."""

    low: Capability
    high: Capability
    note: str = ""


BLACKWELL = Capability(10, 0)
# As most images have them: those of PyTorch, and what is built on it.
KERNELS: Mapping[Flavour, Kernels] = {
    Flavour.CU124: Kernels(Capability(5, 0), Capability(9, 0)),
    Flavour.CU128: Kernels(Capability(7, 0), Capability(12, 1)),
}


def runs_on(flavour: Flavour, gpu: Gpu, kernels: Mapping[Flavour, Kernels] = KERNELS) -> bool:
    """Say whether the flavour's image has kernels for this GPU."""
    low, high, _ = kernels[flavour]
    return low <= Capability.parse(gpu.compute_capability) <= high


def choose_flavour(
    requested: str, gpus: Sequence[Gpu], kernels: Mapping[Flavour, Kernels] = KERNELS
) -> tuple[Flavour, str]:
    """Return the flavour and one line that says why.

    Args:
        requested: `auto` or a flavour.
        gpus: the chosen GPUs; none means the CPU.
        kernels: what the image of each flavour has kernels for.

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
        if not runs_on(flavour, gpu, kernels):
            able = [other for other in kernels if all(runs_on(other, one, kernels) for one in gpus)]
            raise FlavourError(
                f"flavour {flavour} has no kernels for GPU {gpu.index} ({gpu.name}, compute capability "
                f"{gpu.compute_capability})",
                next_step=f"Use --flavour {able[0]}{kernels[able[0]].note}."
                if able
                else "No flavour runs on every chosen GPU: leave this one out.",
            )
    return flavour, why
