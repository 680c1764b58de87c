"""When the workers of a soak have ended, and what they have covered by then."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.results.test_soak import Life, worker
from tests.unit.support import STARTED

from vaultcube.results.events import AnyEvent
from vaultcube.results.lives import Worker
from vaultcube.results.soak import read_soak
from vaultcube.results.soakwait import Look, Reached, Waiting, next_rung, spell, stood

BUSY, GONE, DONE, STOPPED = Look(True), Look(False), Look(False, finished=True), Look(False, stopped=True)
LOOKS = st.builds(Look, st.booleans(), st.booleans(), st.booleans())
# How much later, and what every worker looks like then; workers appear and never vanish.
STEPS = st.lists(st.tuples(st.floats(0, 100), st.lists(LOOKS, max_size=4)), min_size=1, max_size=30)


def test_all_are_done_and_nobody_else_is_to_come() -> None:
    waiting = Waiting(100, settle_s=30)
    assert waiting.take(100, {}) == []
    # Before the first one there is nothing to be settled about, however long it takes.
    assert not waiting.settled(100_000)
    assert waiting.take(100_000, {"gpu-0": BUSY}) == ["gpu-0"]
    assert waiting.take(100_010, {"gpu-0": DONE}) == []
    assert not waiting.settled(100_010)
    assert waiting.take(100_020, {"gpu-0": DONE, "gpu-1": BUSY}) == ["gpu-1"]
    assert waiting.take(100_040, {"gpu-0": DONE, "gpu-1": STOPPED}) == []
    assert not waiting.settled(100_049)
    assert waiting.settled(100_050)


def test_a_worker_that_is_gone_may_come_back() -> None:
    waiting = Waiting(0, patience_s=180)
    waiting.take(0, {"gpu-0": BUSY})
    assert waiting.take(10, {"gpu-0": GONE}) == ["gpu-0"]
    assert waiting.take(189, {"gpu-0": GONE}) == ["gpu-0"]
    assert waiting.take(189.5, {"gpu-0": BUSY}) == ["gpu-0"]
    assert waiting.take(300, {"gpu-0": GONE}) == ["gpu-0"]
    assert waiting.take(480, {"gpu-0": GONE}) == []


@given(STEPS)
def test_who_works_is_waited_for_and_who_does_not_is_not_for_ever(steps: list[tuple[float, list[Look]]]) -> None:
    waiting, now = Waiting(0, settle_s=30, patience_s=180), 0.0
    looks: dict[str, Look] = {}
    away: dict[str, float] = {}
    appeared = 0.0
    for step, seen in steps:
        now += step
        appeared = now if len(seen) > len(looks) else appeared
        looks |= {f"gpu-{place}": look for place, look in enumerate(seen)}
        going_on = waiting.take(now, looks)
        for name, look in looks.items():
            away = {other: since for other, since in away.items() if other != name or not look.at_work}
            since = now if look.at_work else away.setdefault(name, now)
            assert (name in going_on) == (look.at_work or not (look.finished or look.stopped or now - since >= 180))
        assert waiting.settled(now) == (bool(looks) and now - appeared >= 30)


# --- what is covered ------------------------------------------------------------------------------------------


def begun(mono: float = 100.0, boot: str = "one", seconds: Any = 10) -> Life:
    life = Life(mono)
    life.events = []
    params = {**STARTED, "program": "stress", "params": {"seconds": seconds}}
    return life.add("started", mono, **params, world_size=1, boot_id=boot, session="s")


def reached(*lives: Life) -> Reached:
    found = Reached()
    for one in worker(*lives).events:
        found.take([one])
    return found


def test_it_counts_as_it_goes() -> None:
    first = begun().checked(101, 105).checked(105, 109)
    found = reached(first)
    assert (found.covered_s, found.wanted_s, found.finished) == (8, 10, False)
    # Told twice, over another life of the same boot, and before it began: none of it counts again.
    again = begun(120).checked(101, 109, mono=121).checked(119, 122).done(123)
    found = reached(first, again)
    assert (found.covered_s, found.finished) == (10, True)
    assert reached(first, begun(20, "two", "lots").checked(21, 23)).wanted_s == 1


@given(st.lists(st.tuples(st.sampled_from("scccfx"), *[st.integers(0, 400)] * 4), max_size=25))
def test_it_never_counts_more_than_the_judge(said: list[tuple[str, int, int, int, int]]) -> None:
    events: list[AnyEvent] = []
    life = Life()
    for place, (what, mono, start, end, number) in enumerate(said):
        if what in "sx":
            events += life.events
            life = begun(mono, "one" if number % 3 else "two")
            # A life whose beginning was lost.
            life.events = life.events if what == "s" else []
        elif what == "c":
            life.checked(start * 4, end * 4, mono=mono * 4 + number / 300, iterations=place % 4)
        else:
            life.done(mono)
    events += life.events
    found = Reached()
    found.take(events)
    (judged,) = read_soak({"cpu-0": Worker(events)}, []).subjects
    assert found.covered_s <= judged.coverage.covered_s * (1 + 1e-9)


def test_a_rung_is_due_when_all_have_covered_it_and_only_once() -> None:
    ladder = (1, 6, 24)
    day = 24 * 3600
    assert next_rung(ladder, (), day, [3600, 3599]) is None
    assert next_rung(ladder, (), day, [3600, 3600]) == 1
    assert next_rung(ladder, (1,), day, [3600, 3600]) is None
    assert next_rung(ladder, (), day, [6 * 3600] * 2) == 1
    assert next_rung(ladder, (1,), day, [6 * 3600] * 2) == 6
    # All of it is the end, which is no rung.
    assert next_rung(ladder, (1, 6), day, [day, day]) is None
    assert next_rung(ladder, (), 1800, [day]) is None
    assert next_rung(ladder, (), day, []) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (42.9, "42 s"), (750, "12 min 30 s"), (11_220, "3 h 07 min"), (90_000, "25 h 00 min")],
)
def test_durations_as_people_say_them(seconds: float, words: str) -> None:
    assert spell(seconds) == words


@pytest.mark.parametrize(
    ("look", "finished", "words"),
    [
        (BUSY, False, "gpu-2 42 s of 1 min 00 s"),
        (GONE, False, "gpu-2 42 s of 1 min 00 s, not at work"),
        (STOPPED, False, "gpu-2 42 s of 1 min 00 s, stopped"),
        (DONE, True, "gpu-2 done"),
    ],
)
def test_a_worker_in_a_line(look: Look, finished: bool, words: str) -> None:  # noqa: FBT001 - a table
    known: Any = {"covered_s": 42.0, "wanted_s": 60.0, "finished": finished}
    assert stood("gpu-2", look, Reached(**known)) == words
