"""How a soak stands, by the files that its containers write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.results.soakruns import Plant, Story, write
from tests.unit.support import RUN_ID, box, event, gpu, raw_event, result
from tests.unit.support import plan as any_plan

from vaultcube import workloads
from vaultcube.results.schema import Verdict
from vaultcube.results.soakstatus import SoakStatus
from vaultcube.results.store import RunDirectory
from vaultcube.stack.soak.run import describe
from vaultcube.stack.soak.state import SoakState, WorkerLog

CHECKED: dict[str, Any] = {
    "phase": "fp32",
    "iterations": 3,
    "work": 10,
    "unit": "flop",
    "key": "fp32-8-0",
    "digest": "0" * 16,
}


@pytest.fixture
def state(tmp_path: Path) -> SoakState:
    (tmp_path / RUN_ID / "results").mkdir(parents=True)
    plan = any_plan(box(2), workload=workloads.load("stress"), given={"hours": 1})
    return SoakState(plan, RunDirectory(tmp_path / RUN_ID))


def say(state: SoakState, worker: str, *events: dict[str, Any]) -> None:
    file = state.folder / worker / "events.jsonl"
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as lines:
        lines.writelines(json.dumps(one) + "\n" for one in events)


def started(seq: int = 0) -> dict[str, Any]:
    fields: dict[str, Any] = {"program": "stress", "params": {}, "device": "cuda", "python": "3.11.2", "world_size": 1}
    return raw_event("started", rank=-1, seq=seq, **fields)


def checked(start: float, end: float, wrong: int = 0, seq: int = 0) -> dict[str, Any]:
    return raw_event("checked", seq=seq, from_mono=start, until_mono=end, mismatches=wrong, **CHECKED)


def standing(found: SoakStatus) -> list[str]:
    return [one.standing for one in found.workers]


def test_before_anything_was_written_it_starts(state: SoakState) -> None:
    found = state.status()
    assert standing(found) == ["starting", "starting"]
    assert (found.covered_s, found.wanted_s, found.left_s) == (0, 3600, None)
    assert not state.over


def test_what_is_covered_is_that_of_the_gpu_that_has_least(state: SoakState) -> None:
    say(state, "gpu-0", started(), checked(10, 15), checked(15, 20, seq=1))
    say(state, "gpu-1", started(), checked(10, 13, wrong=2))
    found = state.status()
    assert [one.covered_s for one in found.workers] == [10, 3]
    assert [one.mismatches for one in found.workers] == [0, 2]
    assert (found.covered_s, standing(found), found.left_s) == (3, ["loading", "loading"], 3597)
    assert found.workers[0].phase == "fp32"
    assert found.workers[0].gpu_uuid == gpu(0).uuid


def test_it_reads_on_from_where_it_was(state: SoakState) -> None:
    say(state, "gpu-0", started())
    assert [one.kind for _, one in state.read()] == ["started"]
    say(state, "gpu-0", checked(1, 2))
    assert [one.kind for _, one in state.read()] == ["checked"]
    assert list(state.read()) == []


def test_a_worker_that_comes_back_goes_on(state: SoakState) -> None:
    said: dict[str, Any] = {"code": "hang", "message": "it\x1b[2J hung", "next_step": "", "exit_code": 70}
    say(state, "gpu-0", started(), checked(1, 5), raw_event("error", seq=1, **said))
    found = state.status().workers[0]
    assert (found.standing, found.covered_s) == ("failed", 4)
    assert "\x1b" not in found.said
    say(state, "gpu-0", started(1), checked(9, 10))
    found = state.status().workers[0]
    assert (found.standing, found.covered_s, found.starts, found.said) == ("loading", 5, 2, "")


@pytest.mark.parametrize("code", ["over-temperature", "gpu-lost", "other-gpu-stopped", "told-to-stop", "interrupted"])
def test_one_that_stopped_is_over_and_says_why(state: SoakState, code: str) -> None:
    said: dict[str, Any] = {"code": code, "message": "too hot", "next_step": "", "exit_code": 0}
    # Its worker reports once more after its launcher's word.
    say(state, "gpu-0", started(), raw_event("error", seq=0, **said), checked(1, 2, seq=1))
    say(state, "gpu-1", started(), raw_event("finished", seq=0, elapsed_s=3600.0, covered_s=3600.0))
    found = state.status()
    assert standing(found) == ["stopped", "done"]
    assert found.workers[0].said == "too hot"
    assert state.over


@pytest.mark.parametrize("exit_code", [64, 69])
def test_one_that_cannot_run_is_over(state: SoakState, exit_code: int) -> None:
    said: dict[str, Any] = {"code": "no-gpu", "message": "no GPU can be seen", "next_step": "", "exit_code": exit_code}
    for worker in ("gpu-0", "gpu-1"):
        say(state, worker, raw_event("error", rank=-1, **said))
    assert standing(state.status()) == ["refused", "refused"]
    assert state.over


def test_temperatures_are_the_recorder_s(state: SoakState) -> None:
    beat = {
        "schema": 1,
        "gpus": [{"uuid": gpu(0).uuid, "temperature_c": 71}, {"uuid": gpu(1).uuid, "temperature_c": None}],
    }
    (state.folder / "recorder.json").write_text(json.dumps(beat))
    assert [one.temperature_celsius for one in state.status().workers] == [71, None]
    for nonsense in ("", "[]", '{"gpus": 3}', '{"gpus": [1]}', "\xff"):
        (state.folder / "recorder.json").write_text(nonsense)
        assert [one.temperature_celsius for one in state.status().workers] == [None, None]


def test_rungs_and_the_verdict_are_those_of_its_own_judge(state: SoakState) -> None:
    (state.folder / "rung-6h.json").write_text(result(verdict=Verdict.FAIL).to_json())
    (state.folder / "rung-0.5h.json").write_text(result(verdict=Verdict.PASS).to_json())
    (state.folder / "rung-1h.json").write_text("{")
    (state.folder / "result.json").write_text(result(verdict=Verdict.PASS).to_json())
    found = state.status()
    assert [(rung.hours, rung.verdict) for rung in found.rungs] == [(0.5, Verdict.PASS), (6, Verdict.FAIL)]
    # It may be an old one as long as they work.
    assert found.verdict is None
    for worker in ("gpu-0", "gpu-1"):
        say(state, worker, started(), raw_event("finished", elapsed_s=1.0, covered_s=3600.0))
    assert state.status().verdict is Verdict.PASS


def test_a_whole_soak_adds_up(tmp_path: Path) -> None:
    write(tmp_path / RUN_ID / "results", Story(3600, (Plant("restart", 1, 600, 30),)))
    state = SoakState(any_plan(workload=workloads.load("stress"), given={"hours": 1}), RunDirectory(tmp_path / RUN_ID))
    found = state.status()
    assert standing(found) == ["done"] * 4
    assert [one.starts for one in found.workers] == [1, 2, 1, 1]
    assert found.covered_s == pytest.approx(3600, abs=1)
    assert found.left_s == 0


def test_what_is_worth_a_line() -> None:
    worker = WorkerLog("gpu-2", None, Path("none"), covered_s=7200, starts=2)
    again = event("started", rank=-1, program="s", params={}, device="cuda", python="3", world_size=1)
    assert describe(worker, again) == "gpu-2: started again, 2 h are covered"
    bits: dict[str, Any] = {"iteration": 1, "elements": 3, "first": [0], "expected": "0x1", "found": "0x2"}
    assert describe(worker, event("mismatch", phase="bf16", **bits)) == "gpu-2: 3 wrong element(s) in bf16"
    assert describe(worker, event("checked", from_mono=1, until_mono=2, mismatches=0, **CHECKED)) is None
