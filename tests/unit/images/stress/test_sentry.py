"""The sentry over a real folder: what the recorder and others leave in it, written here by hand."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stress import marks, sentry
from stress.gate import Gate
from stress.guard import HOT_BEATS, LOST_BEATS, Stop
from stress.outcome import Stopped
from stress.params import Params

from common.events import EventWriter

GPU = "GPU-1"


class Scene:
    """A folder of a soak, a clock that goes on by hand, and a sentry of gpu-0 in it."""

    def __init__(self, folder: Path, **params: Any) -> None:
        self.folder = folder
        self.now = 100.0
        self.beats = 0
        self.path = folder / "events.jsonl"
        self.events = EventWriter(self.path, -1)
        self.gate = Gate(folder / "gate", create=True)
        values = Params("gpu-0", "cuda", 60, ("fp32",), 60.0, 0.85, 0, 120.0, **params)
        self.sentry = sentry.Sentry(folder, values, GPU, clock=lambda: self.now)

    def beat(self, **card: Any) -> None:
        self.beats += 1
        gpus = [{"uuid": GPU, "index": 0, "temperature_c": 60, "limit_c": 90, "lost": False, "problem": None} | card]
        document = {"schema": 1, "session": "a", "beat": self.beats, "boot_id": "b", "ended": False, "gpus": gpus}
        part = self.folder / "recorder.json.part"
        part.write_text(json.dumps(document))
        part.replace(self.folder / "recorder.json")

    def look(self, seconds: float = 1.0) -> None:
        self.now += seconds
        self.sentry.look(self.events, self.gate)

    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def mark(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "gpu-0.stopped.json").read_text())
        return found


def shut(gate: Gate) -> bool:
    return gate.shut


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    found = Scene(tmp_path, recorder_lost_s=60.0)
    yield found
    found.events.close()


def test_the_gate_opens_with_the_first_beat_and_shuts_when_there_is_none(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    scene.look()
    assert shut(scene.gate)
    scene.beat()
    scene.look()
    assert not shut(scene.gate)
    scene.look(60)
    assert not shut(scene.gate)
    assert scene.told() == []
    for _ in range(3):
        scene.look()
    assert shut(scene.gate)
    (paused,) = scene.told()
    assert (paused["kind"], paused["reason"], paused["rank"]) == ("paused", "recorder-lost", -1)
    said = capsys.readouterr()
    assert said.err.count("PAUSED [recorder-lost]: gpu-0: the recorder has said nothing new in") == 1
    assert "for 61 s" in said.err
    scene.beat()
    scene.look()
    assert not shut(scene.gate)
    assert [event["kind"] for event in scene.told()] == ["paused", "resumed"]
    assert "gpu-0  the recorder is back after 1 min 04 s: the load goes on" in capsys.readouterr().out


def test_what_never_came_is_told_as_well(scene: Scene) -> None:
    scene.look()
    scene.look(61)
    assert [event["kind"] for event in scene.told()] == ["paused"]


def test_a_look_right_after_another_looks_at_nothing(scene: Scene) -> None:
    scene.look()
    scene.beat()
    scene.look(0.1)
    assert shut(scene.gate)


@pytest.mark.parametrize(
    ("card", "beats", "code"),
    [({"temperature_c": 90}, HOT_BEATS, "over-temperature"), ({"lost": True}, LOST_BEATS, "gpu-lost")],
)
def test_a_stop_is_marked_told_and_no_reason_to_begin_again(
    scene: Scene, card: dict[str, Any], beats: int, code: str
) -> None:
    scene.look()
    for _ in range(beats - 1):
        scene.beat(**card)
        scene.look()
    scene.beat(**card)
    with pytest.raises(Stopped) as caught:
        scene.look()
    assert (caught.value.code, caught.value.exit_code) == (code, 0)
    assert caught.value.next_step
    (error,) = scene.told()
    assert (error["kind"], error["code"], error["exit_code"]) == ("error", code, 0)
    mark = scene.mark()
    assert {name: mark[name] for name in ("schema", "gpu", "code", "message")} == {
        "schema": 1,
        "gpu": "gpu-0",
        "code": code,
        "message": error["message"],
    }
    assert mark["time"].endswith("Z")
    assert not list(scene.folder.glob("*.part"))


def test_the_mark_of_another_counts_where_all_stop_together(tmp_path: Path) -> None:
    for on_fault in ("gpu", "all"):
        scene = Scene(tmp_path, on_fault=on_fault)
        marks.write(tmp_path, "gpu-2", Stop("gpu-lost", "it is lost", "reseat it"))
        if on_fault == "gpu":
            scene.look()
            assert not shut(scene.gate)
            continue
        with pytest.raises(Stopped, match="gpu-2 was stopped"):
            scene.look()
        assert scene.mark()["code"] == "other-gpu-stopped"


@pytest.mark.parametrize("text", ['{"schema":1,"by":"judge","message":"rung 1 h: FAIL"}', "", "[", '{"message":3}'])
def test_who_is_told_to_stop_stops_whatever_the_words(tmp_path: Path, text: str) -> None:
    scene = Scene(tmp_path)
    (tmp_path / "stop.json").write_text(text)
    with pytest.raises(Stopped) as caught:
        scene.look()
    assert caught.value.code == "told-to-stop"
    assert ("rung 1 h: FAIL" in caught.value.message) == ("judge" in text)


def test_a_mark_that_cannot_be_written_keeps_no_load_running(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    # A folder in its place: nobody's rights matter here.
    (scene.folder / "gpu-0.stopped.json.part").mkdir()
    (scene.folder / "stop.json").write_text("{}")
    with pytest.raises(Stopped):
        scene.look()
    assert scene.told()[0]["code"] == "told-to-stop"
    assert "gpu-0.stopped.json cannot be written" in capsys.readouterr().err


def test_who_was_stopped_does_not_begin_by_itself(tmp_path: Path) -> None:
    sentry.admit(tmp_path, "gpu-0", "gpu")
    marks.write(tmp_path, "gpu-0", Stop("over-temperature", "too hot: 91 C", "see to it"))
    with pytest.raises(Stopped, match=r"gpu-0 was stopped before.*too hot: 91 C") as caught:
        sentry.admit(tmp_path, "gpu-0", "gpu")
    assert caught.value.exit_code == 0
    assert str(tmp_path / "gpu-0.stopped.json") in caught.value.next_step
    sentry.admit(tmp_path, "gpu-1", "gpu")
    with pytest.raises(Stopped, match="gpu-0 was stopped, and with --on-fault all"):
        sentry.admit(tmp_path, "gpu-1", "all")
    # Whoever waits for its end need not wait for long.
    assert marks.said(tmp_path / "gpu-1.stopped.json")
    (tmp_path / "stop.json").write_text("{}")
    with pytest.raises(Stopped, match="told to stop"):
        sentry.admit(tmp_path, "gpu-2", "gpu")


def test_a_folder_that_is_gone_tells_nothing(tmp_path: Path) -> None:
    seen = marks.look(tmp_path / "gone", "gpu-0", "all")
    assert (seen.beat, seen.told, list(seen.stopped)) == (None, None, [])


def test_both_ends_of_a_gate_see_the_same(tmp_path: Path) -> None:
    ours = Gate(tmp_path / "gate", create=True)
    theirs = Gate(tmp_path / "gate")
    assert shut(theirs)
    ours.set(shut=False)
    assert not shut(theirs)
    ours.set(shut=True)
    assert shut(theirs)
