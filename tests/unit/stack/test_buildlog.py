"""Progress as `docker buildx bake --progress rawjson` (0.13) wrote it; tests/data/buildlogs holds the recordings."""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support import DATA

from vaultcube.stack.buildlog import TAIL_LINES, BuildLog

CASES = ["good", "failing", "no-base"]


def recorded(case: str) -> list[str]:
    return (DATA / "buildlogs" / f"{case}.txt").read_text().split("\n")


def compact(case: str) -> list[str]:
    """Return a recording as newer buildx writes it: one object a line."""
    lines, part = [], ""
    for line in recorded(case):
        part = part + line if part or line == "{" else ""
        if not part:
            lines.append(line)
        elif line == "}":
            lines.append(json.dumps(json.loads(part)))
            part = ""
    return lines


def follow(lines: list[str]) -> tuple[BuildLog, list[str], list[tuple[int, int]]]:
    """Return the log, what the build's commands wrote, and how far it was after each line."""
    log = BuildLog()
    written: list[str] = []
    steps = []
    for line in lines:
        written += log.feed(line)
        steps.append((log.done, log.total))
    return log, written, steps


def test_a_build_that_works() -> None:
    log, written, steps = follow(recorded("good"))
    assert (log.done, log.total, log.failed) == (4, 4, None)
    # `three` was overwritten by a carriage return before anybody could read it.
    assert sorted(written) == ["four", "one", "two"]
    assert log.tail() == []
    for (done, total), (later, more) in itertools.pairwise(steps):
        assert done <= later
        assert total <= more
        assert later <= more


def test_the_current_step_is_the_one_that_runs() -> None:
    log = BuildLog()
    seen = []
    for line in recorded("good"):
        log.feed(line)
        if log.current and log.current not in seen:
            seen.append(log.current)
    assert [name.split("]")[0] for name in seen[:-1]] == ["[1/3", "[2/3", "[3/3"]
    assert seen[-1] == "exporting to image"


def test_a_step_that_fails_is_named_with_its_last_words() -> None:
    log, written, _ = follow(recorded("failing"))
    assert log.failed is not None
    assert log.failed.startswith("[3/4] RUN echo before")
    assert "did not complete successfully: exit code: 100" in log.error
    assert log.tail() == ["before", "E: Unable to locate package nonsuch"]
    assert written == ["step 1", "step 2", "step 3", "before", "E: Unable to locate package nonsuch"]
    # What buildx itself says at the end is kept apart.
    assert log.plain[-1].startswith("ERROR: failed to solve")


def test_a_base_that_cannot_be_resolved_is_named_though_the_step_is_an_internal_one() -> None:
    log, written, _ = follow(recorded("no-base"))
    assert log.failed == "[internal] load metadata for example.invalid/vaultcube/nonsuch:1"
    assert "failed to do request" in log.error
    assert log.tail() == [log.error]
    assert written == []
    assert any("failed to resolve source metadata" in line for line in log.plain)


@pytest.mark.parametrize("case", CASES)
def test_one_object_a_line_reads_as_the_same_build(case: str) -> None:
    assert len(compact(case)) < len(recorded(case)) / 3
    old, new = follow(recorded(case)), follow(compact(case))
    assert (new[0].failed, new[0].error, new[0].tail(), new[1]) == (old[0].failed, old[0].error, old[0].tail(), old[1])
    assert (new[0].done, new[0].total, new[0].current) == (old[0].done, old[0].total, old[0].current)
    assert list(new[0].plain) == list(old[0].plain)


def status(**parts: Any) -> str:
    return json.dumps(parts)


def step(digest: str, name: str, **state: Any) -> dict[str, Any]:
    return {"digest": digest, "name": name, **state}


def test_a_cached_step_is_done() -> None:
    log = BuildLog()
    log.feed(status(vertexes=[step("a", "[1/2] FROM x", cached=True), step("b", "[2/2] RUN y", started="now")]))
    assert (log.done, log.total, log.current) == (1, 2, "[2/2] RUN y")


def test_a_cancelled_neighbour_is_not_what_went_wrong() -> None:
    log = BuildLog()
    log.feed(status(vertexes=[step("a", "other", error="rpc error: context canceled: context canceled")]))
    assert log.tail() == []
    log.feed(status(vertexes=[step("b", "culprit", error="exit code: 1"), step("c", "later", error="exit code: 2")]))
    assert (log.failed, log.error) == ("culprit", "exit code: 1")


def test_only_the_last_lines_of_the_failed_step_are_kept() -> None:
    log = BuildLog()
    text = "".join(f"line {number}\n" for number in range(50))
    log.feed(status(logs=[{"vertex": "a", "data": base64.b64encode(text.encode()).decode()}]))
    log.feed(status(vertexes=[step("a", "culprit", error="exit code: 1")]))
    assert log.tail() == [f"line {number}" for number in range(50 - TAIL_LINES, 50)]


def test_a_build_that_never_began_leaves_the_commands_own_words() -> None:
    log, written, _ = follow(["ERROR: failed to find target nonsuch", "", "  "])
    assert log.tail() == ["ERROR: failed to find target nonsuch"]
    assert (log.failed, written, log.total) == (None, [], 0)


GOOD_LINE = status(vertexes=[step("a", "[1/1] RUN x", completed="now")])


@given(st.text(max_size=80))
def test_any_line_is_read_or_kept_and_the_next_one_still_read(line: str) -> None:
    log = BuildLog()
    log.feed(line)
    log.feed(GOOD_LINE)
    assert log.done == 1


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "{broken",
        '{"vertexes": 3}',
        '{"vertexes": [3]}',
        '{"vertexes": [{"digest": null}]}',
        '{"logs": "x"}',
        '{"logs": [null]}',
        '{"logs": [{"vertex": "a", "data": "?"}]}',
        '{"logs": [{"vertex": "a", "data": "ü"}]}',
        '{"logs": [{"vertex": "a", "data": 5}]}',
        '{"logs": {"a": 1}}',
        "[]",
        "null",
        '{"a":' * 5000,
    ],
)
def test_objects_of_another_shape_do_no_harm(line: str) -> None:
    log = BuildLog()
    log.feed(line)
    log.feed(GOOD_LINE)
    assert log.done == 1


def test_a_character_that_is_cut_in_two_is_replaced() -> None:
    log = BuildLog()
    data = base64.b64encode("ü".encode()[:1]).decode()
    assert log.feed(status(logs=[{"vertex": "a", "data": data}])) == ["\N{REPLACEMENT CHARACTER}"]
