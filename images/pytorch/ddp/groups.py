"""How the ranks talk: NCCL (or gloo) for gradients, and a gloo group on the CPU for everything around them."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from training.allreduce import PERIOD, SIZES_BYTES, expected_factor

if TYPE_CHECKING:
    from training.params import Params

_NEVER = timedelta(days=7)
"""Waiting ranks wait for as long as the others measure; watchdogs, not this, end a run that hangs."""
_MARGIN_S = 60.0
"""The watchdog must come first: it says what hung, a backend's own timeout aborts the process."""


class Groups:
    """The process groups of this rank."""

    def __init__(self, params: Params, device: torch.device) -> None:
        """Join the others. The device has to be current already: NCCL binds to it."""
        self.backend = "nccl" if device.type == "cuda" else "gloo"
        slowest_s = max(params.startup_limit_s, params.allreduce_timeout_s)
        dist.init_process_group(
            self.backend,
            timeout=timedelta(seconds=slowest_s + _MARGIN_S),
            device_id=device if device.type == "cuda" else None,
        )
        # A CPU-side group of its own: a barrier of NCCL would spin on the very GPUs that have to be idle.
        self._control = dist.new_group(backend="gloo", timeout=_NEVER)
        self.rank = dist.get_rank()
        self.world = dist.get_world_size()

    def barrier(self) -> None:
        """Return when every rank is here. Costs the devices nothing."""
        # dist.barrier would take a tensor on the GPU that the default group is bound to.
        self.all_agree(True)

    def all_agree(self, opinion: bool) -> bool:  # noqa: FBT001 - it is the one argument of a callback
        """Return whether every rank says True."""
        vote = torch.tensor([int(opinion)])
        dist.all_reduce(vote, op=dist.ReduceOp.MIN, group=self._control)
        return bool(vote.item())

    def gather(self, value: int) -> list[int]:
        """Return the values of all ranks, in their order."""
        values = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
        dist.all_gather(values, torch.tensor([value]), group=self._control)
        return [int(one.item()) for one in values]

    def check_allreduce(self, device: torch.device) -> dict[str, Any]:
        """Sum whole numbers over all ranks and compare every value; return the fields of the `allreduce` event."""
        start = time.monotonic()
        mismatches = sum(_mismatches(size // 4, self.rank, self.world, device) for size in SIZES_BYTES)
        return {
            "backend": self.backend,
            "correct": mismatches == 0,
            "mismatches": mismatches,
            "sizes_bytes": list(SIZES_BYTES),
            "elapsed_s": time.monotonic() - start,
        }

    def close(self) -> None:
        """Leave all groups."""
        dist.destroy_process_group()


def _mismatches(count: int, rank: int, world: int, device: torch.device) -> int:
    pattern = (torch.arange(count, device=device) % PERIOD + 1).float()
    values = pattern * (rank + 1)
    dist.all_reduce(values)
    # A NaN is unequal too.
    return int((values != pattern * expected_factor(world)).sum().item())
