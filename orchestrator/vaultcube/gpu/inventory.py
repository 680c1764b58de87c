"""The GPUs of a machine as a value. Pure: `gpu/nvml.py` fills it."""

from __future__ import annotations

from vaultcube.results.schema import Gpu, Model


class Inventory(Model):
    """What NVML sees.

    Attributes:
        driver: the driver's version, or null.
        gpus: in NVML's (PCI bus) order.
        reason: why there are none, where that is known.
        simulated: true when anything of it came from a simulator.
    """

    driver: str | None = None
    gpus: tuple[Gpu, ...] = ()
    reason: str | None = None
    simulated: bool = False
