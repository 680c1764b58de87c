from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultcube.results.coverage import Coverage, End, Moment, Pause, Session, Stretch, account, merged, shifted

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def at(mono_s: float, step: timedelta = timedelta(0)) -> Moment:
    return Moment(mono_s, NOON + timedelta(seconds=mono_s) + step)


def session(
    began: float,
    ended: float,
    *stretches: tuple[float, float],
    boot: str = "one",
    end: End = "silent",
    step: timedelta = timedelta(0),
) -> Session:
    """Return a session; `step` is how far its wall clock is off the other sessions'."""
    return Session(
        boot_id=boot,
        began=at(began, step),
        ended=at(ended, step),
        end=end,
        stretches=[Stretch(a, b, at(b, step).wall) for a, b in stretches],
    )


def told(coverage: Coverage) -> list[tuple[str, float]]:
    return [(gap.why, gap.seconds) for gap in coverage.gaps]


def test_a_worker_that_never_began_covers_nothing() -> None:
    assert account([]) == Coverage(gaps=[], restarts=[])


def test_one_life_is_its_start_its_load_and_its_end() -> None:
    found = account([session(100, 200, (110, 150), (150, 190), end="finished")])
    assert (found.covered_s, found.uncovered_s, found.longest_gap_s) == (80, 20, 10)
    assert told(found) == [("start", 10), ("stop", 10)]
    assert found.gaps[0][:2] == (at(100).wall, at(110).wall)
    assert found.restarts == []


def test_a_life_without_load_is_all_start() -> None:
    assert told(account([session(100, 130)])) == [("start", 30)]


def test_short_gaps_are_counted_and_not_listed() -> None:
    found = account([session(0, 30, (0, 10), (10.5, 30))])
    assert (found.covered_s, found.uncovered_s, found.longest_gap_s, found.gaps) == (29.5, 0.5, 0.5, [])


@pytest.mark.parametrize(
    ("end", "why", "planned"),
    [("silent", "restart", False), ("failed", "restart", False), ("stopped", "stop", True), ("finished", "stop", True)],
)
def test_a_worker_that_comes_back_leaves_a_gap_and_a_restart(end: End, why: str, *, planned: bool) -> None:
    found = account([session(0, 62, (0, 60), end=end), session(90, 200, (100, 200), end="finished")])
    assert told(found) == [(why, 40)]
    (restart,) = found.restarts
    assert (restart.why, restart.planned, restart.at, restart.away_since) == (
        "restart",
        planned,
        at(90).wall,
        at(62).wall,
    )
    assert (restart.before, restart.boot_id) == ("one", "one")


def test_a_pause_inside_one_life_is_none_of_both() -> None:
    assert told(account([session(0, 100, (0, 10), (40, 100))])) == [("pause", 30)]


def test_a_gap_says_what_was_waited_for_in_it() -> None:
    life = session(0, 200, (10, 50), (90, 150))
    waited = [Pause(52, 60, "heat"), Pause(60, 89, "recorder-lost"), Pause(70, 71, "heat"), Pause(160, 180, "night")]
    found = account([dataclasses.replace(life, pauses=waited)])
    assert [(gap.why, gap.reason) for gap in found.gaps] == [
        ("start", ""),
        ("pause", "heat, recorder-lost"),
        ("stop", "night"),
    ]
    assert (found.covered_s, found.uncovered_s) == (100, 100)


def test_a_reboot_lasts_as_long_as_the_wall_clock_says() -> None:
    # The second boot's clock begins anew, ten minutes after noon.
    first = session(5000, 5100, (5000, 5090))
    later = session(20, 200, (50, 200), boot="two", step=timedelta(seconds=5000 + 600))
    found = account([first, later])
    # Noon + 5090 s to noon + 5650 s.
    assert told(found) == [("stop", 10), ("reboot", 550)]
    assert found.covered_s == 240
    (restart,) = found.restarts
    assert (restart.why, restart.planned, restart.before, restart.boot_id) == ("reboot", False, "one", "two")


def test_a_wall_clock_that_was_set_back_during_a_reboot_makes_no_gap_shorter_than_what_is_known() -> None:
    found = account([session(0, 100, (0, 100)), session(20, 90, (50, 90), boot="two", step=-HOUR)])
    assert told(found) == [("reboot", 30)]


def test_the_calendar_ends() -> None:
    assert shifted(datetime.max.replace(tzinfo=UTC), 1) == datetime.max.replace(tzinfo=UTC)


# Whole seconds: a count of seconds in a set is then the same measure, made in another way.
SPAN = st.tuples(st.integers(0, 300), st.integers(0, 300))
STEPS = st.integers(-(10**7), 10**7).map(lambda seconds: timedelta(seconds=seconds))


@st.composite
def lives(draw: st.DrawFn) -> list[Session]:
    """Draw sessions of up to three boots, with stretches that may be anything, and a wall clock that is set at will."""
    found = []
    for boot in range(draw(st.integers(1, 3))):
        clock = 0
        for _ in range(draw(st.integers(1, 3))):
            began = clock + draw(st.integers(0, 50))
            ended = began + draw(st.integers(0, 200))
            spans = draw(st.lists(SPAN, max_size=8))
            end: End = draw(st.sampled_from(["finished", "stopped", "failed", "silent"]))
            found.append(session(began, ended, *spans, boot=str(boot), end=end, step=draw(STEPS)))
            clock = ended
    return found


def seconds_of(sessions: Sequence[Session]) -> int:
    """Count covered seconds one by one."""
    seen: dict[str, set[int]] = defaultdict(set)
    for one in sessions:
        alive = set(range(int(one.began.mono_s), int(one.ended.mono_s)))
        for stretch in one.stretches:
            seen[one.boot_id] |= set(range(int(stretch.start_s), int(stretch.end_s))) & alive
    return sum(len(seconds) for seconds in seen.values())


def span_of(sessions: Sequence[Session]) -> float:
    """Return the time between first and last words, boot by boot."""
    boots = {one.boot_id for one in sessions}
    return sum(
        max(one.ended.mono_s for one in sessions if one.boot_id == boot)
        - min(one.began.mono_s for one in sessions if one.boot_id == boot)
        for boot in boots
    )


@given(lives())
def test_every_second_is_covered_once_or_not_at_all(sessions: list[Session]) -> None:
    found = account(sessions)
    assert found.covered_s == seconds_of(sessions)
    assert found.uncovered_s >= span_of(sessions) - found.covered_s
    if len({one.boot_id for one in sessions}) == 1:
        assert found.covered_s + found.uncovered_s == span_of(sessions)
    assert found.longest_gap_s <= found.uncovered_s
    assert all(gap.seconds >= 1 for gap in found.gaps)
    assert sum(gap.seconds for gap in found.gaps) == found.uncovered_s
    assert len(found.restarts) == len(sessions) - 1


@given(lives(), st.lists(STEPS, min_size=9, max_size=9))
def test_setting_the_wall_clock_covers_nothing_and_uncovers_nothing(
    sessions: list[Session], steps: list[timedelta]
) -> None:
    moved = [
        Session(
            boot_id=one.boot_id,
            began=one.began._replace(wall=one.began.wall + step),
            ended=one.ended._replace(wall=one.ended.wall - step),
            end=one.end,
            stretches=[stretch._replace(wall=stretch.wall + step) for stretch in one.stretches],
        )
        for one, step in zip(sessions, steps, strict=False)
    ]
    assert account(moved).covered_s == account(sessions).covered_s
    if len({one.boot_id for one in sessions}) == 1:
        assert account(moved).uncovered_s == account(sessions).uncovered_s
        assert [gap.why for gap in account(moved).gaps] == [gap.why for gap in account(sessions).gaps]


@given(lives())
def test_what_is_said_twice_counts_once(sessions: list[Session]) -> None:
    twice = [
        Session(
            boot_id=one.boot_id,
            began=one.began,
            ended=one.ended,
            end=one.end,
            stretches=[*one.stretches, *reversed(one.stretches)],
        )
        for one in sessions
    ]
    assert account(twice) == account(sessions)


@given(st.lists(SPAN.map(sorted), max_size=12))
def test_merged_stretches_are_apart_and_in_order(spans: list[list[int]]) -> None:
    found = merged([Stretch(a, b, NOON) for a, b in spans], apart_s=3)
    assert all(before.end_s + 3 < after.start_s for before, after in pairwise(found))
    assert all(any(one.start_s <= a and b <= one.end_s for one in found) for a, b in spans)
