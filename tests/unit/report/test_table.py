from __future__ import annotations

import io

import pytest

from vaultcube.report.table import colored, table


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
