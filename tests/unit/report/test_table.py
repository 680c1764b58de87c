from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultcube.report.table import LEAST, colored, table, wrap


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_columns_are_aligned_and_nothing_is_cut() -> None:
    rows = [("RUN", "WORKLOAD", ""), ("a-long-name", "ddp", "x"), ("b", "", "")]
    assert table(rows) == "RUN          WORKLOAD\na-long-name  ddp       x\nb\n"


def test_a_head_alone_is_a_table() -> None:
    assert table([("A", "B")]) == "A  B\n"


def test_rows_of_different_lengths_are_a_bug() -> None:
    with pytest.raises((ValueError, IndexError)):
        table([("A", "B"), ("1",)])


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert not colored(io.StringIO())
    assert colored(Terminal())
    monkeypatch.setenv("NO_COLOR", "")
    assert colored(Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colored(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not colored(Terminal())


TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)


@given(TEXTS, st.integers(-3, 70))
def test_wrapped_text_keeps_its_width_and_all_its_words(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert all(len(line) <= max(width, 1) for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_text_is_broken_at_spaces_and_only_a_long_word_inside() -> None:
    assert wrap("a container of another", 11) == ["a container", "of another"]
    assert wrap("see abcdefghij now", 4) == ["see", "abcd", "efgh", "ij", "now"]
    assert wrap("", 4) == [""]


def test_the_last_column_is_wrapped_to_a_width() -> None:
    rows = [("GPU", "HELD BY"), ("0", "container trainer and more"), ("1", "free")]
    assert table(rows, width=24) == "GPU  HELD BY\n0    container trainer\n     and more\n1    free\n"
    # A column that nothing fits in is no column.
    assert max(map(len, table(rows, width=1).splitlines())) == 5 + LEAST
