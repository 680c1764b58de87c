"""The loads on a device, and how their results are checked there. Imports torch."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import torch

from common.outcome import CANNOT_RUN_HERE, Problem
from ddp import gpu
from stress import loads
from stress.outcome import no_room
from training import arch

if TYPE_CHECKING:
    from stress.fault import Fault
    from stress.loads import Checked
    from stress.params import Params
    from stress.session import Load

_SMALL = {"bf16": (1, 256), "tf32": (31, 512), "fp32": (31, 512)}
"""Largest number and inner dimension of the small case: its sums are whole numbers that the phase holds exactly
(bf16 up to 2**8, the others, added in fp32, up to 2**24), in whatever order they are added."""
_SMALL_SIDE = 256
_SMALL_WORDS = 1 << 16


def select(params: Params) -> torch.device:
    """Return the device, made the current one.

    Raises:
        Problem: the image, or a phase, cannot run on it (exit code 69).
    """
    torch.set_grad_enabled(False)
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    if params.device == "cpu":
        # One thread: the order of additions, and so the bits, must not depend on how many cores are free.
        torch.set_num_threads(1)
        return torch.device("cpu")
    device, properties = gpu.opened(0)
    capability = (properties.major, properties.minor)
    arch.check(properties.name, capability, torch.cuda.get_arch_list(), "fp32", os.environ.get("VAULTCUBE_FLAVOUR", ""))
    if capability < arch.AMPERE and (lacking := [phase for phase in params.phases if phase in {"bf16", "tf32"}]):
        others = ",".join(phase for phase in params.phases if phase not in lacking) or "fp32,memory,transfer"
        raise Problem(
            "precision-unsupported",
            f"{properties.name} (compute capability {arch.dotted(capability)}) has no {' and no '.join(lacking)} units",
            f"use --phases {others}",
            CANNOT_RUN_HERE,
        )
    return device


class Device:
    """What makes the loads on one device."""

    def __init__(self, params: Params, device: torch.device, fault: Fault | None) -> None:
        self._params = params
        self._device = device
        self._fault = fault

    def load(self, phase: str) -> Load:
        """Return the load of `phase`, its operands made.

        Raises:
            Problem: not even the smallest has room (exit code 70).
        """
        # What the phase before has taken is given back first: this one takes nearly everything.
        gc.collect()
        budget = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
            budget = int(torch.cuda.mem_get_info(self._device)[0] * self._params.memory_fraction)
        made = self._make(phase, budget)
        if made is None:
            raise no_room(f"{phase} does not fit into {budget} bytes")
        return made

    def _make(self, phase: str, budget: int | None) -> Checked | None:
        site = loads.Site(self._device, phase, self._params.seed, self._fault)
        if phase == "memory":
            return loads.memory(site, budget)
        if phase == "transfer":
            return loads.transfer(site, budget)
        return loads.matmul(site, budget)

    def reference(self, phase: str) -> tuple[int, int]:
        """Compare a small case of `phase` with the CPU; return its elements, and how many of them are wrong."""
        generator = torch.Generator().manual_seed(self._params.seed)
        if phase in _SMALL:
            most, depth = _SMALL[phase]
            a = torch.randint(-most, most + 1, (_SMALL_SIDE, depth), generator=generator)
            b = torch.randint(-most, most + 1, (depth, _SMALL_SIDE), generator=generator)
            with loads.arithmetic(phase):
                kind = loads.DTYPES[phase]
                got = a.to(self._device, kind) @ b.to(self._device, kind)
            # Whole numbers of 64 bits on the CPU: no unit that the phase loads takes part.
            expected = (a @ b).to(kind)
        else:
            a = torch.empty(_SMALL_WORDS, dtype=torch.int64).random_(generator=generator)
            b = torch.empty(_SMALL_WORDS, dtype=torch.int64).random_(generator=generator)
            there = a.to(self._device)
            got = torch.add(there, b.to(self._device), alpha=3).clone() if phase == "memory" else there
            expected = torch.add(a, b, alpha=3) if phase == "memory" else a
        wrong = loads.bits(got.cpu().flatten()) != loads.bits(expected.flatten())
        return wrong.numel(), int(wrong.sum())
