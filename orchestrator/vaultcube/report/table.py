"""Aligned columns, and whether a stream takes colour. Imports nothing heavy: `ps` needs no more."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import IO


def colored(stream: IO[str]) -> bool:
    """Say whether a stream takes colour: a terminal, and nobody set NO_COLOR."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows with aligned columns, two spaces apart, nothing cut; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(line.rstrip() + "\n" for line in lines)
