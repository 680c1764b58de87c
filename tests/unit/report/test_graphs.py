from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultcube.report.graphs import ASCII, BLOCKS, Glyphs, bar, sparkline

GLYPHS = st.sampled_from([BLOCKS, ASCII])
VALUES = st.lists(st.none() | st.floats(-1e6, 1e6), max_size=200)


@given(VALUES, st.integers(-1, 120), st.floats(-100, 100), st.floats(0, 1000), GLYPHS)
def test_a_sparkline_has_its_width_and_only_levels_and_gaps(
    values: list[float | None], width: int, low: float, span: float, glyphs: Glyphs
) -> None:
    line = sparkline(values, width, low=low, high=low + span, glyphs=glyphs)
    assert len(line) == max(width, 0)
    assert set(line) <= {*glyphs.levels, " "}


@given(VALUES, st.integers(1, 120), GLYPHS)
def test_every_sample_has_its_place_and_a_gap_is_what_was_not_measured(
    values: list[float | None], width: int, glyphs: Glyphs
) -> None:
    line = sparkline(values, width, low=0, high=100, glyphs=glyphs)
    shown = values[-width:]
    drawn = line[len(line) - len(shown) :]
    assert [char == " " for char in drawn] == [value is None for value in shown]
    assert set(line[: len(line) - len(shown)]) <= {" "}


@given(st.floats(-200, 200), st.floats(-200, 200), GLYPHS)
def test_more_is_never_lower(one: float, other: float, glyphs: Glyphs) -> None:
    low, high = tuple(sparkline(sorted([one, other]), 2, low=0, high=100, glyphs=glyphs))
    assert glyphs.levels.index(low) <= glyphs.levels.index(high)


def test_a_sparkline_of_known_values() -> None:
    assert sparkline([0, 50, 100, None, 101, -1], 8, low=0, high=100) == "  ▁▅█ █▁"
    assert sparkline([0, 50, 100], 3, low=0, high=100, glyphs=ASCII) == "_+#"
    assert sparkline([], 3, low=0, high=100) == "   "
    # No range: nothing is high.
    assert sparkline([5.0], 1, low=3, high=3) == "▁"


@given(st.none() | st.floats(-1, 2), st.integers(0, 60), GLYPHS)
def test_a_bar_has_its_width(share: float | None, width: int, glyphs: Glyphs) -> None:
    assert len(bar(share, width, glyphs=glyphs)) == width


@pytest.mark.parametrize(
    ("share", "drawn"), [(0, "░░░░"), (1, "████"), (0.5, "██░░"), (0.53125, "██▏░"), (2, "████"), (None, "    ")]
)
def test_bars_of_known_shares(share: float | None, drawn: str) -> None:
    assert bar(share, 4) == drawn


def test_a_bar_where_there_are_no_blocks() -> None:
    assert bar(0.5, 4, glyphs=ASCII) == "##.."
