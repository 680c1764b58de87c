"""How many requests a level takes. Pure."""

from __future__ import annotations

import math

MARGIN = 1.15
"""A level is planned this much longer than asked for: what the warm-up took is an estimate."""
MOST = 20_000
"""Requests of a level at most: the tool prepares all prompts beforehand."""
LEAST_WARMUP = 3
"""Requests of a warm-up at least: the first one may pay for what is only done once."""


def warmup_requests(concurrency: int, a_stream: int) -> int:
    """Return how many requests a warm-up sends; none when it is off."""
    return max(concurrency * a_stream, LEAST_WARMUP) if a_stream else 0


def level_requests(concurrency: int, a_stream: int, min_seconds: float, request_s: float | None) -> int:
    """Return how many requests a level sends: a whole number for each stream, and enough to last `min_seconds`.

    Args:
        concurrency: streams.
        a_stream: least requests of each.
        min_seconds: how long the level lasts at least.
        request_s: what a request took at this concurrency; None or 0 when nobody knows.
    """
    most = max(a_stream, MOST // concurrency)
    needed = min(min_seconds * MARGIN / request_s, most) if request_s else 0
    return concurrency * max(a_stream, math.ceil(needed))
