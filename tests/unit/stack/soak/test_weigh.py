"""Judging the folder of a soak, as compose/stress.yml leaves it."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest
from tests.unit.results.soakruns import Plant, Story, write

from vaultcube.errors import DataUnreadableError, NotFoundError, ProfileError, RunActiveError
from vaultcube.report.terminal import result as told
from vaultcube.results.profile import Profile
from vaultcube.results.schema import Status, Verdict
from vaultcube.stack.soak.weigh import judge_soak

HOUR = 3600
PROFILE = Profile(name="p")


def soak(folder: Path, *plants: Plant) -> Path:
    write(folder, Story(HOUR, plants))
    return folder


def test_a_soak_without_a_fault_passes_and_names_its_cards(tmp_path: Path) -> None:
    found = judge_soak(soak(tmp_path), PROFILE)
    assert (found.verdict, found.run.status, found.device) == (Verdict.PASS, Status.COMPLETED, "cuda")
    assert [gpu.index for gpu in found.gpus] == [0, 1, 2, 3]
    assert all(gpu.pci_bus_id and gpu.power_limit_watts for gpu in found.gpus)
    assert found.metrics["covered_hours"].value == pytest.approx(1)
    assert {artifact.path for artifact in found.artifacts} >= {"gpu-0/events.jsonl", "run.db"}
    # The same files give the same verdict, and judging writes nothing.
    assert judge_soak(tmp_path, PROFILE) == found


def test_a_fault_names_the_card_to_reseat(tmp_path: Path) -> None:
    found = judge_soak(soak(tmp_path, Plant("flip", 2, 600)), PROFILE)
    assert found.verdict is Verdict.FAIL
    assert {check.name for check in found.checks if check.verdict is Verdict.FAIL} <= {"no_mismatch", "digests_agree"}
    assert {one.gpu_index for one in found.evidence} == {2}
    lines = [line for line in told(found, tmp_path, color=False).splitlines() if line.startswith("no_mismatch: GPU 2")]
    assert lines
    assert found.gpus[2].pci_bus_id in lines[0]
    assert " UTC)" in lines[0]


def test_without_a_recorder_the_cards_are_unavailable_and_the_sums_judged(tmp_path: Path) -> None:
    (soak(tmp_path) / "run.db").unlink()
    found = judge_soak(tmp_path, PROFILE)
    assert found.verdict is Verdict.UNAVAILABLE
    verdicts = {check.name: check.verdict for check in found.checks}
    assert verdicts["no_mismatch"] is verdicts["covered"] is Verdict.PASS
    assert verdicts["throttling"] is Verdict.UNAVAILABLE
    assert [gpu.index for gpu in found.gpus] == [0, 1, 2, 3]


def test_a_recording_that_is_none_is_told(tmp_path: Path) -> None:
    (soak(tmp_path) / "run.db").write_text("nothing of the kind")
    reasons = {check.reason for check in judge_soak(tmp_path, PROFILE).checks}
    assert "the recorded telemetry cannot be read" in reasons


def test_a_worker_that_is_at_work_is_not_judged(tmp_path: Path) -> None:
    with (soak(tmp_path) / "gpu-1/events.jsonl").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RunActiveError, match="gpu-1 is at work"):
            judge_soak(tmp_path, PROFILE)


def test_a_worker_that_was_stopped_and_covered_too_little_fails(tmp_path: Path) -> None:
    path = soak(tmp_path) / "gpu-3/events.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]))
    found = judge_soak(tmp_path, PROFILE)
    assert (found.verdict, found.run.status) == (Verdict.FAIL, Status.INTERRUPTED)
    assert [one.gpu_index for one in found.evidence if one.check == "covered"] == [3]


def test_what_is_no_soak_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no worker of a soak ever started"):
        judge_soak(tmp_path, PROFILE)
    with pytest.raises(DataUnreadableError, match="No such file"):
        judge_soak(tmp_path / "none", PROFILE)
    (tmp_path / "gpu-0").mkdir()
    (tmp_path / "gpu-0/events.jsonl").write_text("{}\nrubbish\n")
    with pytest.raises(NotFoundError):
        judge_soak(tmp_path, PROFILE)


def test_a_profile_sets_the_targets_and_says_what_it_cannot(tmp_path: Path) -> None:
    strict = Profile(name="p", targets={"stress": {"power_share": 1}})
    found = judge_soak(soak(tmp_path), strict)
    assert {check.name for check in found.checks if check.verdict is Verdict.FAIL} == {"power"}
    with pytest.raises(ProfileError, match=r"targets\.stress\.heat"):
        judge_soak(tmp_path, Profile(name="p", targets={"stress": {"heat": 1}}))


def test_seconds_that_are_none_do_not_crash_it(tmp_path: Path) -> None:
    path = soak(tmp_path) / "gpu-0/events.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if line["kind"] == "started":
            line["params"]["seconds"] = "a lot"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert judge_soak(tmp_path, PROFILE).params == {"seconds": HOUR}
