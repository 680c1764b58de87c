"""A soak on a simulated machine: compose/stress.yml as it is, four cards, and what the judge finds in the end."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.docker.conftest import Vaultcube, until
from tests.rig import images
from tests.rig.box import Box
from tests.rig.engine import ROOT, RigEngine
from tests.rig.test_recorder_container import loaded

from vaultcube.results.schema import Result, Verdict

COMPOSE = ROOT / "compose" / "stress.yml"
WORKERS = [f"gpu-{index}" for index in range(4)]
PATIENCE_S = 120


class Soak:
    """The compose file, up in the rig's engine.

    Attributes:
        folder: where workers and recorder write.
    """

    def __init__(self, engine: RigEngine, box: Box, results: Path, cube: Vaultcube) -> None:
        self.engine = engine
        self.box = box
        self.folder = results / "rig"
        self._cube = cube
        self._env = {
            **os.environ,
            "DOCKER_HOST": engine.host,
            "VAULTCUBE_RESULTS_DIR": str(results),
            "VAULTCUBE_FLAVOUR": "cu128",
            "STRESS_NAME": "rig",
            "RECORDER_PERIOD": "0.2",
        }

    def compose(self, *words: str, **settings: str) -> str:
        argv = ["docker", "compose", "--project-name", "vaultcube-rig-stress", "--file", str(COMPOSE), *words]
        env = self._env | settings
        seen = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert seen.returncode == 0, seen.stderr
        return seen.stdout

    def up(self, *words: str, **settings: str) -> None:
        self.compose("up", "--no-build", "--detach", *words, **settings)

    def events(self, worker: str) -> list[dict[str, Any]]:
        path = self.folder / worker / "events.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def of(self, kind: str, worker: str) -> list[dict[str, Any]]:
        return [event for event in self.events(worker) if event["kind"] == kind]

    def exit_code(self, worker: str) -> int | None:
        """Return how a worker's container has ended, None while it lives or is to begin again."""
        name = self.compose("ps", "--all", "--quiet", worker).strip()
        state = json.loads(self.engine.ask("inspect", name))[0]["State"]
        return int(state["ExitCode"]) if state["Status"] == "exited" else None

    def mark(self, worker: str) -> dict[str, Any] | None:
        path = self.folder / f"{worker}.stopped.json"
        return json.loads(path.read_text()) if path.exists() else None

    def covered_until(self, worker: str) -> float:
        """Return when the last load that was checked ended, on the clock that all of this machine share."""
        return max((event["until_mono"] for event in self.of("checked", worker)), default=0.0)

    def until_all_load(self) -> None:
        until(lambda: all(self.of("checked", one) for one in WORKERS), PATIENCE_S, "all load")

    def until_ended(self, *workers: str) -> None:
        until(lambda: all(self.exit_code(one) is not None for one in workers or WORKERS), PATIENCE_S, "the workers end")

    def judged(self) -> Result:
        seen = self._cube("stress", "judge", str(self.folder), "--json")
        assert seen.stdout, seen.stderr
        return Result.model_validate_json(seen.stdout)


@pytest.fixture
def soak(
    request: pytest.FixtureRequest, recorder_image: Path, box: Box, tmp_path: Path, vaultcube: Vaultcube
) -> Iterator[Soak]:
    """Return a soak that has not begun, on cards that work as hard as they can."""
    engine: RigEngine = request.getfixturevalue("rig_hook")
    box.load()
    with loaded(engine, recorder_image):
        found = Soak(engine, box, tmp_path / "results with spaces", vaultcube)
        yield found
        found.compose("down", "--timeout", "5")


def test_four_sound_cards_meet_every_check_and_a_simulator_proves_nothing(soak: Soak, box: Box) -> None:
    soak.up(STRESS_SECONDS="30")
    soak.until_ended()
    assert [soak.exit_code(one) for one in WORKERS] == [0] * 4
    # Each on the card that it was given, which is number 0 to it.
    devices = [soak.of("device", one)[0] for one in WORKERS]
    assert [(one["uuid"], one["device_index"]) for one in devices] == [(uuid, 0) for uuid in box.uuids]
    soak.compose("stop")
    result = soak.judged()
    assert [gpu.uuid for gpu in result.gpus] == box.uuids
    assert (result.simulated, result.verdict) == (True, Verdict.UNAVAILABLE)
    # The cards get five minutes to come to their temperature before their clock is looked at.
    others = {check.name: check.verdict for check in result.checks if check.verdict is not Verdict.PASS}
    assert others == {"clock_stability": Verdict.UNAVAILABLE}
    assert result.evidence == []
    assert result.metrics["paused_hours"].value == 0


def test_a_bit_that_one_card_always_flips_is_found_by_the_others(soak: Soak, box: Box) -> None:
    images.breaks(box.path, {box.uuids[2]: "flip:fp32:all"})
    soak.up(STRESS_SECONDS="6", STRESS_PHASES="fp32,memory")
    soak.until_ended()
    soak.compose("stop")
    result = soak.judged()
    assert result.verdict is Verdict.FAIL
    assert not soak.of("mismatch", "gpu-2")
    (blamed,) = [one for one in result.evidence if one.check == "digests_agree"]
    assert (blamed.gpu_index, blamed.gpu_uuid) == (2, box.uuids[2])
    assert blamed.text.startswith("GPU 2 contradicts the other GPUs of its kind: fp32/64/0 gave ")
    failed = {check.name for check in result.checks if check.verdict is Verdict.FAIL}
    assert failed == {"digests_agree"}


def test_a_card_that_is_too_hot_and_one_that_is_lost_are_stopped_and_no_other(soak: Soak, box: Box) -> None:
    soak.up(STRESS_SECONDS="40")
    soak.until_all_load()
    # Its degrees are counted.
    box.set(jitter=0)
    box.thermal_slowdown(1)
    box.lose(2)
    soak.until_ended("gpu-1", "gpu-2")
    for worker, code in (("gpu-1", "over-temperature"), ("gpu-2", "gpu-lost")):
        # The exit code that no restart policy begins again.
        assert soak.exit_code(worker) == 0
        error = soak.of("error", worker)[-1]
        assert (error["code"], error["exit_code"]) == (code, 0)
        assert soak.covered_until(worker) <= error["mono"] + 2
        mark = soak.mark(worker)
        assert mark
        assert (mark["gpu"], mark["code"]) == (worker, code)
        assert len(soak.of("started", worker)) == 1
    assert "92 C is at its own limit of 90 C or above" in soak.of("error", "gpu-1")[-1]["message"]
    soak.until_ended("gpu-0", "gpu-3")
    assert [soak.of("finished", one) != [] for one in WORKERS] == [True, False, False, True]
    soak.compose("stop")
    result = soak.judged()
    assert result.verdict is Verdict.FAIL
    verdicts = {check.name: check.verdict for check in result.checks}
    assert verdicts["no_unplanned_restart"] is Verdict.PASS
    assert {"covered", "temperature_margin", "no_gpu_lost", "no_xid"} <= {
        name for name, verdict in verdicts.items() if verdict is Verdict.FAIL
    }
    uncovered = {one.gpu_index: one.text for one in result.evidence if one.check == "covered"}
    assert uncovered.keys() == {1, 2}
    assert "in the end its worker was stopped (over-temperature: too hot: 92 C" in uncovered[1]
    assert "in the end its worker was stopped (gpu-lost: the recorder has lost this GPU" in uncovered[2]
    assert {one.gpu_index for one in result.evidence if one.check == "no_gpu_lost"} == {2}


def test_one_card_that_is_lost_stops_all_where_that_is_wanted_until_a_person_goes_on(soak: Soak, box: Box) -> None:
    settings = {"STRESS_SECONDS": "600", "STRESS_ON_FAULT": "all"}
    soak.up(**settings)
    soak.until_all_load()
    box.lose(3)
    soak.until_ended()
    codes = [soak.of("error", one)[-1]["code"] for one in WORKERS]
    assert codes == ["other-gpu-stopped"] * 3 + ["gpu-lost"]
    assert [soak.exit_code(one) for one in WORKERS] == [0] * 4
    box.heal()
    before = {one: soak.covered_until(one) for one in WORKERS}
    soak.up(**settings)
    until(lambda: all(soak.covered_until(one) > before[one] for one in WORKERS), PATIENCE_S, "all go on")
    assert [soak.mark(one) for one in WORKERS] == [None] * 4
    soak.compose("stop")
    result = soak.judged()
    assert {one.check for one in result.evidence if one.check == "no_unplanned_restart"} == set()
    assert result.metrics["restarts"].value == 4


def test_no_load_runs_while_the_recorder_is_gone_and_it_goes_on_with_it(soak: Soak) -> None:
    settings = {"STRESS_SECONDS": "20", "STRESS_RECORDER_LOST": "3"}
    soak.up(**settings)
    soak.until_all_load()
    soak.compose("kill", "recorder")
    until(lambda: all(soak.of("paused", one) for one in WORKERS), PATIENCE_S, "all wait")
    soak.compose("start", "recorder", **settings)
    soak.until_ended()
    soak.compose("stop")
    for one in WORKERS:
        (paused,), (resumed,) = soak.of("paused", one), soak.of("resumed", one)
        assert not [
            event
            for event in soak.of("checked", one)
            if event["until_mono"] > paused["mono"] + 2 and event["from_mono"] < resumed["mono"] - 1
        ]
    result = soak.judged()
    covered = next(check for check in result.checks if check.name == "covered")
    assert (covered.verdict, result.metrics["restarts"].value) == (Verdict.PASS, 0)
    assert result.metrics["paused_hours"].value > 0
