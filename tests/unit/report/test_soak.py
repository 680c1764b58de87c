"""Soaks in plain text."""

from __future__ import annotations

import pytest
from tests.unit.support import result

from vaultcube.report.soak import begun, duration, none_running, progress_line, standing
from vaultcube.results.schema import Verdict
from vaultcube.results.soakstatus import RungStatus, SoakStatus, WorkerStatus


def status(*workers: WorkerStatus, **changes: object) -> SoakStatus:
    given = workers or (WorkerStatus(name="gpu-0", gpu_uuid="GPU-1", standing="loading", covered_s=3600, phase="bf16"),)
    fields = {"name": "stress", "run": "stress-1", "wanted_s": 86400, "covered_s": 3600, "directory": "/r", **changes}
    return SoakStatus.model_validate({**fields, "workers": given})


def test_how_far_it_is() -> None:
    assert progress_line(status(left_s=82800)) == "1 h of 24 h covered, about 23 h left"
    waiting = WorkerStatus(name="gpu-1", gpu_uuid=None, standing="paused")
    assert progress_line(status(waiting, waiting)) == "1 h of 24 h covered (2 paused)"


def test_every_worker_has_a_line_and_its_last_error() -> None:
    bad = WorkerStatus(name="gpu-1", gpu_uuid="GPU-2", standing="stopped", said="too hot", temperature_celsius=91.4)
    text = standing(status(bad, rungs=(RungStatus(hours=1, verdict=Verdict.PASS),), running=True, simulated=True))
    assert "gpu-1   stopped" in text
    assert "91 C" in text
    assert "gpu-1: too hot\n" in text
    assert "rungs: 1 h PASS\n" in text
    assert "SIMULATED" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"running": True}, "it goes on by itself"),
        ({"running": True, "keeper": 12}, "looked after by pid 12"),
        ({"running": False}, "go on with it: vaultcube stress --resume --name stress"),
        ({"running": False, "verdict": "FAIL"}, "verdict FAIL; clear it"),
    ],
)
def test_the_last_line_says_what_to_do(changes: dict[str, object], said: str) -> None:
    assert said in standing(status(**changes)).splitlines()[-1]


def test_what_a_detached_one_says() -> None:
    text = begun(status())
    assert "vaultcube stress status" in text
    assert "vaultcube stress stop stress" in text
    assert "vaultcube stress --resume --name stress\n" in text


def test_when_none_runs_the_last_one_is_named() -> None:
    assert none_running(None) == "no soak is running\n"
    assert "completed, UNAVAILABLE" in none_running(result())


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (59.4, "59 s"), (90, "1.5 min"), (86400, "24 h"), (44640, "12.4 h")]
)
def test_times_are_said_as_people_do(seconds: float, said: str) -> None:
    assert duration(seconds) == said
