from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support import DATA, STARTED, event, raw_event

from vaultcube.results.envelope import Event
from vaultcube.results.events import (
    KINDS,
    AllReduce,
    AnyEvent,
    ErrorEvent,
    EventLog,
    Finished,
    Garbled,
    Other,
    Started,
    Window,
    parse_line,
    sequence_gaps,
)
from vaultcube.results.soakevents import Checked

WINDOW: dict[str, Any] = {"phase": "all", "subject_rank": None, "index": 0, "steps": 2, "samples": 64, "elapsed_s": 0.5}


def garbled(raw: Any) -> str:
    found = parse_line(json.dumps(raw), 7)
    assert isinstance(found, Garbled), found
    assert found.line == 7
    return found.reason


def test_a_known_kind_becomes_its_own_type() -> None:
    assert isinstance(event("started", rank=-1, world_size=4, **STARTED), Started)
    window = event("window", **WINDOW)
    assert isinstance(window, Window)
    assert (window.samples, window.elapsed_s, window.time.isoformat()) == (64, 0.5, "2026-01-01T12:00:00+00:00")


def test_every_kind_of_the_contract_is_known() -> None:
    kinds = {json.loads(line)["kind"] for line in (DATA / "runs/good/events.jsonl").read_text().splitlines()}
    others = {"error", "stage", "model", "server", "level", "probe", "detection", "operation", "allocation"}
    others |= {"reference", "checked", "mismatch", "paused", "resumed"}
    assert kinds | others == KINDS


def test_an_unknown_kind_and_unknown_fields_are_tolerated() -> None:
    found = event("telemetry", watts=575)
    assert isinstance(found, Other)
    assert found.model_extra == {"watts": 575}
    assert isinstance(event("window", **WINDOW, colour="blue"), Window)


def test_a_loss_that_is_not_finite_is_null() -> None:
    found = event("finished", elapsed_s=1.0, loss=None, memory_peak_bytes=None)
    assert isinstance(found, Finished)
    assert found.loss is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "3", '"text"', "[]", "{}", "\0\0\0", "[" * 100_000, '{"a":' * 100_000, "9" * 5000, '{"kind":3}'],
)
def test_what_is_no_event_is_garbled(text: str) -> None:
    assert isinstance(parse_line(text, 1), Garbled)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"schema": 2}, "schema"),
        ({"seq": -1}, "seq"),
        ({"rank": -2}, "rank"),
        ({"time": "yesterday"}, "time"),
        # Without a zone nobody knows when it was.
        ({"time": "2026-01-01T12:00:00"}, "time"),
        ({"mono": None}, "mono"),
        ({"samples": 0}, "samples"),
        ({"steps": 0}, "steps"),
        ({"elapsed_s": 0}, "elapsed_s"),
        ({"elapsed_s": -1.0}, "elapsed_s"),
        ({"elapsed_s": "fast"}, "elapsed_s"),
        ({"phase": "warm"}, "phase"),
        ({"index": 1.5}, "index"),
    ],
)
def test_a_field_out_of_its_range_is_named(change: dict[str, Any], where: str) -> None:
    assert where in garbled({**raw_event("window", **WINDOW), **change})


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_figures_that_are_no_numbers_are_refused(constant: str) -> None:
    text = json.dumps(raw_event("window", **{**WINDOW, "elapsed_s": 0.25})).replace("0.25", constant)
    assert isinstance(parse_line(text, 1), Garbled)


@pytest.mark.parametrize("field", ["samples", "steps", "elapsed_s", "index"])
def test_figures_beyond_all_measure_are_refused(field: str) -> None:
    assert field in garbled(raw_event("window", **{**WINDOW, field: 10**400}))


@pytest.mark.parametrize("field", ["samples", "steps", "index"])
def test_text_and_truth_are_no_figures(field: str) -> None:
    assert field in garbled(raw_event("window", **{**WINDOW, field: "3"}))
    assert field in garbled(raw_event("window", **{**WINDOW, field: True}))


def test_a_missing_field_is_named() -> None:
    raw = raw_event("window", **WINDOW)
    del raw["samples"]
    assert "samples" in garbled(raw)


# --- the log ---------------------------------------------------------------------------------------------------


def read(data: bytes, *cuts: int) -> EventLog:
    log = EventLog()
    edges = [0, *sorted(cuts), len(data)]
    for start, end in pairwise(edges):
        log.feed(data[start:end])
    log.close()
    return log


def test_an_unfinished_line_waits_for_its_newline() -> None:
    line = json.dumps(raw_event("progress", done=1, total=5)).encode()
    log = EventLog()
    assert log.feed(line[:20]) == []
    assert log.feed(line[20:]) == []
    assert len(log.feed(b"\n")) == 1
    assert log.close() == []


def test_a_last_line_without_a_newline_is_read_when_nothing_more_comes() -> None:
    line = json.dumps(raw_event("progress", done=1, total=5)).encode()
    log = EventLog()
    log.feed(line)
    assert len(log.close()) == 1
    assert log.close() == []


def test_a_cut_line_is_counted_and_never_dropped() -> None:
    line = json.dumps(raw_event("progress", done=1, total=5)).encode()
    log = read(line + b"\n\n" + line[:30])
    assert len(log.events) == 1
    assert [bad.line for bad in log.garbled] == [3]


GOOD = (DATA / "runs/good/events.jsonl").read_bytes()
LINES = GOOD.splitlines(keepends=True)


@given(st.binary(max_size=300))
def test_no_bytes_at_all_raise(data: bytes) -> None:
    log = read(data)
    said = [line for line in data.split(b"\n") if line.decode("utf-8", "replace").strip()]
    assert len(log.events) + len(log.garbled) == len(said)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
fields = st.sampled_from(
    sorted({name for kind in (Window, Finished, AllReduce, ErrorEvent, Started) for name in kind.model_fields})
)


@given(st.sampled_from(sorted(KINDS)), st.dictionaries(fields, json_values, max_size=4), st.booleans())
def test_no_value_of_any_field_raises(kind: str, values: dict[str, Any], with_window: bool) -> None:  # noqa: FBT001
    raw = {**raw_event(kind), **(WINDOW if with_window else {}), **values}
    parsed = parse_line(json.dumps(raw), 1)
    assert isinstance(parsed, Event | Garbled)


@given(st.text(alphabet=st.characters(), max_size=20))
def test_no_text_raises_lone_surrogates_included(text: str) -> None:
    raw = raw_event("error", code=text, message=text, next_step=text, exit_code=70)
    assert isinstance(parse_line(json.dumps(raw), 1), ErrorEvent | Garbled)
    assert isinstance(parse_line(json.dumps({**raw_event("new-" + text), "x" + text: text}), 1), Other | Garbled)


@given(st.lists(st.integers(0, len(GOOD)), max_size=30))
def test_how_the_bytes_are_cut_does_not_matter(cuts: list[int]) -> None:
    whole, cut = read(GOOD), read(GOOD, *cuts)
    assert cut.events == whole.events
    assert not cut.garbled


@given(st.lists(st.integers(0, 120), max_size=8), st.binary(min_size=1, max_size=30))
def test_foreign_bytes_between_lines_spoil_at_most_their_own_line(cuts: list[int], noise: bytes) -> None:
    data = LINES[0] + noise.replace(b"\n", b"") + b"\n" + LINES[1]
    log = read(data, *(cut for cut in cuts if cut <= len(data)))
    assert [type(found).__name__ for found in log.events][:1] == ["Started"]
    assert log.events[-1] == read(LINES[1]).events[0]


# --- sequence --------------------------------------------------------------------------------------------------


def numbered(*pairs: tuple[int, int]) -> list[AnyEvent]:
    return [event("progress", rank=rank, seq=seq, done=1, total=2) for rank, seq in pairs]


def test_ranks_may_interleave() -> None:
    assert sequence_gaps(numbered((0, 0), (1, 0), (1, 1), (0, 1), (-1, 0))) == []


def test_a_lost_a_repeated_and_a_swapped_line_are_gaps() -> None:
    assert sequence_gaps(numbered((0, 0), (0, 2))) == ["rank 0 wrote event 2 where 1 was due"]
    assert sequence_gaps(numbered((0, 0), (0, 0))) == ["rank 0 wrote event 0 where 1 was due"]
    assert sequence_gaps(numbered((1, 1), (1, 0))) == ["rank 1 wrote event 1 where 0 was due"]
    assert len(sequence_gaps(numbered((0, 1), (0, 3), (1, 1)))) == 2


def test_the_recorded_good_run_is_read_whole() -> None:
    log = read(Path(DATA / "runs/good/events.jsonl").read_bytes())
    assert (len(log.events), log.garbled, sequence_gaps(log.events)) == (94, [], [])


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_has_not_are_refused_wherever_they_stand(word: str) -> None:
    text = json.dumps(raw_event("started", world_size=2, **STARTED)).replace(
        '"params": {}', f'"params": {{"x": {word}}}'
    )
    found = parse_line(text, 1)
    assert isinstance(found, Garbled)
    assert word in found.reason


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_a_word_that_json_has_not_is_refused_wherever_it_stands(word: str) -> None:
    text = json.dumps(raw_event("window", **WINDOW))[:-1] + f', "extra": {{"deep": {word}}}}}'
    found = parse_line(text, 3)
    assert isinstance(found, Garbled)
    assert found.reason.startswith("not JSON")


def test_a_name_that_only_looks_like_no_number_is_read() -> None:
    assert isinstance(event("error", code="NaN", message="Infinity", exit_code=70), ErrorEvent)


def test_a_soaks_worker_says_more_when_it_starts() -> None:
    found = event("started", world_size=1, **STARTED, boot_id="b", session="s", resumed_s=3.5, fault_injected=True)
    assert isinstance(found, Started)
    assert (found.boot_id, found.session, found.resumed_s, found.fault_injected) == ("b", "s", 3.5, True)
    plain = event("started", world_size=1, **STARTED)
    assert isinstance(plain, Started)
    assert not plain.fault_injected


CHECKED: dict[str, Any] = {
    "phase": "bf16",
    "iterations": 40,
    "from_mono": 10,
    "until_mono": 15.0,
    "work": 2e16,
    "unit": "flop",
    "mismatches": 0,
    "key": "bf16/8192/0",
    "digest": "0123456789abcdef",
}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"digest": "0123456789ABCDEF"}, "digest"),
        ({"digest": "12"}, "digest"),
        ({"from_mono": -1.0}, "from_mono"),
        ({"from_mono": True}, "from_mono"),
        ({"until_mono": 1e12}, "until_mono"),
        ({"work": 1e30}, "work"),
        ({"unit": "GB"}, "unit"),
        ({"mismatches": 1.5}, "mismatches"),
        ({"key": "x" * 101}, "key"),
    ],
)
def test_what_a_soaks_worker_checked_is_bounded(change: dict[str, Any], where: str) -> None:
    assert isinstance(event("checked", **CHECKED), Checked)
    assert where in garbled(raw_event("checked", **{**CHECKED, **change}))
