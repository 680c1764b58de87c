from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measure.sizes import LEAST_WARMUP, MOST, level_requests, warmup_requests


@pytest.mark.parametrize(
    ("concurrency", "a_stream", "min_seconds", "request_s", "expected"),
    [
        (1, 5, 0, None, 5),
        (8, 5, 0, 1.0, 40),
        # 35 s and the margin of requests that take 1.3 s each.
        (1, 5, 35, 1.3, 31),
        (128, 5, 35, 8.0, 128 * 6),
        (1, 5, 35, None, 5),
        (1, 5, 35, 0.0, 5),
        (1, 5, 35, 100.0, 5),
        # So quick that the tool would have to make more prompts than it should.
        (128, 5, 35, 1e-6, MOST // 128 * 128),
        (4096, 10, 35, 1e-6, 40960),
    ],
)
def test_how_many_requests_a_level_takes(
    concurrency: int, a_stream: int, min_seconds: float, request_s: float | None, expected: int
) -> None:
    assert level_requests(concurrency, a_stream, min_seconds, request_s) == expected


@given(st.integers(1, 4096), st.integers(1, 100), st.floats(0, 3600), st.none() | st.floats(0, 1e4))
def test_streams_are_all_busy_and_never_short_of_requests(
    concurrency: int, a_stream: int, min_seconds: float, request_s: float | None
) -> None:
    found = level_requests(concurrency, a_stream, min_seconds, request_s)
    assert found % concurrency == 0
    assert found >= concurrency * a_stream
    if request_s and found < MOST - concurrency:
        assert found / concurrency * request_s >= min_seconds


def test_a_warm_up_is_more_than_the_one_that_pays_for_all() -> None:
    assert warmup_requests(1, 1) == LEAST_WARMUP
    assert warmup_requests(32, 2) == 64
    assert warmup_requests(32, 0) == 0
