"""How large the loads are. Pure: from bytes of memory to sizes that are equal on equal cards."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
DEPTH = 4
"""Inner dimension over outer ones. A product costs 2 * DEPTH * n**3 FLOP and its check reads n**2 elements, so that
a deep product makes the check cheap."""
CPU_DEPTH = 8
"""A product as small as the CPU's has to be deeper for that."""
SIDES = (8192, 4096, 2048, 1024, 512)
CPU_SIDES = {"fp32": 512, "bf16": 128}
"""On a CPU a product has to take milliseconds: bf16 is emulated there."""
CPU_SLOTS = 8
BLOCKS = (256 * MIB, 64 * MIB, 16 * MIB, 4 * MIB)
CPU_BLOCK = 16 * MIB
LEAST_SLOTS = 6
"""Three results settle what is right, and memory traffic takes two slots a result."""


@dataclass(frozen=True)
class Size:
    """`side` is the n of a product, or the bytes of a block; `slots` how many results fit at once."""

    side: int
    slots: int


def matmul(budget: int, element_bytes: int) -> Size | None:
    """Return the largest product that fits into `budget` bytes, None when the smallest does not.

    Two operands of n x DEPTH n, one reference and the results of n x n, and one byte a word to compare.
    """
    for side in SIDES:
        result = side * side * element_bytes
        slots = (budget - 2 * DEPTH * result - result - result // 8) // result
        if slots >= LEAST_SLOTS:
            return Size(side, slots)
    return None


def blocks(budget: int, fixed: int) -> Size | None:
    """Return the largest block of which `fixed` and some slots fit into `budget` bytes, None when the smallest do not."""
    for size in BLOCKS:
        slots = (budget - size * fixed - size // 8) // size
        if slots >= LEAST_SLOTS:
            return Size(size, slots)
    return None
