"""A 64-bit digest of a result: a sum modulo 2**64 of its words, each times an odd weight of its place.

Sums of integers are exact in any order, so that a GPU may add as it likes. A change of one word always changes the
digest: an odd factor has an inverse. This is the definition; stress.engine computes the same on a device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

CHUNK_WORDS = 1 << 22
"""Words weighed at a time (32 MiB): what a device needs beside the result."""
GOLDEN = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio: multiples of it are spread over all 64 bits (Knuth, TAOCP 3, 6.4)."""
MASK = (1 << 64) - 1


def weight(place: int) -> int:
    """Return the odd weight of the word at `place` in its chunk."""
    return (place * GOLDEN | 1) & MASK


def digest(words: Sequence[int], chunk_words: int = CHUNK_WORDS) -> int:
    """Return the digest of 64-bit words, as an unsigned number."""
    total = 0
    for start in range(0, len(words), chunk_words):
        chunk = words[start : start + chunk_words]
        part = sum(word * weight(place) for place, word in enumerate(chunk))
        total = (total * GOLDEN + part) & MASK
    return total


def signed(number: int) -> int:
    """Return the 64 bits of an unsigned `number` as devices count them: in two's complement."""
    return (number & MASK) - (1 << 64 if number & MASK > MASK >> 1 else 0)


def hexadecimal(number: int, bits: int = 64) -> str:
    """Return the lowest `bits` of a number, signed or not, as hexadecimal digits."""
    return f"{number & ((1 << bits) - 1):0{bits // 4}x}"
