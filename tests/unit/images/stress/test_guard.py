"""What the guard decides: examples, and what holds whatever it sees."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stress.guard import HOT_BEATS, LOST_BEATS, Beat, Card, Decision, Guard, Limits, Seen, Stop, parse

GPU = "GPU-1"
COOL, HOT, LOST = Card(60, 90), Card(90, 90), Card(None, 90, lost=True)
ENDED = b'{"schema":1,"session":"a","beat":3,"ended":true,"reason":"SIGTERM","gpus":[]}'
WATCHED = Limits(recorder_lost_s=60)


def watch(
    limits: Limits, cards: Sequence[Card | None], *, every_s: float = 1.0, uuid: str | None = GPU
) -> list[Decision]:
    """Return what is decided as the recorder writes these cards, one a beat; None is a beat that does not come."""
    guard = Guard(limits, 0.0)
    guard.look(0.0, Seen(), uuid)
    found: list[Decision] = []
    beat: Beat | None = None
    for number, card in enumerate(cards, 1):
        beat = beat if card is None else Beat(("a", number), {GPU: card})
        found.append(guard.look(number * every_s, Seen(beat), uuid))
    return found


def code(decision: Decision) -> str:
    return decision.code if isinstance(decision, Stop) else decision


def test_it_waits_for_the_first_beat_and_then_for_none_that_is_late() -> None:
    decisions = watch(WATCHED, [None] * 3 + [COOL] + [None] * 61 + [COOL])
    assert decisions == ["wait"] * 3 + ["go"] * 61 + ["wait"] + ["go"]


def test_what_lay_there_before_is_no_sign_of_life() -> None:
    guard = Guard(WATCHED, 0.0)
    old = Seen(Beat(("before", 7)))
    assert [guard.look(float(now), old, GPU) for now in range(3)] == ["wait"] * 3
    assert guard.look(3.0, Seen(Beat(("after", 7))), GPU) == "go"


def test_it_is_overdue_only_after_its_time() -> None:
    guard = Guard(WATCHED, 0.0)
    assert guard.look(60.0, Seen(), GPU) == "wait"
    assert not guard.overdue
    guard.look(60.5, Seen(), GPU)
    assert guard.overdue


def test_without_a_recorder_it_lets_the_load_run() -> None:
    assert watch(Limits(), [None] * 5) == ["go"] * 5


@pytest.mark.parametrize(
    ("card", "max_celsius", "hot"),
    [
        (Card(90, 90), None, True),
        (Card(89, 90), None, False),
        (Card(70, 90), 70, True),
        # Whoever sets a limit means that one.
        (Card(91, 90), 95, False),
        (Card(60, None, margin_c=0), None, True),
        (Card(60, 60, margin_c=12), None, False),
        (Card(95, None), None, None),
        (Card(None, 90), None, None),
        (Card(None, None, margin_c=-3), 80, None),
    ],
)
def test_what_is_too_hot(card: Card, max_celsius: int | None, *, hot: bool | None) -> None:
    assert card.hot(max_celsius) is hot


def test_heat_and_loss_stop_it_after_some_beats_in_a_row() -> None:
    assert [code(one) for one in watch(WATCHED, [COOL] + [HOT] * HOT_BEATS)] == ["go"] * HOT_BEATS + [
        "over-temperature"
    ]
    assert [code(one) for one in watch(WATCHED, [COOL] + [LOST] * LOST_BEATS)] == ["go"] * LOST_BEATS + ["gpu-lost"]
    assert {code(one) for one in watch(WATCHED, ([HOT] * (HOT_BEATS - 1) + [COOL]) * 9)} == {"go"}
    assert {code(one) for one in watch(WATCHED, ([LOST] * (LOST_BEATS - 1) + [COOL]) * 9)} == {"go"}


def test_a_reading_that_is_missing_is_no_end_of_the_heat() -> None:
    assert code(watch(WATCHED, [HOT, Card()] * HOT_BEATS)[-1]) == "over-temperature"


def test_a_beat_that_is_seen_twice_counts_once() -> None:
    assert {code(one) for one in watch(WATCHED, [HOT, None, None] * (HOT_BEATS - 1))} == {"go"}


def test_people_are_told_which_heat_it_was() -> None:
    (last,) = watch(WATCHED, [HOT] * HOT_BEATS)[-1:]
    assert isinstance(last, Stop)
    assert last.message == "too hot: 90 C is at its own limit of 90 C or above, 5 readings in a row"
    (last,) = watch(Limits(60, 75), [HOT] * HOT_BEATS)[-1:]
    assert isinstance(last, Stop)
    assert "90 C is at the limit that was set of 75 C" in last.message


@pytest.mark.parametrize("uuid", [None, "GPU-2"])
def test_the_heat_of_others_is_theirs(uuid: str | None) -> None:
    assert {code(one) for one in watch(WATCHED, [HOT, LOST] * 20, uuid=uuid)} == {"go"}


def test_others_that_were_stopped_stop_it_only_where_that_is_wanted() -> None:
    for on_fault, expected in (("gpu", "go"), ("all", "other-gpu-stopped")):
        guard = Guard(Limits(on_fault=on_fault), 0.0)
        assert code(guard.look(0.0, Seen(stopped=["gpu-3"]), None)) == expected


@pytest.mark.parametrize("on_fault", ["gpu", "all"])
def test_who_is_told_to_stop_stops(on_fault: str) -> None:
    stop = Guard(Limits(60, None, on_fault), 0.0).look(0.0, Seen(told="rung 1 h: FAIL", stopped=["gpu-1"]), GPU)
    assert isinstance(stop, Stop)
    assert (stop.code, stop.message) == ("told-to-stop", "the soak was told to stop: rung 1 h: FAIL")


temperatures = st.one_of(st.none(), st.integers(20, 110))
some_cards = st.builds(Card, temperatures, temperatures, st.one_of(st.none(), st.integers(-20, 40)), st.booleans())
# Seconds of our own clock until the next look, and what the recorder wrote meanwhile.
looks = st.lists(st.tuples(st.floats(0, 200), st.one_of(st.none(), some_cards)), max_size=60)
limits = st.builds(
    Limits, st.sampled_from([0.0, 5.0, 60.0]), st.one_of(st.none(), st.integers(30, 150)), st.just("gpu")
)


@given(limits, looks)
def test_it_decides_as_it_is_defined(limits: Limits, looks: Sequence[tuple[float, Card | None]]) -> None:
    """Against the words of the definition, said anew from the whole history at every look."""
    guard = Guard(limits, 0.0)
    guard.look(0.0, Seen(), GPU)
    now, heard, cards, beat = 0.0, None, list[Card](), None
    for waited_s, card in looks:
        now += waited_s
        if card is not None:
            cards.append(card)
            heard, beat = now, Beat(("a", len(cards)), {GPU: card})
        decision = code(guard.look(now, Seen(beat), GPU))
        lost = len(cards) >= LOST_BEATS and all(one.lost for one in cards[-LOST_BEATS:])
        known = [hot for hot in (one.hot(limits.max_celsius) for one in cards) if hot is not None]
        hot = len(known) >= HOT_BEATS and all(known[-HOT_BEATS:])
        alive = not limits.recorder_lost_s or (heard is not None and now - heard <= limits.recorder_lost_s)
        assert decision == ("gpu-lost" if lost else "over-temperature" if hot else "go" if alive else "wait")
        if lost or hot:
            return


@given(limits, st.lists(st.floats(0, 1000), min_size=1, max_size=30))
def test_no_load_runs_where_a_recorder_is_wanted_and_never_was(limits: Limits, waits: Sequence[float]) -> None:
    guard, now = Guard(limits, 0.0), 0.0
    for waited_s in waits:
        now += waited_s
        assert guard.look(now, Seen(Beat(("old", 3), {GPU: HOT})), GPU) == ("wait" if limits.recorder_lost_s else "go")


def test_the_recorders_file_is_read() -> None:
    gpus = [
        {"uuid": "GPU-1", "index": 0, "temperature_c": 71, "limit_c": 90, "lost": False, "problem": None},
        {"uuid": "GPU-2", "index": 1, "temperature_c": None, "limit_c": None, "margin_c": 18, "lost": True},
        {"index": 2},
        "GPU-4",
    ]
    document = {"schema": 1, "session": "ab", "beat": 12, "boot_id": "b", "ended": False, "gpus": gpus}
    beat = parse(json.dumps(document).encode())
    assert beat == Beat(("ab", 12), {"GPU-1": Card(71, 90), "GPU-2": Card(None, None, 18, lost=True)})


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
cards_of_any_kind = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("uuid", "temperature_c", "limit_c", "margin_c", "lost"), json_values)
)
documents = st.fixed_dictionaries(
    {"schema": st.one_of(st.just(1), json_values)},
    optional={"session": json_values, "beat": json_values, "gpus": st.lists(cards_of_any_kind, max_size=3)},
)


@given(st.one_of(st.binary(max_size=60), documents.map(lambda value: json.dumps(value).encode())))
def test_whatever_is_in_the_recorders_file_it_is_a_beat_or_none(data: bytes) -> None:
    beat = parse(data)
    if beat is None:
        return
    guard = Guard(Limits(60), 0.0)
    for uuid, card in beat.cards.items():
        assert card.hot(None) in {True, False, None}
        assert code(guard.look(0.0, Seen(beat), uuid)) == "wait"


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[" * 10**5, b"\xff", b'{"schema":2}', b'{"schema":1,"session":"a"}', ENDED]
)
def test_what_is_no_beat(data: bytes) -> None:
    assert parse(data) is None
