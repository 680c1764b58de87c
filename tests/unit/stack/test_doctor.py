"""The whole of `doctor` with docker replayed: what it runs, what it refuses, what it leaves to the checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.gpu.preflight.machines import UUIDS, bare, box, nvml, one_of, reading
from tests.unit.replay import Recording
from tests.unit.support import DATA, plan

from vaultcube.errors import GpuSelectionError, PreflightError, ProfileError, UsageError
from vaultcube.gpu.pinning import PinningFacts
from vaultcube.gpu.preflight import CODES
from vaultcube.gpu.preflight.facts import Asked, CdiSpecs, Facts, Unseen
from vaultcube.gpu.selection import GpuRequest, parse_gpus
from vaultcube.results.doctor import DoctorReport, Finding, FindingStatus
from vaultcube.stack import doctor
from vaultcube.stack.docker import Docker
from vaultcube.stack.doctor import ALL_CODES, DoctorRequest, access, conclude, preflight, run_doctor, select

RECORDED = DATA / "preflight"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what `look` is asked for, and let it see the machine put in under `facts`."""
    seen: dict[str, Any] = {"facts": box()}

    def look(fields: frozenset[str], asked: Asked, **_: object) -> Facts:
        seen["fields"], seen["asked"] = fields, asked
        facts: Facts = seen["facts"]
        return Facts(asked, **{name: getattr(facts, name) for name in fields})

    monkeypatch.setattr(doctor, "look", look)
    return seen


def run(tmp_path: Path, **wanted: Any) -> DoctorReport:
    return run_doctor(DoctorRequest(**wanted), results_root=tmp_path, docker=Docker())


def replay(recording: Recording, listed: tuple[str, ...] = UUIDS) -> None:
    recording.says("run", "".join(f"GPU {at}: x (UUID: {uuid})\n" for at, uuid in enumerate(listed)))
    recording.says("rm")


def test_a_healthy_box(machine: dict[str, Any], recording: Recording, tmp_path: Path) -> None:
    replay(recording)
    found = run(tmp_path)
    assert machine["asked"].build_bytes > 10**9
    assert [one.code for one in found.checks] == list(ALL_CODES)
    assert (found.engine, found.driver, found.flavour) == ("28.3.3", "580.95.05", "cu128")
    assert found.gpus == list(UUIDS)
    assert found.failed == []
    conclude(found)
    (started,) = [call for call in recording.calls if call.startswith("run")]
    assert all(f"--device nvidia.com/gpu={uuid}" in started for uuid in UUIDS)


def test_without_proof_no_container_is_started(machine: dict[str, Any], recording: Recording, tmp_path: Path) -> None:
    found = run(tmp_path, proof=False)
    assert [one.code for one in found.checks] == list(CODES)
    assert "memory" in machine["fields"]
    assert recording.calls == []


def test_a_named_check_looks_at_nothing_else(machine: dict[str, Any], recording: Recording, tmp_path: Path) -> None:
    found = run(tmp_path, codes=("clock", "ports"))
    assert [one.code for one in found.checks] == ["ports", "clock"]
    assert machine["fields"] == {"synchronised", "ports"}
    assert found.gpus == []
    replay(recording)
    assert [one.code for one in run(tmp_path, codes=("access",)).checks] == ["access"]
    assert "memory" not in machine["fields"]


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no check 'drivers'") as seen:
        run(tmp_path, codes=("driver", "drivers"))
    assert "gpu-visibility" in seen.value.next_step
    with pytest.raises(ProfileError):
        run(tmp_path, profile="nonsuch")


def test_gpus_of_no_such_name_are_refused(machine: dict[str, Any], tmp_path: Path) -> None:
    assert machine
    with pytest.raises(GpuSelectionError, match="there is no GPU 9"):
        run(tmp_path, codes=("pcie-link",), request=parse_gpus("device=9"))


def test_a_machine_without_gpu_is_fit_for_the_cpu(
    machine: dict[str, Any], recording: Recording, tmp_path: Path
) -> None:
    machine["facts"] = bare()
    found = run(tmp_path)
    conclude(found)
    assert found.flavour == "cpu"
    assert found.checks[-1].status is FindingStatus.UNAVAILABLE
    assert recording.calls == []


def test_a_fault_ends_with_a_list_of_what_failed(machine: dict[str, Any], recording: Recording, tmp_path: Path) -> None:
    replay(recording, UUIDS[:3])
    machine["facts"] = box(nvml=one_of(nvml(), 1, reading(pcie_width=4)))
    with pytest.raises(PreflightError, match="not fit: pcie-link, access") as seen:
        conclude(run(tmp_path))
    assert seen.value.exit_code == 3
    assert seen.value.in_result


# --- choosing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "uuids"),
    [(None, None), ("all", UUIDS), ("2", UUIDS[:2]), ("device=3,0", (UUIDS[3], UUIDS[0])), (UUIDS[2], (UUIDS[2],))],
)
def test_gpus_are_chosen_as_a_run_does(gpus: str | None, uuids: tuple[str, ...] | None) -> None:
    assert select(box(asked=Asked(parse_gpus(gpus)))).asked.uuids == uuids


def test_a_gpu_cut_up_is_chosen_all_the_same_for_a_check_to_see() -> None:
    cut = box(asked=Asked(parse_gpus("device=1")), nvml=one_of(nvml(mig=False), 1, mig=True))
    assert select(cut).asked.uuids == (UUIDS[1],)


@pytest.mark.parametrize(("gpus", "facts"), [("9", box()), ("device=0", bare()), ("all", bare())])
def test_too_few_gpus_are_a_finding(gpus: str, facts: Facts) -> None:
    asked = Asked(parse_gpus(gpus))
    found = select(Facts(asked, nvml=facts.nvml, pci=facts.pci)).asked
    assert found.short
    assert found.uuids is None


def test_nothing_is_chosen_where_gpus_are_not_looked_at() -> None:
    facts = Facts(Asked(parse_gpus("device=9")))
    assert select(facts) == facts


# --- the proof -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "said", "step"),
    [
        (box(engine=Unseen("dead", "engine-unreachable")), "no engine answers", None),
        (box(offers=PinningFacts(None, hook=False)), "cannot be pinned", None),
        (box(images=frozenset()), "no image on this machine", "vaultcube images build "),
        (bare(), "no NVIDIA GPU", None),
    ],
)
def test_where_nothing_can_be_proven(recording: Recording, facts: Facts, said: str, step: str | None) -> None:
    one = access(facts, Docker())
    assert one.status is FindingStatus.UNAVAILABLE
    assert said in one.seen
    assert (one.next_step or "").startswith(step or "")
    assert bool(one.next_step) == bool(step)
    assert recording.calls == []


def test_an_engine_that_dies_over_the_proof_is_no_crash(recording: Recording) -> None:
    recording.says("", stderr="Cannot connect to the Docker daemon at unix:///x.", status=1)
    assert access(box(), Docker()).status is FindingStatus.UNAVAILABLE


# --- before a run --------------------------------------------------------------------------------------------


def test_a_run_on_the_cpu_is_not_looked_at(recording: Recording) -> None:
    assert preflight(plan(gpus="none"), Docker()) == []
    assert recording.calls == []


def test_a_run_on_good_gpus_goes_on(machine: dict[str, Any]) -> None:
    assert preflight(plan(), Docker()) == []
    assert machine["asked"].uuids == UUIDS
    assert machine["asked"].starting
    # What a run does not need is not looked at.
    assert machine["fields"].isdisjoint({"holders", "synchronised", "results_disk", "images"})


def test_what_cannot_work_is_refused(machine: dict[str, Any]) -> None:
    machine["facts"] = box(nvml=nvml(driver="565.57.01"), cdi=CdiSpecs())
    with pytest.raises(PreflightError, match=r"driver-generation: driver 565\.57\.01 is older") as seen:
        preflight(plan(), Docker())
    assert "580" in seen.value.next_step


def test_several_faults_are_counted(machine: dict[str, Any]) -> None:
    machine["facts"] = box(nvml=nvml(driver="470.1"))
    with pytest.raises(PreflightError, match=r"cdi-devices: .* \(and 2 more, see vaultcube doctor\)"):
        preflight(plan(), Docker())


def test_what_only_disturbs_is_a_note(machine: dict[str, Any]) -> None:
    machine["facts"] = box(nvml=one_of(nvml(persistence=False), 1, reading(pcie_width=4)))
    assert preflight(plan(), Docker()) == ["pcie-link: GPU 1: x4 of x16"]


def test_reports_say_which_checks_failed() -> None:
    failed = Finding(code="driver", status=FindingStatus.FAIL, seen="x", next_step="y")
    good = Finding(code="clock", status=FindingStatus.PASS, seen="x")
    report = DoctorReport(
        vaultcube="1",
        simulated=False,
        engine=None,
        driver=None,
        flavour=None,
        profile="p",
        gpus=[],
        checks=[good, failed],
    )
    assert report.failed == [failed]
    assert '"schema": "vaultcube.doctor/1"' in report.to_json()
    assert GpuRequest("auto") == DoctorRequest().request
