"""The GPUs of this machine while a run on them is prepared: what there is, who holds it, and how it is handed out."""

from __future__ import annotations

import contextlib
from typing import Self

from vaultcube.gpu.inventory import Inventory, take_inventory, unanswered
from vaultcube.gpu.nvml import Nvml
from vaultcube.gpu.pinning import PinningFacts
from vaultcube.gpu.readings import NvmlError
from vaultcube.gpu.selection import NOBODY, Held
from vaultcube.stack.docker import Docker
from vaultcube.stack.leases import take_leases
from vaultcube.stack.pinning import pinning_facts


class Machine:
    """NVML, open for as long as the context lasts: without persistence mode every opening takes seconds.

    A machine without NVML has no GPUs, and no holders of any.
    """

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._nvml: Nvml | NvmlError = NvmlError("unknown", "not opened")
        self._engine: PinningFacts | None = None

    def __enter__(self) -> Self:
        try:
            self._nvml = self._stack.enter_context(Nvml())
        except NvmlError as error:
            self._nvml = error
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def inventory(self) -> Inventory:
        """Return the GPUs that are there now."""
        if isinstance(self._nvml, NvmlError):
            return unanswered(self._nvml)
        try:
            return take_inventory(self._nvml)
        except NvmlError as error:
            return unanswered(error)

    def held(self, docker: Docker, inventory: Inventory) -> Held:
        """Return who holds which GPU now.

        Args:
            docker: the engine.
            inventory: the last one.

        Raises:
            VaultCubeError: the engine does not answer.
        """
        if isinstance(self._nvml, NvmlError):
            return NOBODY
        return take_leases(docker, self._nvml, inventory.gpus)

    def engine(self, docker: Docker) -> PinningFacts:
        """Return what the engine offers for pinning; it is asked once.

        Raises:
            VaultCubeError: it does not answer.
        """
        if self._engine is None:
            self._engine = pinning_facts(docker.info())
        return self._engine
