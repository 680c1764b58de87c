"""The table at the end of a measurement. Figures only: judging is the orchestrator's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

Fields = dict[str, Any]
_WIDTHS = (7, 8, 8, 6, 9, 7, 22, 22, 24)
_HEADS = (
    "streams",
    "replica",
    "requests",
    "failed",
    "tokens/s",
    "req/s",
    "TTFT p50/p90/p99 ms",
    "TPOT p50/p90/p99 ms",
    "E2E p50/p90/p99 ms",
)


def table(levels: Iterable[Fields]) -> list[str]:
    """Return the lines of the table, none when nothing was measured."""
    rows = [_row(level) for level in levels]
    if not rows:
        return []
    lines = [_line(row) for row in (_HEADS, *rows)]
    return ["", *lines, "These are measurements, not a verdict: `vaultcube bench vllm` judges them."]


def _line(cells: Iterable[str]) -> str:
    return "  ".join(cell.rjust(width) for cell, width in zip(cells, _WIDTHS, strict=True))


def _row(level: Fields) -> tuple[str, ...]:
    replica = level.get("replica")
    return (
        str(level["concurrency"]),
        "all" if replica is None else str(replica),
        str(level["requests"]),
        str(level["failed"]),
        f"{level['output_tokens_per_s']:.1f}",
        f"{level['requests_per_s']:.2f}",
        _times(level["ttft_s"]),
        _times(level["tpot_s"]),
        _times(level["e2e_s"]),
    )


def _times(spread: dict[str, float] | None) -> str:
    return "-" if spread is None else " / ".join(f"{spread[part] * 1000:.1f}" for part in ("p50", "p90", "p99"))
