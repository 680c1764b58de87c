import json
import math
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.events import LAUNCHER, EventError, EventWriter, finite_or_none, read_new

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
MOMENT = datetime(2026, 11, 22, 1, 2, 3, 4, tzinfo=UTC)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def test_the_envelope_is_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path, LAUNCHER, now=lambda: MOMENT, monotonic=lambda: 12.5)
    writer.write("phase", phase="solo", subject_rank=0)
    writer.write("progress", done=1, total=2)
    envelope = {"schema": 1, "time": "2026-11-22T01:02:03.000004Z", "mono": 12.5, "rank": -1}
    assert lines(path) == [
        envelope | {"seq": 0, "kind": "phase", "phase": "solo", "subject_rank": 0},
        envelope | {"seq": 1, "kind": "progress", "done": 1, "total": 2},
    ]


@given(fields=st.dictionaries(st.text(max_size=8).filter(lambda name: name not in {"kind", "self"}), JSON, max_size=4))
def test_any_json_comes_back_and_stays_on_its_line(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, object]
) -> None:
    path = tmp_path_factory.mktemp("events") / "e"
    EventWriter(path, 0).write("x", **fields)
    data = path.read_bytes()
    assert data.count(b"\n") == 1
    data.decode("ascii")
    (event,) = lines(path)
    reserved = {"schema", "seq", "time", "mono", "rank", "kind"}
    for name in fields.keys() - reserved:
        assert event[name] == fields[name]


def test_undecodable_bytes_of_a_path_become_valid_text(tmp_path: Path) -> None:
    path = tmp_path / "e"
    EventWriter(path, 0).write("error", message="no \udcff here")
    assert lines(path)[0]["message"] == "no ? here"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_has_no_word_for_nan(tmp_path: Path, value: float) -> None:
    path = tmp_path / "e"
    with pytest.raises(ValueError, match="JSON compliant"):
        EventWriter(path, 0).write("x", value=value)
    assert path.read_bytes() == b""
    assert finite_or_none(value) is None
    assert finite_or_none(1.5) == 1.5


def test_a_full_disk_is_an_event_error() -> None:
    with pytest.raises(EventError, match="No space left"):
        EventWriter(Path("/dev/full"), 0).write("x")


def test_half_a_line_is_an_event_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.write", lambda _fd, data: len(data) - 1)
    with pytest.raises(EventError, match=r"only \d+ of \d+ bytes"):
        EventWriter(tmp_path / "e", 0).write("x")


def test_a_folder_that_is_not_there_is_an_event_error(tmp_path: Path) -> None:
    with pytest.raises(EventError, match="No such file"):
        EventWriter(tmp_path / "no" / "e", 0)


def test_writing_after_close_is_an_event_error(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "e", 0)
    writer.close()
    with pytest.raises(EventError):
        writer.write("x")


def test_threads_share_one_sequence(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "e", 0)

    def many() -> None:
        for _ in range(100):
            writer.write("x")

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event["seq"] for event in lines(tmp_path / "e")] == list(range(400))


def test_processes_append_whole_lines(tmp_path: Path, program_env: dict[str, str]) -> None:
    path = tmp_path / "e"
    program = (
        "import sys; from pathlib import Path; from common.events import EventWriter\n"
        "writer = EventWriter(Path(sys.argv[1]), int(sys.argv[2]))\n"
        "for number in range(300): writer.write('x', number=number, padding='p' * (number * 7 % 5000))\n"
    )
    ranks = range(4)
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(path), str(rank)], env=program_env) for rank in ranks
    ]
    assert [process.wait(60) for process in running] == [0, 0, 0, 0]
    events = lines(path)
    assert len(events) == 1200
    for rank in ranks:
        assert [event["seq"] for event in events if event["rank"] == rank] == list(range(300))


def test_read_new_goes_on_where_it_was_and_skips_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "e"
    assert read_new(path, 0) == ([], 0)
    path.write_bytes(b'{"kind":"a"}\n{"ki')
    first, offset = read_new(path, 0)
    assert [event["kind"] for event in first] == ["a"]
    with path.open("ab") as file:
        file.write(b'nd":"b"}\n\xff\xfe\n[1]\n17\n\n{"kind":"c"}\n{"kind":')
    rest, end = read_new(path, offset)
    assert [event["kind"] for event in rest] == ["b", "c"]
    assert read_new(path, end) == ([], end)


@given(data=st.binary(max_size=200))
def test_read_new_takes_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("events") / "e"
    path.write_bytes(data)
    events, offset = read_new(path, 0)
    assert 0 <= offset <= len(data)
    assert all(isinstance(event, dict) for event in events)
