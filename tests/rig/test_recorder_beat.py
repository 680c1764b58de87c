"""The recorder's sign of life over the simulated box, and the file whose being there ends it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.rig.box import Box
from tests.rig.recordings import PATIENCE_S, Recording, recording, refused

from vaultcube.gpu.telemetry import Telemetry


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """Return a box that shows changes at once."""
    found = Box(tmp_path / "box", jitter=False)
    found.set(reread_ms=50)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "soak"
    found.mkdir()
    return found


def words(folder: Path) -> list[str]:
    return ["--beat", str(folder / "recorder.json"), "--until", str(folder / "ended")]


def beat(folder: Path) -> Any:
    return json.loads((folder / "recorder.json").read_text())


def told(run: Recording, folder: Path, ask: Any) -> Any:
    """Poll the sign of life until something is true of it."""
    return run.until(lambda: (folder / "recorder.json").exists() and ask(beat(folder)))


def test_it_follows_the_cards_and_ends_when_the_soak_has(box: Box, folder: Path) -> None:
    box.load()
    with recording(box, folder / "run.db", *words(folder)) as run:
        cards = told(run, folder, lambda seen: all(gpu["temperature_c"] for gpu in seen["gpus"]) and seen["gpus"])
        assert [card["uuid"] for card in cards] == box.uuids
        first = beat(folder)["beat"]
        told(run, folder, lambda seen: seen["beat"] >= first + 2)
        box.hot(1)
        box.lose(2)
        cards = told(run, folder, lambda seen: seen["gpus"][2]["lost"] and seen["gpus"])
        assert [card["lost"] for card in cards] == [False, False, True, False]
        hot = told(run, folder, lambda seen: seen["gpus"][1]["temperature_c"] > cards[0]["temperature_c"] and seen)
        # As `hot` says: a degree below what the card states as its own limit.
        assert hot["gpus"][1]["margin_c"] == 1
        (folder / "ended").touch()
        assert run.process.wait(PATIENCE_S) == 0
    said = beat(folder)
    assert (said["ended"], said["reason"]) == (True, "until")
    with Telemetry.open(folder / "run.db") as telemetry:
        assert telemetry.meta.ended_by == "until"
    assert sorted(path.name for path in folder.iterdir()) == ["ended", "recorder.json", "run.db"]


def test_stopped_before_that_it_is_to_be_started_again(box: Box, folder: Path) -> None:
    with recording(box, folder / "run.db", *words(folder), period=60) as run:
        before = told(run, folder, lambda seen: seen)
        # Once a second, however long the period is.
        told(run, folder, lambda seen: seen["beat"] >= before["beat"] + 2)
        assert run.stop() == 75
    assert (beat(folder)["ended"], beat(folder)["reason"]) == (True, "SIGTERM")
    (folder / "ended").touch()
    # Without any driver, and without a word.
    gone = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    seen = refused(box, folder / "other.db", *words(folder), env={**gone, "LD_LIBRARY_PATH": ""})
    assert (seen.returncode, seen.stdout, seen.stderr) == (0, "", "")
    assert not (folder / "other.db").exists()


def test_it_lives_while_the_driver_does_not_answer(box: Box, folder: Path) -> None:
    with recording(box, folder / "run.db", *words(folder)) as run:
        told(run, folder, lambda seen: seen)
        box.set_gpu(1, hang=1)
        silent = told(run, folder, lambda seen: seen["gpus"][1]["problem"] == "hang" and seen)
        told(run, folder, lambda seen: seen["beat"] >= silent["beat"] + 2)
        assert beat(folder)["gpus"][1]["temperature_c"] is None
        run.process.terminate()
        assert run.process.wait(PATIENCE_S) == 75


def test_a_sign_of_life_that_cannot_be_written_ends_it(box: Box, folder: Path) -> None:
    (folder / "recorder.json").mkdir()
    seen = refused(box, folder / "run.db", *words(folder))
    assert (seen.returncode, seen.stderr.count("\n")) == (74, 1)
    assert "recorder.json" in seen.stderr
    assert not list(folder.glob(".*"))
