"""compose/stress.yml on a simulated machine: it ends by itself with its verdict, whatever befalls cards, engine and disk."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docker.conftest import Vaultcube, until
from tests.docker.engines import in_root
from tests.rig.box import Box
from tests.rig.engine import RigEngine
from tests.rig.test_recorder_container import loaded
from tests.rig.test_stress import PATIENCE_S, WORKERS, Soak

from vaultcube.results.schema import Result, Verdict

# Two phases are enough for what is not about phases.
SHORT = {"STRESS_SETTLE": "4", "STRESS_PHASES": "fp32,memory"}


class Stack(Soak):
    """The whole file: workers, recorder, judge."""

    def start(self, **settings: str) -> None:
        self.up(**{**SHORT, **settings})

    def log(self, service: str) -> str:
        return self.compose("logs", "--no-log-prefix", service)

    def until_judged(self) -> Result:
        """Wait for the end that nobody is asked for."""
        until(lambda: self.exit_code("judge") == 0, PATIENCE_S, "it is judged")
        assert (self.folder / "ended").exists()
        return Result.model_validate_json((self.folder / "result.json").read_bytes())


@pytest.fixture
def stack(recorder_image: Path, box: Box, tmp_path: Path, vaultcube: Vaultcube, rig_hook: RigEngine) -> Iterator[Stack]:
    """Return a soak that has not begun, on cards that work as hard as they can."""
    box.load()
    with loaded(rig_hook, recorder_image):
        found = Stack(rig_hook, box, tmp_path / "results with spaces", vaultcube)
        yield found
        found.compose("down", "--timeout", "5")


def failed(result: Result) -> dict[str, set[int | None]]:
    """Return the checks that were missed, and the GPUs that are named for each."""
    named = defaultdict(set)
    for one in result.evidence:
        named[one.check].add(one.gpu_index)
    return {check.name: named[check.name] for check in result.checks if check.verdict is Verdict.FAIL}


def test_it_ends_by_itself_and_a_sensor_that_is_gone_is_not_taken_for_a_cool_card(stack: Stack, box: Box) -> None:
    box.set_gpu(1, temperature_c=None)
    stack.start(STRESS_SECONDS="8")
    result = stack.until_judged()
    assert (result.run.status, result.simulated, result.verdict) == ("completed", True, Verdict.UNAVAILABLE)
    unavailable = {check.name: check.reason for check in result.checks if check.verdict is not Verdict.PASS}
    assert unavailable.keys() == {"temperature_margin", "clock_stability"}
    assert unavailable["temperature_margin"] == "a card does not tell its temperature, or its limit"
    assert result.evidence == []
    # Nothing is left going on, and nothing comes back with the engine.
    assert [stack.exit_code(one) for one in (*WORKERS, "recorder")] == [0] * 5
    assert json.loads((stack.folder / "recorder.json").read_text())["reason"] == "until"
    assert {one.path for one in result.artifacts} >= {"run.db", "recorder.json", "gpu-3/events.jsonl"}
    assert "verdict UNAVAILABLE" in stack.log("judge")


def test_each_fault_is_found_on_its_card_and_no_other(stack: Stack, box: Box) -> None:
    box.replay_growth(0, 20)
    box.pcie_width(1, 8)
    box.power_brake(3)
    stack.start(STRESS_SECONDS="12")
    stack.until_all_load()
    box.xid(2, 48, log=False)
    result = stack.until_judged()
    # A card with half its clock draws half its power.
    assert failed(result) == {"pcie_replays": {0}, "pcie_link": {1}, "no_xid": {2}, "throttling": {3}, "power": {3}}
    assert result.run.status == "completed"
    # None of it is worth ending a load.
    assert [stack.of("error", one) for one in WORKERS] == [[]] * 4


def test_a_driver_that_does_not_answer_is_no_recorder_that_is_gone(stack: Stack, box: Box) -> None:
    stack.start(STRESS_SECONDS="14", STRESS_RECORDER_LOST="3")
    stack.until_all_load()
    box.set_gpu(2, hang=1)
    # That of the card itself may hang with it.
    others = [one for one in WORKERS if one != "gpu-2"]
    since = max(stack.covered_until(one) for one in others)
    until(lambda: min(stack.covered_until(one) for one in others) > since + 6, PATIENCE_S, "the load goes on")
    box.set_gpu(2, hang=0)
    result = stack.until_judged()
    assert [stack.of("paused", one) for one in WORKERS] == [[]] * 4
    verdicts = {check.name: check for check in result.checks}
    assert verdicts["covered"].verdict is Verdict.PASS
    assert verdicts["busy"].verdict is Verdict.UNAVAILABLE
    assert "of the time under load" in verdicts["busy"].reason


def test_the_engine_may_die_and_all_of_it_goes_on_to_the_verdict(stack: Stack) -> None:
    # Its containers live on until it is back. One that is stopped: tests/rig/test_soak.py.
    stack.start(STRESS_SECONDS="30")
    stack.until_all_load()
    stack.engine.end(signal.SIGKILL)
    before = {one: stack.covered_until(one) for one in WORKERS}
    stack.engine.begin()
    result = stack.until_judged()
    assert result.run.status == "completed"
    assert all(stack.covered_until(one) > before[one] for one in WORKERS)
    verdicts = {check.name: check.verdict for check in result.checks}
    assert verdicts["covered"] is Verdict.PASS
    # When it comes back it tells what it finds running to stop, as one that ends does.
    assert (verdicts["no_unplanned_restart"], result.metrics["restarts"].value) == (Verdict.PASS, 4)
    assert stack.exit_code("recorder") == 0


class Disk:
    """A small disk at a folder, which the engine's containers see."""

    def __init__(self, engine: RigEngine, folder: Path) -> None:
        self._before = in_root(["nsenter", "--mount", f"--target={engine._pid}"])
        self._folder = folder
        folder.mkdir()
        self.sh(f"mount -t tmpfs -o size=3m,mode=0755 vaultcube-test {shlex.quote(str(folder))}")

    def sh(self, script: str) -> str:
        seen = subprocess.run(
            [*self._before, "sh", "-ec", script], capture_output=True, text=True, timeout=30, check=False
        )
        assert seen.returncode == 0, seen.stderr
        return seen.stdout

    def read(self, name: str) -> str:
        return self.sh(f"cat {shlex.quote(str(self._folder / name))}")

    def fill(self) -> None:
        self.sh(f"dd if=/dev/zero of={shlex.quote(str(self._folder / 'filler'))} bs=4k 2>/dev/null || true")

    def free(self) -> None:
        self.sh(f"rm {shlex.quote(str(self._folder / 'filler'))}")


def test_a_full_disk_is_told_loudly_and_with_room_all_goes_on(stack: Stack) -> None:
    disk = Disk(stack.engine, stack.folder.parent)
    stack.start(STRESS_SECONDS="10", STRESS_RECORDER_LOST="3")
    until(lambda: "recording" in stack.log("recorder"), PATIENCE_S, "it records")
    disk.fill()
    loud = "RECORDING HAS ENDED: /results/rig/run.db cannot be written: the disk is full (the one of /results)"
    until(lambda: loud in stack.compose("logs", "recorder"), PATIENCE_S, "the recorder says so")
    disk.free()
    until(lambda: stack.exit_code("judge") == 0, PATIENCE_S, "it is judged")
    result = Result.model_validate_json(disk.read("rig/result.json"))
    assert {check.name: check.verdict for check in result.checks}["covered"] is Verdict.PASS
