"""The result file of `vllm bench serve` as a `level` event has it. Pure.

The keys are the same in 0.8.5.post1, 0.10.2 and 0.32.0. Times in the file are milliseconds, except `duration`.
"""

from __future__ import annotations

import json
import math
from typing import Any

from measure.tool import PERCENTILES

_ERROR_CHARS = 300
# Our name for a time, and the tool's.
TIMES = {"ttft_s": "ttft", "tpot_s": "tpot", "itl_s": "itl", "e2e_s": "e2el"}


class ResultError(Exception):
    """The file is not what the tool writes."""


def parse(text: str, *, requests: int, output_len: int) -> dict[str, Any]:
    """Return the figures of a level in seconds and tokens; a time is None where nothing was timed.

    Args:
        text: the file's.
        requests: how many were sent: the tool itself only warns of those that failed.
        output_len: tokens asked for; of one token there is no time per further one.

    Raises:
        ResultError: it is not JSON, lacks a figure, or has one that cannot be.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ResultError(f"not JSON: {str(error)[:80]}") from error
    if not isinstance(raw, dict):
        raise ResultError("not a JSON object")
    completed = _count(raw, "completed")
    if completed > requests:
        raise ResultError(f"{completed} requests completed of {requests}")
    elapsed_s = _number(raw, "duration")
    if elapsed_s <= 0:
        raise ResultError(f"duration is {elapsed_s}")
    times = {
        # Where nothing was timed the tool writes 0.
        ours: _spread(raw, theirs) if completed and (output_len > 1 or theirs in {"ttft", "e2el"}) else None
        for ours, theirs in TIMES.items()
    }
    return {
        "requests": requests,
        "completed": completed,
        "failed": requests - completed,
        "input_tokens": _count(raw, "total_input_tokens"),
        "output_tokens": _count(raw, "total_output_tokens"),
        "elapsed_s": elapsed_s,
        "output_tokens_per_s": _number(raw, "output_throughput"),
        "requests_per_s": _number(raw, "request_throughput"),
        **times,
        "error": _first_error(raw.get("errors")),
    }


def _number(raw: dict[str, Any], name: str) -> float:
    value = raw.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ResultError(f"{name} is {'missing' if value is None else 'no number'}")
    if not 0 <= value <= 1e15 or not math.isfinite(value):  # noqa: PLR2004 - as events.py bounds counts
        raise ResultError(f"{name} is {value}")
    return float(value)


def _count(raw: dict[str, Any], name: str) -> int:
    value = _number(raw, name)
    if value != int(value):
        raise ResultError(f"{name} is {value}")
    return int(value)


def _spread(raw: dict[str, Any], name: str) -> dict[str, float]:
    found = {"mean": _number(raw, f"mean_{name}_ms") / 1000}
    return found | {f"p{part}": _number(raw, f"p{part}_{name}_ms") / 1000 for part in PERCENTILES}


def _first_error(errors: object) -> str:
    """Return the first error in one line; of a traceback the last line, which says what it was."""
    if not isinstance(errors, list):
        return ""
    first = next((error for error in errors if isinstance(error, str) and error.strip()), "")
    lines = [line.strip() for line in first.splitlines() if line.strip()]
    return lines[-1][:_ERROR_CHARS] if lines else ""
