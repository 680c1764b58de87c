"""A soak that vaultcube started, judged by its plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.results.soakruns import Plant, Story, write
from tests.unit.support import RUN_ID, box, raw_event
from tests.unit.support import plan as any_plan

from vaultcube import workloads
from vaultcube.errors import EngineLostError, InterruptedRunError, RunTimeoutError, VaultCubeError
from vaultcube.results.schema import Result, Status, Verdict
from vaultcube.results.store import RunDirectory
from vaultcube.stack.docker import Exit
from vaultcube.stack.plan import Plan
from vaultcube.stack.soak.end import soak_result


def plan(count: int = 4, **asked: Any) -> Plan:
    given = {"hours": 1, **asked.pop("given", {})}
    return any_plan(box(count, **asked), workload=workloads.load("stress"), given=given)


def exits(one: Plan, **changes: dict[str, Any]) -> list[Exit]:
    found = []
    for worker in one.workers:
        usual = {"running": False, "exit_code": 0, "oom_killed": False, "error": "", "image_id": "sha256:1"}
        found.append(Exit(id=worker.service, service=worker.service, **{**usual, **changes.get(worker.service, {})}))
    return found


def judged(
    root: Path,
    *plants: Plant,
    one: Plan | None = None,
    cause: VaultCubeError | None = None,
    changes: dict[str, dict[str, Any]] | None = None,
) -> Result:
    directory = RunDirectory(root / RUN_ID)
    (directory.path / "results").mkdir(parents=True)
    write(directory.path / "results", Story(3600, plants))
    one = one or plan()
    return soak_result(one, directory, exits(one, **(changes or {})), cause)


def test_a_day_without_a_fault(tmp_path: Path) -> None:
    found = judged(tmp_path)
    assert (found.verdict, found.run.status, found.run.error) == (Verdict.PASS, Status.COMPLETED, None)
    assert (found.run.id, found.run.workload, found.params["hours"]) == (RUN_ID, "stress", 1)
    assert found.provenance.images["gpu-3"] == "sha256:1"
    assert {artifact.path for artifact in found.artifacts} >= {"results/gpu-0/events.jsonl", "results/run.db"}


def test_a_simulated_one_never_passes(tmp_path: Path) -> None:
    assert judged(tmp_path, one=plan(simulated=True)).verdict is Verdict.UNAVAILABLE


def test_fewer_hours_than_were_planned_are_not_covered(tmp_path: Path) -> None:
    found = judged(tmp_path, one=plan(given={"hours": 2}))
    assert {check.name for check in found.checks if check.verdict is Verdict.FAIL} == {"covered"}


def test_a_gpu_whose_worker_never_began_counts(tmp_path: Path) -> None:
    found = judged(tmp_path, one=plan(5))
    assert found.verdict is Verdict.FAIL
    assert "GPU 4 covered 0 h of 1 h; its worker never started" in {one.text for one in found.evidence}
    assert (found.run.status, found.run.error and found.run.error.code) == (Status.FAILED, "container-killed")


def test_a_card_is_named_as_the_machine_counts_it_whatever_the_recorder_was_given(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / RUN_ID)
    write(directory.path / "results", Story(3600, (Plant("flip", 1, 600),), gpus=2))
    # The same two cards, which are the machine's numbers 2 and 3.
    one = plan(2)
    moved = [gpu.model_copy(update={"index": gpu.index + 2}) for gpu in one.gpus]
    found = soak_result(one.model_copy(update={"gpus": tuple(moved)}), directory, exits(one), None)
    assert {evidence.gpu_index for evidence in found.evidence} == {3}
    assert all(evidence.text.startswith("GPU 3 ") for evidence in found.evidence)


def test_a_worker_that_failed_is_named(tmp_path: Path) -> None:
    found = judged(tmp_path, Plant("dead", 2, 600), changes={"gpu-2": {"exit_code": 70}})
    assert found.run.status is Status.FAILED
    assert found.verdict is Verdict.FAIL
    assert found.run.error is not None


def test_a_worker_killed_for_memory_is_told_so(tmp_path: Path) -> None:
    found = judged(tmp_path, Plant("dead", 1, 600), changes={"gpu-1": {"exit_code": 137, "oom_killed": True}})
    assert found.run.error is not None
    assert found.run.error.code == "container-out-of-memory"


@pytest.mark.parametrize(
    ("cause", "status"),
    [
        (InterruptedRunError("stopped by SIGINT"), Status.INTERRUPTED),
        (RunTimeoutError("late"), Status.TIMEOUT),
        (EngineLostError("gone"), Status.FAILED),
    ],
)
def test_what_ended_it_before_its_time_is_kept(tmp_path: Path, cause: VaultCubeError, status: Status) -> None:
    found = judged(tmp_path, cause=cause)
    assert found.run.error is not None
    assert (found.run.status, found.run.error.code) == (status, cause.code)
    # The very one: others may be there.
    assert (f"--resume --name {RUN_ID}" in found.run.error.next_step) == (status is Status.INTERRUPTED)
    assert found.verdict is Verdict.UNAVAILABLE


def test_one_that_was_stopped_by_hand_is_interrupted(tmp_path: Path) -> None:
    found = judged(tmp_path, Plant("dead", 0, 600), changes={"gpu-0": {"exit_code": 75, "stopped": True}})
    assert found.run.status is Status.INTERRUPTED


@pytest.mark.parametrize(("exit_code", "code"), [(64, "bad-parameter"), (69, "flavour-unsupported")])
def test_what_a_worker_refuses_is_the_reason(tmp_path: Path, exit_code: int, code: str) -> None:
    directory = RunDirectory(tmp_path / RUN_ID)
    one = plan(2)
    for worker in ("gpu-0", "gpu-1"):
        place = directory.path / "results" / worker
        place.mkdir(parents=True)
        said: dict[str, Any] = {"code": "x", "message": "not here", "next_step": "", "exit_code": exit_code}
        (place / "events.jsonl").write_text(json.dumps(raw_event("error", rank=-1, **said)) + "\n")
    # It was between two tries.
    again = {"exit_code": 0, "stopped": True}
    found = soak_result(one, directory, exits(one, **{"gpu-0": again, "gpu-1": again}), None)
    assert (found.run.status, found.run.error and found.run.error.code) == (Status.FAILED, code)


def test_a_stop_for_heat_is_told_though_a_report_came_after_it(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / RUN_ID)
    write(directory.path / "results", Story(3600, (Plant("dead", 2, 600),)))
    file = directory.path / "results/gpu-2/events.jsonl"
    lines = [line for line in file.read_text().splitlines() if '"error"' not in line]
    said: dict[str, Any] = {"code": "over-temperature", "message": "too hot", "next_step": "", "exit_code": 0}
    lines.insert(-1, json.dumps(raw_event("error", rank=-1, **said)))
    file.write_text("\n".join(lines) + "\n")
    one = plan()
    # Also when somebody stopped another one afterwards.
    for stopped in ({}, {"gpu-0": {"exit_code": 75, "stopped": True}}):
        found = soak_result(one, directory, exits(one, **stopped), None)
        assert (found.run.status, found.run.error and found.run.error.message) == (Status.FAILED, "gpu-2: too hot")


def test_nothing_at_all_was_written(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / RUN_ID)
    (directory.path / "results").mkdir(parents=True)
    found = soak_result(plan(), directory, [], InterruptedRunError("stopped by SIGINT"))
    assert (found.run.status, found.verdict) == (Status.INTERRUPTED, Verdict.UNAVAILABLE)
    assert all(check.verdict is Verdict.UNAVAILABLE for check in found.checks)
