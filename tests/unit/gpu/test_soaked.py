"""The judge of soaks, on whole soaks as workers and recorder leave them behind, with planted faults."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from tests.unit.results.soakruns import Plant, Story, cards, read, wall, write

from vaultcube.gpu.soaked import NAMES, observe_soak, pieces, soak_checks
from vaultcube.gpu.telemetry import Telemetry
from vaultcube.results import soak as events_only
from vaultcube.results.judge import Measurement, judge
from vaultcube.results.lives import Load, Worker
from vaultcube.results.schema import Check, Evidence, Gpu, Verdict
from vaultcube.results.soak import SoakTargets, measure_soak, read_soak

HOUR = 3600
TARGETS = SoakTargets()


def judged(
    folder: Path, story: Story, gpus: Sequence[Gpu] | None = None
) -> tuple[dict[str, Check], Verdict, list[Evidence], Measurement]:
    """Judge a soak as the orchestrator does: events, then telemetry, then the checks."""
    gpus = cards(story.gpus) if gpus is None else gpus
    soak = read_soak(read(folder, cards(story.gpus)), gpus)
    told = measure_soak(soak, story.seconds, TARGETS)
    with Telemetry.open(folder / "run.db") as telemetry:
        seen = observe_soak(gpus, telemetry, soak, TARGETS)
    both = Measurement(
        {**told.metrics, **seen.metrics}, {**told.missing, **seen.missing}, [*told.disturbances, *seen.disturbances]
    )
    checks, verdict = judge(soak_checks(TARGETS), both, device="cuda", simulated=False)
    return {check.name: check for check in checks}, verdict, [*told.evidence, *seen.evidence], both


def failed(checks: dict[str, Check]) -> set[str]:
    return {name for name, check in checks.items() if check.verdict is not Verdict.PASS}


def where(evidence: Sequence[Evidence]) -> set[tuple[str, int | None]]:
    return {(one.check, one.gpu_index) for one in evidence}


def of(evidence: Sequence[Evidence], check: str) -> Evidence:
    (found,) = [one for one in evidence if one.check == check]
    return found


DAY = (
    Plant("flip", 0, 2 * HOUR + 10),
    Plant("hot", 0, 5 * HOUR, 60),
    Plant("replays", 0, 7 * HOUR, 100, 30),
    Plant("wrong", 1),
    Plant("link", 1, 10 * HOUR, 600),
    Plant("clock", 1, 12 * HOUR, 24 * HOUR, 0.9),
    Plant("throttle", 2, 3 * HOUR, 1200),
    Plant("restart", 2, 8 * HOUR, 30),
    Plant("idle", 2, 14 * HOUR, 2 * HOUR),
    Plant("power", 3, value=0.7),
    Plant("xid", 3, 20 * HOUR, value=79),
    Plant("lost", 3, 20 * HOUR),
    Plant("dead", 3, 20 * HOUR + 5),
    Plant("reboot", 0, 11 * HOUR, 300),
    # These are nobody's fault.
    Plant("xid", 0, 6 * HOUR, value=31),
    Plant("stop", 0, 16 * HOUR, 100),
    Plant("clock_step", 0, 4 * HOUR, value=3600),
)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Story]:
    """Write a day of four GPUs at 1 Hz with every fault there is."""
    folder = tmp_path_factory.mktemp("day")
    story = Story(24 * HOUR, DAY)
    write(folder, story)
    return folder, story


def test_a_full_days_judge_finds_every_planted_fault_and_no_other(day: tuple[Path, Story]) -> None:
    folder, story = day
    checks, verdict, evidence, both = judged(folder, story)
    assert verdict is Verdict.FAIL
    assert where(evidence) == {
        ("no_mismatch", 0),
        ("temperature_margin", 0),
        ("pcie_replays", 0),
        ("digests_agree", 0),
        ("digests_agree", 1),
        ("pcie_link", 1),
        ("clock_stability", 1),
        ("throttling", 2),
        ("no_unplanned_restart", 2),
        ("busy", 2),
        ("power", 3),
        ("no_xid", 3),
        ("no_gpu_lost", 3),
        ("covered", 3),
        ("no_unplanned_restart", None),
    }
    assert failed(checks) == {one.check for one in evidence}
    assert both.disturbances == []
    assert both.missing == {}


def test_every_fault_of_the_day_has_its_time_and_its_slot(day: tuple[Path, Story]) -> None:
    folder, story = day
    _, _, evidence, both = judged(folder, story)
    slots = {one.index: (one.uuid, one.pci_bus_id) for one in cards()}
    assert all((one.gpu_uuid, one.pci_bus_id) == slots.get(one.gpu_index or 0) for one in evidence if one.gpu_index)
    spans = [(one.check, one.gpu_index, one.first, one.last) for one in evidence]

    def seen(check: str, gpu: int | None, start: float, end: float, slack_s: float = 6) -> bool:
        slack, edges = timedelta(seconds=slack_s), (wall(story, start), wall(story, end))
        return any(
            (name, index) == (check, gpu)
            and first is not None
            and last is not None
            and abs(first - edges[0]) <= slack
            and abs(last - edges[1]) <= slack
            for name, index, first, last in spans
        )

    flip = 2 * HOUR + 15
    assert seen("no_mismatch", 0, flip, flip)
    assert seen("digests_agree", 0, flip, flip)
    assert seen("temperature_margin", 0, 5 * HOUR, 5 * HOUR + 60)
    assert seen("pcie_replays", 0, 7 * HOUR, 7 * HOUR + 100)
    assert seen("pcie_link", 1, 10 * HOUR, 10 * HOUR + 600)
    assert seen("throttling", 2, 3 * HOUR, 3 * HOUR + 1200)
    assert seen("no_unplanned_restart", 2, 8 * HOUR, 8 * HOUR + 30)
    assert seen("no_unplanned_restart", None, 11 * HOUR, 11 * HOUR + 300)
    assert seen("busy", 2, 14 * HOUR, 16 * HOUR, slack_s=180)
    assert seen("no_xid", 3, 20 * HOUR, 20 * HOUR)
    assert seen("no_gpu_lost", 3, 20 * HOUR, 20 * HOUR)
    outvoted = next(one for one in evidence if (one.check, one.gpu_index) == ("digests_agree", 1))
    assert "contradicts the other GPUs of its kind: fp32/8192/0" in outvoted.text
    reboot = [one for one in evidence if one.gpu_index is None]
    assert [one.boot_id for one in reboot] == [
        "8e4a5b6c-0000-4000-8000-000000000002",
        "8e4a5b6c-0000-4000-8000-000000000001",
    ]
    assert "power supply" in reboot[1].text
    assert both.metrics["covered_hours"].value == pytest.approx(20 - (20 + 300 + 20 + 5) / HOUR, abs=0.01)
    assert (both.metrics["restarts_unplanned"].value, both.metrics["restarts"].value) == (2, 3)
    assert (both.metrics["xids_hardware"].value, both.metrics["xids_application"].value) == (1, 1)
    assert both.metrics["throttle_share_ratio"].value == pytest.approx(1200 / 86400, rel=0.02)


def judged_story(folder: Path, *plants: Plant, seconds: int = HOUR, gpus: int = 4) -> tuple[set[str], list[Evidence]]:
    story = Story(seconds, plants, gpus)
    write(folder, story)
    checks, verdict, evidence, _ = judged(folder, story)
    assert (verdict is Verdict.PASS) == (not failed(checks))
    return failed(checks), evidence


def test_a_soak_without_a_fault_passes(tmp_path: Path) -> None:
    story = Story(2 * HOUR)
    write(tmp_path, story)
    checks, verdict, evidence, both = judged(tmp_path, story)
    assert (verdict, evidence, both.missing, both.disturbances) == (Verdict.PASS, [], {}, [])
    figures = {name: metric.value for name, metric in both.metrics.items()}
    assert {check.metric for check in soak_checks(TARGETS)} <= set(figures)
    assert figures["covered_hours"] == 2
    assert figures["busy_share_ratio"] == 1
    assert figures["power_share_ratio"] == pytest.approx(570 / 575, abs=0.001)
    assert figures["clock_ratio"] == pytest.approx(1, abs=0.01)
    assert figures["telemetry_coverage_ratio"] == pytest.approx(1, abs=0.001)
    assert len(checks) == len(soak_checks(TARGETS))


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (Plant("throttle", 1, 600, 60), {"throttling"}),
        (Plant("hot", 1, 600, 1), {"temperature_margin"}),
        (Plant("link", 1, 600, 30), {"pcie_link"}),
        (Plant("replays", 1, 600, 10, 7), {"pcie_replays"}),
        (Plant("idle", 1, 600, 600), {"busy"}),
        (Plant("power", 1, value=0.8), {"power"}),
        (Plant("clock", 1, 2000, 3000, 0.9), {"clock_stability"}),
        (Plant("xid", 1, 600, value=63), {"no_xid"}),
        (Plant("xid", 1, 600, value=4711), {"no_xid"}),
        (Plant("lost", 1, 3500), {"no_gpu_lost"}),
        (Plant("restart", 1, 600, 20), {"no_unplanned_restart"}),
        (Plant("dead", 1, 600), {"covered"}),
        (Plant("flip", 1, 600), {"no_mismatch", "digests_agree"}),
        (Plant("wrong", 1), {"digests_agree"}),
        (Plant("injected", 1), {"no_fault_injected"}),
        (Plant("torn", 1, 600), {"covered"}),
        (Plant("reboot", 1, 600, 60), {"no_unplanned_restart"}),
        # Within what is asked for, and what is nobody's fault.
        (Plant("throttle", 1, 600, 30), set()),
        (Plant("replays", 1, 600, 10, 5), set()),
        (Plant("xid", 1, 600, value=43), set()),
        (Plant("stop", 1, 600, 60), set()),
        (Plant("clock_step", 1, 600, value=-3600), set()),
    ],
    ids=lambda value: f"{value.kind}-{value.value:g}-{value.seconds}" if isinstance(value, Plant) else "",
)
def test_each_fault_alone_fails_its_own_check_and_names_its_gpu(tmp_path: Path, plant: Plant, found: set[str]) -> None:
    checks, evidence = judged_story(tmp_path, plant, gpus=3)
    assert checks == found
    on = None if plant.kind == "reboot" else 1
    assert where(evidence) == {(check, on) for check in found}
    assert all(one.first is not None for one in evidence)


def test_an_xid_before_a_reset_says_more_than_a_power_supply(tmp_path: Path) -> None:
    _, evidence = judged_story(tmp_path, Plant("xid", 0, 590, value=79), Plant("reboot", 0, 600, 60))
    assert where(evidence) == {("no_xid", 0), ("no_unplanned_restart", None)}
    assert not any("power supply" in one.text for one in evidence)


def test_two_that_contradict_each_other_are_both_named(tmp_path: Path) -> None:
    _, evidence = judged_story(tmp_path, Plant("wrong", 1), seconds=600, gpus=2)
    assert {(one.check, one.gpu_index) for one in evidence} == {("digests_agree", 0), ("digests_agree", 1)}


def test_without_telemetry_or_gpus_everything_says_why(tmp_path: Path) -> None:
    story = Story(300, gpus=1)
    write(tmp_path, story)
    soak = read_soak(read(tmp_path, cards(1)), cards(1))
    none = observe_soak(cards(1), None, soak, TARGETS, why_none="the recorder was killed")
    assert none.missing == dict.fromkeys(NAMES, "the recorder was killed")
    assert observe_soak([], None, soak, TARGETS).missing == dict.fromkeys(NAMES, "no GPU was used")
    told = measure_soak(soak, 300, TARGETS)
    both = Measurement({**told.metrics}, {**told.missing, **none.missing})
    checks, verdict = judge(soak_checks(TARGETS), both, device="cuda", simulated=False)
    assert verdict is Verdict.UNAVAILABLE
    gone = {check.name for check in checks if check.verdict is Verdict.UNAVAILABLE}
    assert gone == {spec.name for spec in soak_checks(TARGETS) if spec.needs_gpu}


def test_a_recorder_that_was_away_for_long_proves_little(tmp_path: Path) -> None:
    story = Story(600, [Plant("idle", 0, 0, 600)], gpus=1)
    write(tmp_path, story)
    with closing(sqlite3.connect(tmp_path / "run.db")) as db:
        db.execute("DELETE FROM readings WHERE id > 300000 << 6")
        db.commit()
    _, verdict, evidence, both = judged(tmp_path, story)
    assert both.missing["busy_share_ratio"] == "telemetry covers 47% of the time under load"
    assert (verdict, evidence) == (Verdict.UNAVAILABLE, [])


def test_a_worker_on_another_gpu_than_it_was_given_is_told_of(tmp_path: Path) -> None:
    story = Story(300, gpus=1)
    write(tmp_path, story)
    others = [one.model_copy(update={"uuid": "GPU-another"}) for one in cards(1)]
    workers = {name: Worker(one.events, (), "GPU-another") for name, one in read(tmp_path, cards(1)).items()}
    soak = read_soak(workers, others)
    assert soak.disturbances == [f"gpu-0 computed on {cards(1)[0].uuid}, and GPU-another was its GPU"]
    with Telemetry.open(tmp_path / "run.db") as telemetry:
        seen = observe_soak(others, telemetry, soak, TARGETS)
    assert seen.missing["busy_share_ratio"] == "only 0 of 1 GPUs were ever under load"


def test_what_a_card_does_not_tell_is_missing(tmp_path: Path) -> None:
    story = Story(600, gpus=1)
    write(tmp_path, story)
    mute = [one.model_copy(update={"power_limit_watts": None, "pcie_gen_max": None}) for one in cards(1)]
    *_, both = judged(tmp_path, story, mute)
    assert set(both.missing) == {"power_share_ratio", "pcie_link_ratio"}


def test_a_gpu_that_never_was_under_load_leaves_figures_open(tmp_path: Path) -> None:
    story = Story(600, gpus=1)
    write(tmp_path, story)
    (tmp_path / "gpu-0" / "events.jsonl").write_text("")
    checks, verdict, evidence, both = judged(tmp_path, story)
    assert both.missing["busy_share_ratio"] == "only 0 of 1 GPUs were ever under load"
    assert both.missing["covered_ratio"] == "no worker ever started"
    assert (verdict, evidence) == (Verdict.UNAVAILABLE, [])
    assert checks["covered"].verdict is Verdict.UNAVAILABLE


def test_a_soak_is_cut_into_parts_by_the_time_under_load() -> None:
    loads = [Load("one", "bf16", "flop", 100.0, 10_900.0), Load("two", "fp32", "flop", 50.0, 10_850.0)]
    found = pieces(loads)
    assert [(one.boot_id, one.part, one.start_s, one.end_s) for one in found] == [
        ("one", 0, 100.0, 400.0),
        ("one", 1, 400.0, 4000.0),
        ("one", 2, 4000.0, 10_900.0),
        ("two", 2, 50.0, 7250.0),
        ("two", 3, 7250.0, 10_850.0),
    ]
    # Only where a load begins do readings tell of another.
    assert [one.settled_s for one in found] == [102.0, 102.0, 102.0, 52.0, 52.0]
    assert pieces([]) == []
    short = pieces([Load("one", "bf16", "flop", 0.0, 30.0)])
    assert [(one.part, one.start_s, one.end_s) for one in short] == [
        (0, 0.0, 3.0),
        (1, 3.0, 13.0),
        (2, 13.0, 20.0),
        (3, 20.0, 30.0),
    ]


def test_the_names_that_are_asked_for_are_those_that_checks_look_at() -> None:
    assert {spec.metric for spec in soak_checks(TARGETS)} == {*NAMES, *events_only.NAMES}
    assert all(not spec.timed for spec in soak_checks(TARGETS))
