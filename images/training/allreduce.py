"""The all-reduce that is checked by value before anything is timed: what is summed, and what a wrong sum means."""

from __future__ import annotations

from common.outcome import Problem

PERIOD = 251
"""Values repeat with a prime, so that a shifted or swapped chunk never fits."""
SIZES_BYTES = (4, 1028, 1 << 20, 25 << 20)
"""One value; an odd tail; a megabyte; a bucket as DDP sends it."""


def expected_factor(ranks: int) -> int:
    """Return what the pattern is multiplied by when rank r adds it r + 1 times.

    Exact in float32: every partial sum is a whole number far below 2**24.
    """
    return ranks * (ranks + 1) // 2


def wrong_sums(mismatches: list[int]) -> Problem:
    """Return the problem of an all-reduce with `mismatches` wrong values by rank."""
    ranks = ", ".join(str(rank) for rank, count in enumerate(mismatches) if count)
    return Problem(
        "allreduce-mismatch",
        f"all-reduce returned {sum(mismatches)} wrong values (ranks {ranks}): results cannot be trusted",
        "turn off PCIe peer-to-peer (a patched driver, ACS or the IOMMU corrupt it), then try again",
    )
