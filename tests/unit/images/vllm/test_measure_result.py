"""The tool's result files, as it really wrote them, and spoilt ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measure.result import TIMES, ResultError, parse
from tests.unit.support import DATA

BENCH = DATA / "vllm" / "bench"


def text(name: str) -> str:
    return (BENCH / f"{name}.json").read_text()


RAW: dict[str, Any] = json.loads(text("0.32.0-c2"))


@pytest.mark.parametrize("name", ["0.8.5.post1-c2", "0.10.2-c2", "0.32.0-c2"])
def test_every_version_s_file_is_understood(name: str) -> None:
    found = parse(text(name), requests=4, output_len=16)
    assert (found["requests"], found["completed"], found["failed"]) == (4, 4, 0)
    assert (found["input_tokens"], found["output_tokens"], found["error"]) == (128, 64, "")
    assert found["output_tokens_per_s"] == pytest.approx(64 / found["elapsed_s"])
    assert found["requests_per_s"] == pytest.approx(4 / found["elapsed_s"])
    for time in TIMES:
        assert found[time]["p50"] <= found[time]["p90"] <= found[time]["p99"]
    # Seconds: a small model on a CPU answers within one.
    assert 0.01 < found["ttft_s"]["p50"] < found["e2e_s"]["p50"] < 1


def test_figures_are_the_tool_s_own_in_seconds() -> None:
    found = parse(text("0.32.0-c4-long"), requests=40, output_len=32)
    raw = json.loads(text("0.32.0-c4-long"))
    assert found["tpot_s"]["p90"] == raw["p90_tpot_ms"] / 1000
    assert found["e2e_s"]["mean"] == raw["mean_e2el_ms"] / 1000
    assert found["elapsed_s"] == raw["duration"]
    assert found["output_tokens"] == 40 * 32


def test_nothing_that_was_answered_is_no_time_of_nothing() -> None:
    found = parse(text("0.32.0-failed"), requests=4, output_len=16)
    assert (found["completed"], found["failed"], found["error"]) == (0, 4, "Not Found")
    assert [found[name] for name in TIMES] == [None] * 4


def test_of_one_token_there_is_no_time_per_further_one() -> None:
    found = parse(text("0.32.0-c2"), requests=4, output_len=1)
    assert (found["tpot_s"], found["itl_s"]) == (None, None)
    assert found["ttft_s"] is not None


def test_requests_that_are_missing_failed() -> None:
    assert parse(text("0.32.0-c2"), requests=10, output_len=16)["failed"] == 6


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        (["", "Bad Gateway"], "Bad Gateway"),
        (["Traceback (most recent call last):\n  File x\naiohttp.ClientError: gone\n"], "aiohttp.ClientError: gone"),
        ([None, 7, "x" * 1000], "x" * 300),
        ("no list", ""),
        (None, ""),
    ],
)
def test_the_first_error_is_kept_in_one_line(errors: object, said: str) -> None:
    assert parse(json.dumps({**RAW, "errors": errors}), requests=4, output_len=16)["error"] == said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"duration": None}, "duration is missing"),
        ({"duration": "1"}, "duration is no number"),
        ({"duration": 0}, "duration is 0"),
        ({"duration": -1}, "duration is -1"),
        ({"completed": True}, "completed is no number"),
        ({"completed": 1.5}, "completed is 1.5"),
        ({"completed": 5}, "5 requests completed of 4"),
        ({"output_throughput": 1e300}, "output_throughput is 1e"),
        ({"p99_itl_ms": None}, "p99_itl_ms is missing"),
    ],
)
def test_a_file_with_nonsense_in_it_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ResultError, match=words):
        parse(json.dumps({**RAW, **change}), requests=4, output_len=16)


@pytest.mark.parametrize("broken", ["", "{", "[]", "null", '{"completed": NaN}', text("0.32.0-c2")[:-20]])
def test_a_torn_file_is_refused(broken: str) -> None:
    with pytest.raises(ResultError):
        parse(broken, requests=4, output_len=16)


values: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([])
)


@given(st.dictionaries(st.sampled_from(sorted(RAW)), values, max_size=4), st.integers(1, 10))
def test_whatever_the_file_says_there_are_figures_or_an_error(change: dict[str, Any], requests: int) -> None:
    try:
        found = parse(json.dumps({**RAW, **change}), requests=requests, output_len=16)
    except ResultError:
        return
    assert found["completed"] + found["failed"] == requests
    assert found["elapsed_s"] > 0
    json.dumps(found, allow_nan=False)
