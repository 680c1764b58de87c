"""The recorder's sign of life, written by hand: what it says, and when."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.gpu.recording import BOOT, infos

from vaultcube.gpu.beat import EVERY_NS, Beat
from vaultcube.gpu.readings import Reading

SECOND = 1_000_000_000


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recorder.json"


def test_it_says_how_hot_each_gpu_is_and_what_it_may_be(path: Path) -> None:
    beat = Beat(str(path), BOOT, infos())
    beat.take(1, Reading(temperature_c=71, temperature_margin_c=12))
    beat.write(SECOND, hanging=False)
    said = read(path)
    assert (said["schema"], said["boot_id"], said["ended"]) == (1, BOOT, False)
    unread, hot = said["gpus"][:2]
    assert (unread["temperature_c"], unread["lost"], unread["problem"]) == (None, False, None)
    assert [unread["uuid"], unread["index"]] == [infos()[0].uuid, 0]
    assert (hot["temperature_c"], hot["margin_c"], hot["limit_c"]) == (71, 12, infos()[1].temperature_limit_c)
    assert [one.name for one in path.parent.iterdir()] == ["recorder.json"]


def test_what_was_read_before_a_hang_is_no_longer_so_but_a_loss_stays(path: Path) -> None:
    beat = Beat(str(path), BOOT, infos())
    beat.take(0, Reading(problem="lost"))
    beat.take(1, Reading(temperature_c=95))
    beat.write(SECOND, hanging=True)
    lost, silent = read(path)["gpus"][:2]
    assert (lost["lost"], lost["problem"]) == (True, "lost")
    assert (silent["lost"], silent["problem"], silent["temperature_c"]) == (False, "hang", None)


def test_another_recorder_is_another_session(path: Path) -> None:
    seen = []
    for _ in range(2):
        beat = Beat(str(path), BOOT, infos())
        for second in range(3):
            beat.write(second * SECOND, hanging=False)
            seen.append((read(path)["session"], read(path)["beat"]))
        beat.end("SIGTERM")
        seen.append((read(path)["session"], read(path)["beat"]))
        assert (read(path)["ended"], read(path)["reason"]) == (True, "SIGTERM")
    assert len(set(seen)) == 8
    assert len({session for session, _ in seen}) == 2
    assert [number for _, number in seen[:4]] == list(range(seen[0][1], seen[0][1] + 4))


@given(steps=st.lists(st.integers(1, 10 * SECOND), min_size=1, max_size=60))
def test_it_is_written_about_once_a_second_whenever_it_is_asked(
    steps: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("beat") / "recorder.json"
    beat, now, told = Beat(str(path), BOOT, []), 0, []
    for step in steps:
        now += step
        before = read(path)["beat"] if path.exists() else None
        beat.write(now, hanging=False)
        if read(path)["beat"] != before:
            told.append(now)
        assert beat.next_ns > now
        # Never a long time without one: it is due again within a second.
        assert beat.next_ns - now <= EVERY_NS + EVERY_NS // 2
    assert len(told) <= now // EVERY_NS + 2


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    beat = Beat(str(tmp_path / "none" / "recorder.json"), BOOT, infos())
    with pytest.raises(FileNotFoundError):
        beat.write(0, hanging=False)
