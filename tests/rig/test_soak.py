"""`vaultcube stress` on a simulated machine: pinned cards, its own folder, and everything that can end under it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.docker.conftest import Vaultcube, kill_inside, until
from tests.rig import images
from tests.rig.box import Box
from tests.rig.engine import RigEngine
from tests.rig.test_recorder_container import loaded

from vaultcube.results.schema import Result, Verdict

PATIENCE_S = 120
LONG = ("--hours", "2")


class Soaking:
    """The command, and the only soak that it began.

    Attributes:
        cube: the command.
        engine: the rig's.
        box: its cards.
    """

    def __init__(self, cube: Vaultcube, engine: RigEngine, box: Box) -> None:
        self.cube, self.engine, self.box = cube, engine, box

    @property
    def run(self) -> str:
        (found,) = self.cube.run_ids()
        return found

    @property
    def folder(self) -> Path:
        return self.cube.runs / self.run / "results"

    def detach(self, *words: str) -> None:
        seen = self.cube("stress", "--detach", "--phase-seconds", "1", *words)
        assert seen.returncode == 0, seen.stderr

    def status(self) -> dict[str, Any]:
        seen = self.cube("stress", "status", "--json")
        assert seen.returncode == 0, seen.stderr
        (found,) = json.loads(seen.stdout)
        return dict(found)

    def stands(self, *standing: str) -> None:
        until(
            lambda: [one["standing"] for one in self.status()["workers"]] == list(standing), PATIENCE_S, str(standing)
        )

    def starts(self) -> list[int]:
        return [one["starts"] for one in self.status()["workers"]]

    def container(self, service: str) -> str:
        words = (
            "--filter",
            f"label=io.vaultcube.run={self.run}",
            "--filter",
            f"label=com.docker.compose.service={service}",
        )
        return self.engine.ask("ps", "--quiet", *words).strip()

    def began(self, service: str) -> str:
        """Return when a container began, empty while it does not run."""
        found = self.container(service)
        return self.engine.ask("inspect", "--format", "{{.State.StartedAt}}", found) if found else ""

    def began_after(self, service: str, before: str) -> bool:
        return self.began(service) not in {"", before}

    def stop(self, code: int = 130) -> Result:
        seen = self.cube("stress", "stop", "--json", timeout=90)
        assert seen.returncode == code, seen.stderr
        return Result.model_validate_json(seen.stdout)


@pytest.fixture
def soaking(request: pytest.FixtureRequest, recorder_image: Path, box: Box, vaultcube: Vaultcube) -> Iterator[Soaking]:
    """Return the command on cards that work as hard as they can; the parameter names the engine."""
    engine: RigEngine = request.getfixturevalue(f"rig_{getattr(request, 'param', 'hook')}")
    box.load()
    with loaded(engine, recorder_image):
        yield Soaking(vaultcube, engine, box)


def verdicts(result: Result) -> dict[str, Verdict]:
    return {check.name: check.verdict for check in result.checks}


@pytest.mark.parametrize("soaking", ["hook", "cdi"], indirect=True)
def test_it_loads_the_cards_that_it_was_given_and_is_judged_by_what_they_show(soaking: Soaking) -> None:
    words = ("--gpus", "device=1,3", "--hours", "0.005", "--json")
    seen = soaking.cube("stress", *words, timeout=PATIENCE_S)
    result = Result.model_validate_json(seen.stdout)
    assert (seen.returncode, result.run.status) == (0, "completed")
    assert [gpu.uuid for gpu in result.gpus] == [soaking.box.uuids[1], soaking.box.uuids[3]]
    assert (result.simulated, result.verdict) == (True, Verdict.UNAVAILABLE)
    # A card gets five minutes to come to its temperature before its clock is looked at.
    others = {name: verdict for name, verdict in verdicts(result).items() if verdict is not Verdict.PASS}
    assert others == {"clock_stability": Verdict.UNAVAILABLE}
    assert (result.evidence, result.disturbances) == ([], [])
    assert set(result.provenance.images) == {"gpu-1", "gpu-3", "judge", "recorder"}
    assert {path.parent.name for path in soaking.folder.glob("gpu-*/events.jsonl")} == {"gpu-1", "gpu-3"}


def test_a_card_that_gets_too_hot_is_stopped_alone_and_named(soaking: Soaking) -> None:
    soaking.detach("--gpus", "device=0,2", *LONG)
    soaking.stands("loading", "loading")
    assert [one["temperature_celsius"] is not None for one in soaking.status()["workers"]] == [True, True]
    # Its degrees are counted.
    soaking.box.set(jitter=0)
    soaking.box.thermal_slowdown(2)
    soaking.stands("loading", "stopped")
    result = soaking.stop(1)
    assert (result.run.status, result.verdict) == ("failed", Verdict.FAIL)
    assert result.run.error is not None
    assert "gpu-2: too hot: 92 C" in result.run.error.message
    assert verdicts(result)["no_unplanned_restart"] is Verdict.PASS
    (hot,) = [one for one in result.evidence if one.check == "temperature_margin"]
    assert hot.gpu_index == 2


def test_a_wrong_card_ends_the_ladder_at_its_first_rung(soaking: Soaking) -> None:
    images.breaks(soaking.box.path, {soaking.box.uuids[1]: "flip:fp32:all"})
    words = ("--phases", "fp32", "--ladder", "0.002,2", "--phase-seconds", "1", "--json")
    seen = soaking.cube("stress", *words, timeout=PATIENCE_S)
    result = Result.model_validate_json(seen.stdout)
    assert (seen.returncode, result.run.status, result.verdict) == (1, "failed", Verdict.FAIL)
    assert {one.gpu_index for one in result.evidence if one.check == "digests_agree"} == {1}
    assert json.loads((soaking.folder / "rung-0.002h.json").read_text())["verdict"] == "FAIL"
    assert "0.002" in (result.run.error.message if result.run.error else "")


def test_cards_that_a_soak_holds_are_busy_and_a_held_one_is_not_soaked(soaking: Soaking) -> None:
    soaking.detach("--gpus", "device=0,1", *LONG)
    for words in (["stress", "--gpus", "device=1"], ["bench", "ddp", "--gpus", "device=0"]):
        seen = soaking.cube(*words)
        assert (seen.returncode, "[gpu-busy]" in seen.stderr) == (3, True), seen.stderr
    listed = json.loads(soaking.cube("ps", "--json").stdout)
    assert [[gpu["index"] for gpu in one["gpus"]] for one in listed] == [[0, 1]]
    soaking.stop()


def test_every_part_that_is_killed_comes_back(soaking: Soaking) -> None:
    soaking.detach("--gpus", "device=0,1", *LONG)
    soaking.stands("loading", "loading")
    kill_all = {"gpu-0": "-m stress ", "recorder": "gpu.recorder", "judge": "stress judge"}
    for service, words in kill_all.items():
        began = soaking.began(service)
        kill_inside(soaking.container(service), words, DOCKER_HOST=soaking.engine.host)
        until(partial(soaking.began_after, service, began), PATIENCE_S, f"{service} is back")
    until(lambda: soaking.starts() == [2, 1], PATIENCE_S, "the worker began again")
    soaking.stands("loading", "loading")
    result = soaking.stop()
    assert {one.gpu_index for one in result.evidence if one.check == "no_unplanned_restart"} == {0}


def test_the_engine_may_end_under_it_and_whoever_looks_on_waits(soaking: Soaking, tmp_path: Path) -> None:
    argv = soaking.cube.argv("stress", "--gpus", "device=0,1", "--phase-seconds", "1", *LONG, "--json")
    said = tmp_path / "said"
    with (
        said.open("w") as stderr,
        subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=stderr, text=True, env=soaking.cube.environment()
        ) as child,
    ):
        until(
            lambda: soaking.cube.run_ids() and any(soaking.folder.glob("gpu-*/events.jsonl")), PATIENCE_S, "it begins"
        )
        soaking.stands("loading", "loading")
        soaking.engine.end(signal.SIGTERM)
        until(lambda: "the engine does not answer" in said.read_text(), PATIENCE_S, "it is missed")
        soaking.engine.begin()
        until(lambda: "the engine answers again" in said.read_text(), PATIENCE_S, "it is noticed")
        until(lambda: soaking.starts() == [2, 2], PATIENCE_S, "both began again")
        soaking.stands("loading", "loading")
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=90)
    result = Result.model_validate_json(out)
    assert (child.returncode, result.run.status) == (130, "interrupted")
    # It told the workers to stop. One that is killed: tests/rig/test_stress_compose.py.
    assert verdicts(result)["no_unplanned_restart"] is Verdict.PASS
    assert result.metrics["restarts"].value == 2


def test_on_another_machine_s_cards_it_does_not_go_on(soaking: Soaking, tmp_path: Path) -> None:
    child = soaking.cube.start("stress", "--gpus", "device=0,3", "--phase-seconds", "1", *LONG)
    until(lambda: soaking.cube.run_ids() and any(soaking.folder.glob("gpu-3/events.jsonl")), PATIENCE_S, "it begins")
    soaking.stands("loading", "loading")
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=90)
    soaking.cube.env.update(Box(tmp_path / "other", "2x4090").env())
    seen = soaking.cube("stress", "--resume")
    assert (seen.returncode, "[soak-changed]" in seen.stderr) == (3, True), seen.stderr
    assert f"GPU 0 of {soaking.run} ({soaking.box.uuids[0]}" in seen.stderr
