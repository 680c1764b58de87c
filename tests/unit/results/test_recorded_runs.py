"""Recorded runs of 4x RTX 5090, good and spoilt: what the judge says of each."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from types import ModuleType

import pytest
from tests.unit.support import DATA

from vaultcube import workloads
from vaultcube.results.events import EventLog
from vaultcube.results.judge import Measurement, judge
from vaultcube.results.schema import Check, Status, Verdict

P, F, U, I = Verdict.PASS, Verdict.FAIL, Verdict.UNAVAILABLE, Verdict.INVALID  # noqa: E741 - they stand in a table
NAMES = ["scaling_efficiency", "throughput", "no_rank_lost", "allreduce_correct", "loss_finite"]
# Nobody recorded the GPUs of these runs.
UNSEEN = ["gpu_utilisation", "pcie_link", "no_gpu_lost", "no_xid"]


@dataclass
class Case:
    """How a run ended, what its checks by NAMES come to, and words that a disturbance has."""

    verdicts: list[Verdict]
    overall: Verdict
    said: list[str] = field(default_factory=list)
    status: Status = Status.COMPLETED
    given: list[str] = field(default_factory=list)


CASES = {
    # Utilisation needs telemetry: without it, the best run is not proven.
    "good": Case([P, P, P, P, P], U),
    "slow": Case([F, F, P, P, P], F),
    "throttled": Case([I, I, P, P, P], I, ["clocks throttled"], given=["clocks throttled (mask 0x8) on GPU 2"]),
    "truncated": Case([U, U, F, P, U], F, ["cannot be read (line 81)"], Status.FAILED),
    # One of the lines was a window of a rank alone.
    "garbled": Case([U, I, P, P, P], I, ["3 event line(s) cannot be read"]),
    "wrong-allreduce": Case([U, U, F, F, U], F, [], Status.FAILED),
    "lost-rank": Case([U, U, F, P, U], F, [], Status.FAILED),
    "unfinished-rank": Case([I, I, F, P, U], F, ["rank 7 reported"], Status.FAILED),
    "loss-not-finite": Case([P, P, P, P, F], F),
    "restless": Case([I, I, P, P, P], I, ["all ranks together was not flat"]),
    "contradictory-samples": Case([I, I, P, P, P], I, ["rank 2: window 1 counts 9999 samples"]),
    "contradictory-time": Case([I, I, P, P, P], I, ["rank 1: window 4 claims 600.000 s"]),
    "contradictory-numbering": Case([I, I, P, P, P], I, ["numbered [0, 1, 2, 2, 4]"]),
    "contradictory-restart": Case([I, I, P, P, P], I, ["started more than once"]),
    "contradictory-ranks": Case([I, I, P, P, P], I, ["2 ranks started and 4 were planned"]),
}


def judged(name: str, *, simulated: bool = False) -> tuple[list[Check], Verdict, Measurement]:
    case = CASES[name]
    log = EventLog()
    log.feed((DATA / "runs" / name / "events.jsonl").read_bytes())
    log.close()
    ddp = workloads.load("ddp")
    params = ddp.resolve("acceptance", {"windows": 5}, "cuda")
    found = ddp.measure(log.events, log.garbled, params, world_size=4, status=case.status)
    found = Measurement(found.metrics, found.missing, [*case.given, *found.disturbances])
    checks, verdict = judge(ddp.checks(ddp.targets_type()), found, device="cuda", simulated=simulated)
    return checks, verdict, found


@pytest.mark.parametrize("name", CASES)
def test_the_judge_of_a_recorded_run(name: str) -> None:
    checks, verdict, found = judged(name)
    assert {check.name for check in checks} == {*NAMES, *UNSEEN}
    by_name = {check.name: check.verdict for check in checks}
    assert [by_name[check] for check in NAMES] == CASES[name].verdicts
    assert {by_name[check] for check in UNSEEN} == {U}
    assert verdict is CASES[name].overall
    for words in CASES[name].said:
        assert any(words in text for text in found.disturbances), found.disturbances
    if not CASES[name].said:
        assert found.disturbances == []


@pytest.mark.parametrize("name", CASES)
def test_the_same_events_judged_twice_give_the_same_bytes(name: str) -> None:
    first, again = (b"".join(check.model_dump_json().encode() for check in judged(name)[0]) for _ in range(2))
    assert first == again


def test_a_slow_run_keeps_its_figures() -> None:
    checks = {check.name: check for check in judged("slow")[0]}
    assert checks["scaling_efficiency"].measured == pytest.approx(0.70, abs=0.01)
    assert checks["throughput"].measured == pytest.approx(84, abs=1)
    assert checks["throughput"].reason.startswith("the lower bound 8")


def test_an_invalid_run_keeps_its_figures_too() -> None:
    throttled = {check.name: check for check in judged("throttled")[0]}
    assert throttled["scaling_efficiency"].measured == pytest.approx(0.95 * 0.67, abs=0.01)
    assert throttled["scaling_efficiency"].reason == "clocks throttled (mask 0x8) on GPU 2"


@pytest.mark.parametrize("name", CASES)
def test_no_recorded_run_passes_when_its_gpus_are_simulated(name: str) -> None:
    assert judged(name, simulated=True)[1] is not Verdict.PASS


def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_runs", DATA / "runs" / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_recordings_are_what_their_maker_makes() -> None:
    cases = maker().CASES
    assert (
        set(cases)
        == set(CASES)
        == {folder.name for folder in (DATA / "runs").iterdir() if folder.is_dir()} - {"__pycache__"}
    )
    for name, make in cases.items():
        assert (DATA / "runs" / name / "events.jsonl").read_bytes() == make(), name
