from __future__ import annotations

import hashlib
import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from tests.unit.support import DATA, NOON, RUN_ID, box, plan

from vaultcube.errors import RunTimeoutError
from vaultcube.gpu.leases import Holder
from vaultcube.results.schema import Provenance, Result, Status, Verdict
from vaultcube.results.store import PLAN, RunDirectory, RunStore
from vaultcube.stack.collect import RESOLVED, build_result, compose_sha256, read_events, strayed
from vaultcube.stack.ending import read_plan
from vaultcube.stack.outcome import Outcome
from vaultcube.stack.plan import Plan

WHERE = Provenance(vaultcube="0.1.0", kernel="Linux 6.8.0", os="Ubuntu 24.04", cpu="Threadripper PRO")
LATER = NOON + timedelta(seconds=95)


def recorded(root: Path, case: str, found: Plan | None = None) -> RunDirectory:
    """Return a run directory as such a run leaves it."""
    directory = RunStore(root).create(RUN_ID)
    directory.write(PLAN, (found or plan(given={"windows": 5})).to_json())
    directory.write(RESOLVED, '{"services": {}}')
    shutil.copy(DATA / "runs" / case / "events.jsonl", directory.events)
    return directory


def collect(directory: RunDirectory, outcome: Outcome | None = None) -> Result:
    outcome = outcome or Outcome(status=Status.COMPLETED)
    return build_result(read_plan(directory), directory, read_events(directory), outcome, WHERE, LATER)


def test_a_good_run_becomes_a_result_that_is_complete_in_itself(tmp_path: Path) -> None:
    found = collect(recorded(tmp_path, "good"))
    assert (found.run.id, found.run.status, found.run.error) == (RUN_ID, Status.COMPLETED, None)
    assert (found.run.started, found.run.finished) == (NOON, LATER)
    assert found.verdict is Verdict.UNAVAILABLE
    assert [gpu.uuid for gpu in found.gpus] == [gpu.uuid for gpu in box().gpus]
    assert found.params["batch_size"] == 256
    assert found.provenance.frameworks["torch"] == "2.8.0"
    assert {one.path for one in found.artifacts} == {"plan.json", "compose.resolved.json", "results/events.jsonl"}
    assert Result.model_validate_json(found.to_json()) == found


def test_a_copied_run_is_judged_the_same_elsewhere(tmp_path: Path) -> None:
    here = recorded(tmp_path / "here", "good")
    shutil.copytree(here.path, tmp_path / "elsewhere" / RUN_ID)
    assert collect(RunDirectory(tmp_path / "elsewhere" / RUN_ID)).to_json() == collect(here).to_json()


def test_what_the_orchestrator_saw_comes_before_what_the_events_say(tmp_path: Path) -> None:
    seen = Outcome(status=Status.COMPLETED, disturbances=["clocks throttled"])
    found = collect(recorded(tmp_path, "restless"), seen)
    assert found.disturbances[0] == "clocks throttled"
    assert len(found.disturbances) == 2
    assert {check.verdict for check in found.checks[:2]} == {Verdict.INVALID}
    assert found.checks[0].reason == "clocks throttled"


def test_figures_of_a_shared_gpu_are_not_judged(tmp_path: Path) -> None:
    foo = Holder("container", "foo", "", None, "container foo")
    shared = plan(given={"windows": 5}, held={box().gpus[1].uuid: (foo,)}, share=True)
    found = collect(recorded(tmp_path, "good", shared))
    assert found.disturbances == ["GPU 1 was shared with container foo"]
    assert found.checks[1].name == "throughput"
    assert (found.checks[1].verdict, found.checks[1].reason) == (Verdict.INVALID, found.disturbances[0])


def test_the_error_is_kept_as_the_user_saw_it(tmp_path: Path) -> None:
    found = collect(recorded(tmp_path, "truncated"), Outcome(status=Status.TIMEOUT, error=RunTimeoutError("too long")))
    assert found.run.status is Status.TIMEOUT
    assert found.run.error is not None
    assert (found.run.error.code, found.run.error.message) == ("timeout", "too long")
    assert found.run.error.next_step == RunTimeoutError.next_step


def test_a_run_that_never_spoke_has_a_result_too(tmp_path: Path) -> None:
    directory = recorded(tmp_path, "good")
    directory.events.unlink()
    found = collect(directory, Outcome(status=Status.FAILED))
    assert {check.verdict for check in found.checks} == {Verdict.UNAVAILABLE}
    assert found.metrics == {}
    assert found.provenance.frameworks == {}


def test_a_clock_that_was_set_back_does_not_end_a_run_before_it_began(tmp_path: Path) -> None:
    directory = recorded(tmp_path, "good")
    early = NOON - timedelta(hours=1)
    log, outcome = read_events(directory), Outcome(status=Status.COMPLETED)
    assert build_result(read_plan(directory), directory, log, outcome, WHERE, early).run.finished == NOON


def test_a_run_on_the_cpu_has_no_verdict_on_gpus(tmp_path: Path) -> None:
    found = collect(recorded(tmp_path, "good", plan(box(0), ranks=4, given={"windows": 5, "batch_size": 256})))
    assert (found.device, found.gpus) == ("cpu", [])
    assert [check.verdict for check in found.checks] == [Verdict.UNAVAILABLE] * 6 + [Verdict.PASS] * 3
    # The figures are told all the same.
    assert found.checks[0].measured is not None


def test_simulated_gpus_never_pass(tmp_path: Path) -> None:
    found = collect(recorded(tmp_path, "good", plan(box(simulated=True), given={"windows": 5})))
    assert found.simulated
    assert found.verdict is not Verdict.PASS


@pytest.mark.parametrize("status", [Status.FAILED, Status.TIMEOUT, Status.INTERRUPTED])
def test_a_run_that_did_not_complete_never_passes(tmp_path: Path, status: Status) -> None:
    directory = recorded(tmp_path, "good")
    found = collect(directory, Outcome(status=status, error=RunTimeoutError("x")))
    assert found.verdict is not Verdict.PASS


def test_the_compose_file_is_named_by_its_digest(tmp_path: Path) -> None:
    directory = recorded(tmp_path, "good")
    assert compose_sha256(directory) == hashlib.sha256(b'{"services": {}}').hexdigest()
    (directory.path / RESOLVED).unlink()
    assert compose_sha256(directory) is None


def test_no_events_file_is_no_events(tmp_path: Path) -> None:
    directory = RunStore(tmp_path).create(RUN_ID)
    assert (read_events(directory).events, read_events(directory).garbled) == ([], [])
    (directory.path / "results" / "events.jsonl").mkdir()
    assert read_events(directory).events == []


def test_a_workload_that_is_not_the_planned_one_gets_no_verdict_on_its_timings(tmp_path: Path) -> None:
    directory = recorded(tmp_path, "good", plan(given={"windows": 5, "precision": "fp32"}))
    lines = directory.events.read_text().splitlines()
    started = json.loads(lines[0])
    started |= {"device": "cpu", "params": {**started["params"], "precision": "bf16", "windows": 5}}
    directory.events.write_text("\n".join([json.dumps(started), *lines[1:]]) + "\n")
    found = collect(directory)
    assert found.disturbances == [
        "the workload ran on cpu, and cuda was planned",
        "the workload ran with precision bf16, and fp32 was planned",
    ]
    assert {check.verdict for check in found.checks[:2]} == {Verdict.INVALID}


def test_a_list_that_went_through_json_is_the_same_list(tmp_path: Path) -> None:
    directory = recorded(tmp_path, "good", plan(given={"windows": 5}))
    asked = read_plan(directory).model_copy(update={"params": {"flags": ("--x", "1")}})
    (started, *_) = read_events(directory).events
    same = started.model_copy(update={"params": {"flags": ["--x", "1"]}})
    other = started.model_copy(update={"params": {"flags": ["--x"]}})
    assert strayed(asked, [same]) == []
    assert len(strayed(asked, [other])) == 1
