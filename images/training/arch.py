"""Which GPUs a build of a framework can run on. Pure functions over architecture lists and compute capabilities."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from common.outcome import CANNOT_RUN_HERE, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

Capability = tuple[int, int]

BLACKWELL: Capability = (10, 0)
"""First compute capability that only the cu128 flavour has kernels for."""
AMPERE: Capability = (8, 0)
"""First compute capability with bf16 and tf32 units."""

_ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)(\d)([af]?)")


def runs_on(architectures: Iterable[str], capability: Capability) -> bool:
    """Say whether code built for `architectures` ("sm_86", "compute_90", ...) runs on a GPU of `capability`.

    Binary code runs on its own major version from its minor on; PTX on every newer GPU. Code for an
    architecture's own features (suffix a) runs there only, for a family's (suffix f) inside that family.
    """
    return any(_runs_on(architecture, capability) for architecture in architectures)


def _runs_on(architecture: str, capability: Capability) -> bool:
    match = _ARCHITECTURE.fullmatch(architecture)
    if match is None:
        return False
    kind, major, minor, suffix = match.groups()
    built = (int(major), int(minor))
    if suffix == "a":
        return built == capability
    if kind == "sm" or suffix == "f":
        return built[0] == capability[0] and built[1] <= capability[1]
    return built <= capability


def flavour_for(capability: Capability) -> str:
    """Return the image flavour made for GPUs of `capability`."""
    return "cu128" if capability >= BLACKWELL else "cu124"


def dotted(capability: Capability) -> str:
    """Return (12, 0) as "12.0"."""
    return f"{capability[0]}.{capability[1]}"


def check(name: str, capability: Capability, architectures: Iterable[str], precision: str, flavour: str) -> None:
    """Raise the problem (exit code 69) of a GPU that this image, or this precision, cannot run on.

    `name` is the GPU's, `flavour` that of the image ("" when unknown).
    """
    built = list(architectures)
    if not runs_on(built, capability):
        better = flavour_for(capability)
        next_step = (
            f"no flavour of this image has kernels for compute capability {dotted(capability)}: use another GPU"
            if better == flavour
            else f"use the image flavour {better}"
        )
        message = f"no kernels for {name} (compute capability {dotted(capability)}) in this image: {', '.join(built)}"
        raise Problem("no-kernels", message, next_step, CANNOT_RUN_HERE)
    if precision != "fp32" and capability < AMPERE:
        raise Problem(
            "precision-unsupported",
            f"{name} (compute capability {dotted(capability)}) has no {precision} units: the result would be another one's",
            "use --precision fp32",
            CANNOT_RUN_HERE,
        )
