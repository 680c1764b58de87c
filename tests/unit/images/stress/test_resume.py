import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stress.resume import Past, past, read

from common.events import EventError


def started(boot: str | None = "one") -> bytes:
    return json.dumps({"kind": "started", "boot_id": boot}).encode()


def checked(start: float, end: float, mono: float | None = None) -> bytes:
    event = {"kind": "checked", "from_mono": start, "until_mono": end, "mono": end if mono is None else mono}
    return json.dumps(event).encode()


def test_nothing_yet(tmp_path: Path) -> None:
    assert read(tmp_path / "events.jsonl") == Past()
    assert past([]) == Past(0.0, 0, finished=False)


def test_sessions_add_up() -> None:
    lines = [started(), checked(10, 15), checked(15, 20), started(), checked(31, 32), started("two"), checked(1, 5)]
    assert past(lines) == Past(5 + 5 + 1 + 4, 3, finished=False)


def test_the_same_seconds_of_one_boot_count_once_and_of_two_boots_twice() -> None:
    twice = [checked(10, 20), checked(10, 20), checked(12, 25)]
    assert past([started(), *twice]).covered_s == 15
    assert past([started("one"), checked(10, 20), started("two"), checked(10, 20)]).covered_s == 20
    # Who does not know its boot has a clock of its own.
    assert past([started(None), checked(10, 20), started(None), checked(10, 20)]).covered_s == 20


def test_the_gpu_is_the_one_of_the_last_session() -> None:
    devices = [json.dumps({"kind": "device", "uuid": uuid}).encode() for uuid in ("GPU-1", "GPU-2", 7)]
    assert past([started(), devices[0], started(), devices[1], started()]).uuid == "GPU-2"
    assert past([started(), devices[0], devices[2]]).uuid is None


def test_finished_is_the_last_word_or_none() -> None:
    end = b'{"kind": "finished"}'
    assert past([started(), checked(1, 2), end]).finished
    assert not past([started(), end, started()]).finished


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\xfe",
        b"[1]",
        b'{"kind": "checked"}',
        b'{"kind": "checked", "from_mono": 1, "until_mono": 9, "mono"',
        b'{"kind": "checked", "from_mono": 1, "until_mono": NaN, "mono": 9}',
        b'{"kind": "checked", "from_mono": NaN, "until_mono": 9, "mono": 9}',
        b'{"kind": "checked", "from_mono": "1", "until_mono": 9, "mono": 9}',
        b'{"kind": "checked", "from_mono": 1, "until_mono": 9}',
        checked(9, 1),
        checked(5, 5),
        checked(-5, 5),
        checked(1, 1e12, mono=10),
    ],
)
def test_what_is_garbled_covers_nothing(line: bytes) -> None:
    assert past([started(), line, checked(20, 22)]).covered_s == 2


def test_a_torn_last_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    events.write_bytes(started() + b"\n" + checked(1, 4) + b"\n" + checked(4, 9)[:20])
    assert read(events).covered_s == 3
    with events.open("ab") as file:
        file.write(checked(20, 21) + b"\n")
    assert read(events).covered_s == 4
    before = events.read_bytes()
    read(events)
    assert events.read_bytes() == before


def test_a_file_that_cannot_be_read_is_an_event_error(tmp_path: Path) -> None:
    with pytest.raises(EventError, match="cannot read"):
        read(tmp_path)


SECONDS = st.integers(0, 60)


@given(st.lists(st.tuples(st.sampled_from(["one", "two", "three"]), SECONDS, SECONDS), max_size=25))
def test_covered_is_what_a_tally_of_seconds_finds(intervals: list[tuple[str, int, int]]) -> None:
    lines, tally = [], set[tuple[str, int]]()
    for boot, start, end in intervals:
        lines += [started(boot), checked(start, end)]
        tally |= {(boot, second) for second in range(start, end)}
    assert past(lines).covered_s == len(tally)


@given(st.lists(st.binary(max_size=40) | st.sampled_from([started(), checked(1, 2)]), max_size=12))
def test_no_file_is_too_broken(lines: list[bytes]) -> None:
    # What comes before any start is on a clock of its own.
    assert past(lines).covered_s in {0, 1, 2}
