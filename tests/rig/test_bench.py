"""`bench ddp` on a simulated machine: what telemetry, recorded by a process or by a container, says of the run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.docker.conftest import Vaultcube, until
from tests.docker.engines import Call
from tests.rig import images
from tests.rig.box import Box
from tests.rig.engine import RigEngine

from vaultcube.gpu.telemetry import Telemetry
from vaultcube.results.schema import Result, Verdict

BENCH = [
    "bench",
    "ddp",
    "--preset",
    "smoke",
    "--batch-size",
    "32",
    "--gpus",
    "device=0,1",
    "--telemetry-hz",
    "10",
    "--steps-per-window",
    "1",
    "--json",
]
# Long enough for a fault to be put in and seen.
STEP_S = 0.15
# ... also when what was timed is nearly over.
SLOW_S = 0.6
START_S = 60


class Run:
    """A run that goes on, with GPUs under load.

    Attributes:
        result: once it has ended.
        code: its exit code.
    """

    def __init__(self, vaultcube: Vaultcube, box: Box, *args: str) -> None:
        box.load(0, 1)
        images.pace(box.path, STEP_S)
        self._cube = vaultcube
        self._child = vaultcube.start(*BENCH, *args)
        until(lambda: self.events("window"), START_S, "a window was timed")

    @property
    def folder(self) -> Path:
        (run,) = self._cube.run_ids()
        return self._cube.runs / run

    def events(self, kind: str) -> int:
        """Return how many events of a kind there are."""
        if not self._cube.run_ids():
            return 0
        file = self.folder / "results/events.jsonl"
        return file.read_text().count(f'"kind":"{kind}"') if file.exists() else 0

    def together(self) -> None:
        """Wait until all ranks are timed together."""
        text = self.folder / "results/events.jsonl"
        until(lambda: '"kind":"window","phase":"all"' in text.read_text(), START_S, "all ranks were timed together")

    def end(self) -> Result:
        out, err = self._child.communicate(timeout=120)
        self.code = self._child.returncode
        assert out, err
        return Result.model_validate_json(out)


Start = Callable[..., Run]


@pytest.fixture
def start(vaultcube: Vaultcube, box: Box, rig_both: RigEngine) -> Start:  # noqa: ARG001 - what it runs on
    return lambda *args: Run(vaultcube, box, *args)


def verdicts(result: Result) -> dict[str, Verdict]:
    return {check.name: check.verdict for check in result.checks}


def test_what_the_gpus_did_joins_the_result(start: Start) -> None:
    run = start()
    found = run.end()
    assert run.code == 0
    # Every check may be met, and nothing is proven by a simulator.
    assert (found.simulated, found.verdict) == (True, Verdict.UNAVAILABLE)
    assert {*verdicts(found).values()} == {Verdict.PASS}
    assert found.disturbances == []
    figures = {name: metric.value for name, metric in found.metrics.items()}
    assert figures["gpu_utilisation"] > 0.9
    assert figures["telemetry_coverage_ratio"] > 0.9
    assert 500 < figures["power_mean_watts"] < 1200
    assert figures["pcie_link_ratio"] == 1
    assert figures["throttle_share_ratio"] == 0
    assert (figures["gpus_lost"], figures["xids_hardware"]) == (0, 0)
    with Telemetry.open(run.folder / "telemetry/run.db") as telemetry:
        assert [gpu.uuid for gpu in telemetry.meta.gpus] == [gpu.uuid for gpu in found.gpus]
        assert telemetry.meta.ended_by == "SIGTERM"
    assert "telemetry/run.db" in {artifact.path for artifact in found.artifacts}


@pytest.mark.parametrize(("fault", "words"), [("thermal_slowdown", "thermal slowdown"), ("power_brake", "power brake")])
def test_clocks_that_are_held_back_make_what_was_timed_invalid(start: Start, box: Box, fault: str, words: str) -> None:
    run = start()
    getattr(box, fault)(1)
    found = run.end()
    assert (run.code, found.verdict) == (1, Verdict.INVALID)
    assert verdicts(found)["throughput"] is Verdict.INVALID
    assert any("GPU 1 were held back" in said and words in said for said in found.disturbances)


@pytest.mark.parametrize("xid", [True, False])
def test_a_gpu_that_is_lost_fails_the_run_with_and_without_an_xid(start: Start, box: Box, *, xid: bool) -> None:
    run = start()
    run.together()
    images.pace(box.path, SLOW_S)
    box.lose(1, xid=xid)
    found = run.end()
    assert (run.code, found.run.status, found.verdict) == (1, "failed", Verdict.FAIL)
    assert verdicts(found)["no_gpu_lost"] is Verdict.FAIL
    assert verdicts(found)["no_xid"] is (Verdict.FAIL if xid else Verdict.PASS)


def test_a_gpu_that_belongs_to_nobody_here_may_be_lost(start: Start, box: Box) -> None:
    run = start()
    box.lose(3)
    found = run.end()
    assert (run.code, verdicts(found)["no_gpu_lost"], verdicts(found)["no_xid"]) == (0, Verdict.PASS, Verdict.PASS)


@pytest.mark.parametrize(("code", "verdict"), [(48, Verdict.FAIL), (31, Verdict.PASS), (4242, Verdict.FAIL)])
def test_an_xid_of_the_hardware_fails_the_run_and_one_of_a_program_does_not(
    start: Start, box: Box, code: int, verdict: Verdict
) -> None:
    run = start()
    box.xid(0, code)
    assert verdicts(run.end())["no_xid"] is verdict


def test_a_narrow_link_fails_the_run(start: Start, box: Box) -> None:
    box.pcie_width(0, 4)
    found = start().end()
    assert verdicts(found)["pcie_link"] is Verdict.FAIL
    assert found.metrics["pcie_link_ratio"].value == 0.25


@pytest.fixture
def guest() -> Iterator[int]:
    with subprocess.Popen(["sleep", "300"]) as process:
        yield process.pid
        process.kill()


def test_a_process_that_joins_on_a_gpu_makes_what_was_timed_invalid(start: Start, box: Box, guest: int) -> None:
    run = start()
    box.add_process(1, guest, 2**30)
    found = run.end()
    assert (run.code, found.verdict) == (1, Verdict.INVALID)
    assert f"process {guest} (sleep) computed on GPU 1 at the same time" in found.disturbances


def test_the_runs_own_processes_disturb_nothing(start: Start, box: Box, rig_both: RigEngine) -> None:
    run = start()
    (container,) = rig_both.ask("ps", "--quiet", "--filter", "label=io.vaultcube.run").split()
    pid = int(rig_both.ask("inspect", "--format", "{{.State.Pid}}", container))
    box.add_process(0, pid, 2**30)
    assert run.end().disturbances == []


def test_without_a_recorder_checks_that_need_one_are_unavailable(start: Start) -> None:
    run = start("--recorder", "off")
    found = run.end()
    assert (run.code, found.verdict, found.simulated) == (0, Verdict.UNAVAILABLE, True)
    assert verdicts(found)["gpu_utilisation"] is Verdict.UNAVAILABLE
    assert not (run.folder / "telemetry").exists()


def test_a_recorder_that_is_killed_leaves_what_it_saw_and_no_proof(start: Start) -> None:
    run = start()
    subprocess.run(["pkill", "-KILL", "-f", str(run.folder / "telemetry/run.db")], check=True, timeout=10)
    found = run.end()
    assert verdicts(found)["gpu_utilisation"] is Verdict.UNAVAILABLE
    reasons = {check.name: check.reason for check in found.checks}
    assert reasons["gpu_utilisation"] == "nothing that used all GPUs was timed while telemetry was recorded"
    assert (run.folder / "telemetry/recorder.log").read_text() == "the recorder ended with exit status -9\n"
    assert [file.name for file in (run.folder / "telemetry").iterdir() if file.suffix == ".db"] == ["run.db"]


def test_a_vaultcube_that_is_killed_takes_its_recorder_along_and_down_judges(
    vaultcube: Vaultcube, box: Box, rig_both: RigEngine
) -> None:
    images.pace(box.path, STEP_S)
    call = Call(vaultcube)
    child = subprocess.Popen(call.argv(*BENCH), env=call.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with child:
        until(lambda: list(vaultcube.runs.glob("*/telemetry/run.db")), START_S, "it was recorded")
        until(lambda: rig_both.ask("ps", "--quiet"), START_S, "the container ran")
        child.kill()
    until(lambda: call.processes() == [], 20, "the recorder ended")
    seen = vaultcube("down", "--all")
    assert seen.returncode == 0, seen.stderr
    result: dict[str, Any] = vaultcube.result()
    assert (result["run"]["status"], result["simulated"]) == ("interrupted", True)
    assert result["verdict"] != "PASS"


@pytest.mark.parametrize("way", ["hook", "cdi"])
def test_a_container_records_as_a_process_does(
    request: pytest.FixtureRequest, vaultcube: Vaultcube, box: Box, recorder_image: Path, way: str
) -> None:
    engine: RigEngine = request.getfixturevalue(f"rig_{way}")
    engine.ask("load", "--quiet", "--input", str(recorder_image))
    run = Run(vaultcube, box, "--recorder", "container")
    names = engine.ask("ps", "--format", "{{.Names}}").split()
    assert sorted(name.rsplit("-", 2)[1] for name in names) == ["ddp", "recorder"]
    # It holds nothing: the other two GPUs are free, and the run's own are its workload's.
    held = vaultcube("gpus", "--json").stdout
    assert '"kind": "container"' in held
    assert "recorder" not in held
    box.thermal_slowdown(1)
    found = run.end()
    assert found.verdict is Verdict.INVALID
    assert verdicts(found)["no_gpu_lost"] is Verdict.PASS
    assert any("GPU 1 were held back" in said for said in found.disturbances)
    with Telemetry.open(run.folder / "telemetry/run.db") as telemetry:
        assert {gpu.uuid for gpu in telemetry.meta.gpus} == {gpu.uuid for gpu in found.gpus}
        assert telemetry.meta.kernel_log == "/run/kernel.log"
        assert telemetry.meta.ended_by == "SIGTERM"
    assert sorted(found.provenance.images) == ["ddp", "recorder"]
    assert engine.ask("ps", "--all", "--quiet") == ""
