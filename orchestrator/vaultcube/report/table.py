"""Aligned columns, and whether a stream takes colour. Imports nothing heavy: `ps` needs no more."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import IO

# What a wrapped column keeps, however narrow the terminal is.
LEAST = 16


def colored(stream: IO[str]) -> bool:
    """Say whether a stream takes colour: a terminal, and nobody set NO_COLOR."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def table(rows: Sequence[Sequence[str]], *, width: int | None = None) -> str:
    """Return rows with aligned columns, two spaces apart, nothing cut; the first row is the head.

    With a `width`, what stands in the last column is wrapped to keep within it.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    room = None if width is None else max(width - sum(widths[:-1]) - 2 * len(widths[:-1]), LEAST)
    lines = []
    for row in rows:
        first, *more = [row[-1]] if room is None else wrap(row[-1], room)
        lines.append((*row[:-1], first))
        lines += [(*[""] * len(row[:-1]), rest) for rest in more]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "".join(line.rstrip() + "\n" for line in padded)


def wrap(text: str, width: int) -> list[str]:
    """Return text in lines of at most `width` characters: broken at spaces, and inside a word that is longer."""
    width = max(width, 1)
    lines = [""]
    for word in text.split():
        rest = word
        if lines[-1] and len(lines[-1]) + 1 + len(rest) <= width:
            lines[-1] += " " + rest
            continue
        if lines[-1]:
            lines.append("")
        while len(rest) > width:
            lines[-1], rest = rest[:width], rest[width:]
            lines.append("")
        lines[-1] = rest
    return lines
