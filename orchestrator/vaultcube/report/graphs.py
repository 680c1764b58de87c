"""Graphs that fit into a line of text. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Glyphs(NamedTuple):
    """What graphs are drawn with: the levels of a sparkline, lowest first, and the fills of a bar, emptiest first."""

    levels: str
    fills: str
    empty: str


BLOCKS = Glyphs("▁▂▃▄▅▆▇█", "▏▎▍▌▋▊▉█", "░")
# For terminals that have no more, and for logs.
ASCII = Glyphs("_.-=+*%#", "#", ".")


def sparkline(values: Sequence[float | None], width: int, *, low: float, high: float, glyphs: Glyphs = BLOCKS) -> str:
    """Return the last `width` values as a line of exactly that width, the newest at the right.

    `low` and below are the lowest level, `high` and above the highest. What was not measured is a gap, never a level.
    """
    shown = values[-width:] if width > 0 else ()
    top = len(glyphs.levels) - 1
    span = high - low

    def level(value: float) -> str:
        share = (value - low) / span if span > 0 else 0.0
        return glyphs.levels[round(min(max(share, 0.0), 1.0) * top)]

    return "".join(" " if value is None else level(value) for value in shown).rjust(max(width, 0))


def bar(share: float | None, width: int, *, glyphs: Glyphs = BLOCKS) -> str:
    """Return a bar of exactly that width, filled to a share of it; blank when the share is not known."""
    if share is None:
        return " " * width
    steps = len(glyphs.fills)
    filled, part = divmod(round(min(max(share, 0.0), 1.0) * width * steps), steps)
    text = glyphs.fills[-1] * filled + (glyphs.fills[part - 1] if part else "")
    return text.ljust(width, glyphs.empty)
