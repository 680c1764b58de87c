from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tests.unit.fakenvml import Driver
from tests.unit.gpustates import NOON, info, reading
from tests.unit.replay import Recording

from vaultcube.gpu.readings import GpuProcess, Problem, Reading, XidEvent
from vaultcube.stack import watch
from vaultcube.stack.watch import HISTORY, RETRY_LOST_S, RETRY_S, Frame, Watch, look_once

ONE, OTHER = info(0), info(1)
PS = "ps --quiet --no-trunc"
CONTAINER = {
    "Id": "a" * 64,
    "Name": "/trainer",
    "State": {"Status": "running"},
    "Config": {},
    "HostConfig": {"DeviceRequests": [{"Driver": "nvidia", "Count": 1, "Capabilities": [["gpu"]]}]},
}


class Times:
    """A watch over a fake driver, with a clock that a test turns."""

    def __init__(self, driver: Driver, folder: Path) -> None:
        self.driver, self.now = driver, 0.0
        self.watch = Watch(folder, clock=lambda: self.now, today=self.today)

    def today(self) -> datetime:
        return NOON + timedelta(seconds=self.now)

    def after(self, seconds: float = 1.0, patience_s: float = 30.0) -> Frame:
        """Look again, so much later."""
        self.now += seconds
        return self.watch.look(patience_s)


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch, recording: Recording, tmp_path: Path) -> Iterator[Times]:
    recording.says(PS)
    driver = Driver()
    driver.install(monkeypatch, "vaultcube.stack.watch")
    found = Times(driver, tmp_path)
    yield found
    found.watch.close()


def problems(frame: Frame) -> list[Problem | None]:
    return [state.reading.problem for state in frame.seen.gpus]


def test_what_was_seen_is_remembered_oldest_first(times: Times) -> None:
    for value in (10, None, 30):
        times.driver.readings[ONE.uuid] = reading(utilisation_percent=value)
        found = times.after()
    assert found.histories[ONE.uuid].utilisation == (10, None, 30)
    assert found.histories[OTHER.uuid].utilisation == (99, 99, 99)
    assert found.time == NOON + timedelta(seconds=3)
    assert (times.driver.opened, found.seen.problem, found.down_since) == (1, None, None)


def test_memory_has_an_end(times: Times) -> None:
    for _ in range(HISTORY + 5):
        found = times.after(0.1)
    assert len(found.histories[ONE.uuid].power_mw) == HISTORY


def test_a_gpu_that_is_lost_is_lost_since_then_and_one_that_comes_back_is_there(times: Times) -> None:
    times.after()
    times.driver.readings[ONE.uuid] = Reading(problem="lost")
    times.after()
    found = times.after()
    assert problems(found) == ["lost", None]
    assert found.lost == {ONE.uuid: NOON + timedelta(seconds=2)}
    assert found.histories[ONE.uuid].utilisation == (99, None, None)
    times.driver.readings.clear()
    assert times.after().lost == {}


def test_a_gpu_that_is_not_listed_any_more_is_shown_as_lost(times: Times) -> None:
    times.after()
    times.driver.infos, times.driver.lost = [OTHER], [(0, "lost")]
    times.driver.readings[ONE.uuid] = Reading(problem="lost")
    times.after(RETRY_LOST_S)
    found = times.after()
    assert times.driver.opened == 2
    assert [(state.info.uuid, state.reading.problem) for state in found.seen.gpus] == [
        (ONE.uuid, "lost"),
        (OTHER.uuid, None),
    ]
    assert found.seen.missing == ()
    times.driver.infos, times.driver.lost = [ONE, OTHER], []
    times.driver.readings.clear()
    times.after(RETRY_LOST_S)
    assert problems(times.after()) == [None, None]


def test_a_gpu_that_was_lost_before_is_found_when_it_comes_back(times: Times) -> None:
    times.driver.infos, times.driver.lost = [ONE], [(1, "lost")]
    assert times.after().seen.missing == ((1, "lost"),)
    times.driver.infos, times.driver.lost = [ONE, OTHER], []
    times.after(RETRY_LOST_S)
    found = times.after()
    assert (len(found.seen.gpus), found.seen.missing) == (2, ())


@pytest.mark.parametrize("problem", ["mismatch", "no-driver"])
def test_a_driver_that_goes_is_asked_again_and_found_when_it_comes_back(times: Times, problem: Problem) -> None:
    times.after()
    times.driver.breaks(problem)
    times.driver.refuses = problem
    found = times.after()
    assert (found.seen.gpus, found.seen.problem) == ((), problem)
    assert found.down_since == NOON + timedelta(seconds=2)
    assert found.seen.reason == f"NVML: {watch.PROBLEMS[problem]}"
    assert times.driver.closed == 1
    # Not at every look: opening a driver is slow.
    assert times.after().seen.reason == f"NVML: {watch.PROBLEMS[problem]}"
    found = times.after(RETRY_S)
    assert found.seen.reason == "NVML: it refuses"
    assert found.seen.simulated
    assert found.down_since == NOON + timedelta(seconds=2)
    times.driver.readings.clear()
    times.driver.refuses = None
    found = times.after(RETRY_S)
    assert (problems(found), found.down_since) == ([None, None], None)
    assert found.histories[ONE.uuid].utilisation == (99, 99)


def test_a_box_without_driver_is_shown_and_asked_again(times: Times) -> None:
    times.driver.refuses = "no-library"
    assert times.after().seen.problem == "no-library"
    times.driver.refuses = None
    assert len(times.after(RETRY_S).seen.gpus) == 2


def test_no_gpu_is_asked_again(times: Times) -> None:
    times.driver.infos = []
    assert times.after().seen.reason == "the driver lists no GPU"
    times.driver.infos = [ONE]
    times.after(RETRY_S)
    assert len(times.after().seen.gpus) == 1


def test_one_unreadable_gpu_is_its_own_trouble(times: Times) -> None:
    times.driver.readings[ONE.uuid] = Reading(problem="unknown")
    found = times.after()
    assert problems(found) == ["unknown", None]
    assert found.seen.problem is None


def test_xids_are_remembered_with_their_gpu_also_when_it_is_gone(times: Times) -> None:
    times.after()
    times.driver.events = [XidEvent(OTHER.uuid, 79), XidEvent(None, 31)]
    times.after()
    times.driver.breaks("mismatch")
    times.driver.refuses = "mismatch"
    found = times.after()
    assert [(xid.gpu, xid.code) for xid in found.xids] == [(1, 79), (None, 31)]
    assert found.xids[0].time == NOON + timedelta(seconds=2)


def test_processes_hold_gpus_as_long_as_they_are_there(times: Times) -> None:
    times.driver.processes = {ONE.uuid: [GpuProcess(os.getpid(), "compute", 1)]}
    found = times.after()
    assert found.seen.gpus[0].holders[0].pid == os.getpid()
    times.driver.processes.clear()
    assert times.after().seen.gpus[0].holders == ()


# --- the engine -------------------------------------------------------------------------------------------------


def test_the_engine_is_asked_only_every_few_seconds(times: Times, recording: Recording) -> None:
    for _ in range(10):
        found = times.after(0.5)
    assert found.seen.holders_reason is None
    assert sum(call.startswith(PS) for call in recording.calls) == 2


def test_a_container_that_ends_lets_go(times: Times, recording: Recording) -> None:
    recording._cases.clear()
    recording.says(PS, "a" * 64 + "\n")
    recording.says("inspect", json.dumps([CONTAINER]))
    assert times.after().seen.gpus[0].holders[0].name == "trainer"
    recording._cases.clear()
    recording.says(PS)
    # Before it is asked again, the last answer stands.
    assert times.after().seen.gpus[0].holders[0].name == "trainer"
    assert times.after(watch.ASK_S).seen.gpus[0].holders == ()


def test_an_engine_that_hangs_is_given_up_and_asked_again(times: Times, recording: Recording) -> None:
    recording._cases.clear()
    recording.says(PS, does="exec sleep 600")
    found = times.after(patience_s=0)
    assert found.seen.holders_reason == "the engine has not answered yet"
    assert len(found.seen.gpus) == 2
    found = times.after(watch.GIVE_UP_S, patience_s=0)
    assert found.seen.holders_reason == "the engine did not answer within 10 s"
    recording._cases.clear()
    recording.says(PS)
    assert times.after(watch.ASK_S).seen.holders_reason is None


def test_no_docker_is_no_reason_to_end(times: Times, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert times.after().seen.holders_reason == "there is no docker command on the PATH"


def test_looking_once_lets_go_of_everything(times: Times, tmp_path: Path) -> None:
    found = look_once(tmp_path)
    assert len(found.seen.gpus) == 2
    assert found.time.tzinfo is not None
    assert (times.driver.opened, times.driver.closed) == (1, 1)


def test_closing_while_the_engine_hangs_ends_its_question(times: Times, recording: Recording) -> None:
    recording._cases.clear()
    recording.says(PS, does="exec sleep 600")
    times.after(patience_s=0)
    times.watch.close()
    assert times.watch._asked is not None
    assert times.watch._asked.wait(30)
