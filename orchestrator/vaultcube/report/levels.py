"""The figures of a model server under load: a row a level, instead of a line a figure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from vaultcube.report.table import table
from vaultcube.results.schema import Metric

# `ttft_p90_s_c8`: a figure at a concurrency of 8.
_AT_LEVEL = re.compile(r"(?P<figure>\w+)_c(?P<concurrency>[0-9]+)")
RATES = (("TOKENS/S", "output_tokens_per_s"), ("REQUESTS/S", "requests_per_s"))
TIMES = (("TTFT", "ttft"), ("TPOT", "tpot"), ("ITL", "itl"), ("E2E", "e2e"))
PARTS = ("p50", "p90", "p99")


def split(metrics: Mapping[str, Metric]) -> tuple[dict[str, Metric], str]:
    """Return the metrics that belong to no level, and a table of the others; no table when there are none."""
    rest: dict[str, Metric] = {}
    levels: dict[int, dict[str, float]] = {}
    for name, metric in metrics.items():
        match = _AT_LEVEL.fullmatch(name)
        if match is None:
            rest[name] = metric
        else:
            levels.setdefault(int(match["concurrency"]), {})[match["figure"]] = metric.value
    if not levels:
        return rest, ""
    head = ["STREAMS", *(title for title, _ in RATES), *(f"{title} ms" for title, _ in TIMES)]
    rows = [_row(concurrency, figures) for concurrency, figures in sorted(levels.items())]
    return rest, table(
        [head, *rows]
    ) + "times: p50 / p90 / p99 of first token, per further token, between tokens, whole\n"


def _row(concurrency: int, figures: Mapping[str, float]) -> list[str]:
    rates = [_figure(figures.get(name)) for _, name in RATES]
    return [str(concurrency), *rates, *(_times(figures, name) for _, name in TIMES)]


def _times(figures: Mapping[str, float], name: str) -> str:
    told = [figures.get(f"{name}_{part}_s") for part in PARTS]
    return "-" if told == [None] * len(PARTS) else " / ".join(_figure(None if s is None else s * 1000) for s in told)


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    digits = next((digits for below, digits in ((10, 2), (1000, 1)) if abs(value) < below), 0)
    return f"{value:.{digits}f}"
