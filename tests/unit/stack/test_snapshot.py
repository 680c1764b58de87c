from __future__ import annotations

import os
import pwd

import pytest
from tests.unit.fakenvml import Driver
from tests.unit.gpustates import info
from tests.unit.replay import Recording

from vaultcube.gpu.readings import GpuProcess, Problem
from vaultcube.stack import snapshot
from vaultcube.stack.asking import Containers
from vaultcube.stack.snapshot import describe, take_snapshot

NOBODY_PID = 2**22 + 1


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, recording: Recording) -> Driver:
    recording.says("ps --quiet --no-trunc")
    found = Driver()
    found.install(monkeypatch, "vaultcube.stack.snapshot")
    return found


def test_everything_is_asked_once_and_let_go(driver: Driver) -> None:
    driver.processes = {info(1).uuid: [GpuProcess(os.getpid(), "compute", 5)]}
    seen = take_snapshot(Containers())
    assert (seen.driver, seen.cuda, seen.simulated) == ("580.95.05", "13.0", True)
    assert (seen.problem, seen.reason, seen.holders_reason) == (None, None, None)
    free, held = seen.gpus
    assert (free.holders, free.processes) == ((), ())
    assert held.holders[0].pid == os.getpid()
    assert held.processes[0].name
    assert len(seen.links) == 1
    assert (driver.opened, driver.closed) == (1, 1)


@pytest.mark.parametrize("problem", ["no-library", "mismatch", "permission"])
def test_a_driver_that_does_not_start(driver: Driver, problem: Problem) -> None:
    driver.refuses = problem
    seen = take_snapshot(Containers())
    assert (seen.gpus, seen.problem, seen.reason) == ((), problem, "NVML: it refuses")
    assert seen.simulated


def test_a_gpu_that_goes_while_the_links_are_asked_for_costs_only_them(driver: Driver) -> None:
    driver.unlinked = True
    seen = take_snapshot(Containers())
    assert (len(seen.gpus), seen.links) == (2, ())


def test_no_gpu_has_a_reason_and_missing_ones_are_kept(driver: Driver) -> None:
    driver.infos, driver.lost = [], [(0, "lost")]
    seen = take_snapshot(Containers())
    assert (seen.reason, seen.missing, seen.problem) == ("the driver lists no GPU", ((0, "lost"),), None)


def test_an_engine_that_hangs_does_not_keep_the_gpus(
    driver: Driver, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording._cases.clear()
    recording.says("ps", does="exec sleep 600")
    monkeypatch.setattr(snapshot, "PATIENCE_S", 0.05)
    asked = Containers()
    seen = take_snapshot(asked)
    asked.cancel()
    assert len(seen.gpus) == 2
    assert seen.holders_reason == "the engine did not answer within 0.05 s"
    assert driver.closed == 1


def test_a_process_has_a_name_and_a_user_until_it_ends() -> None:
    here = describe(GpuProcess(os.getpid(), "compute", None))
    assert here.user == pwd.getpwuid(os.getuid()).pw_name
    assert here.name
    gone = describe(GpuProcess(NOBODY_PID, "graphics", 7))
    assert gone == (NOBODY_PID, "graphics", 7, None, None)


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> object:
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert describe(GpuProcess(os.getpid(), "compute", None)).user == str(os.getuid())
