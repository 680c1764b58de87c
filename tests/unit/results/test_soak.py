"""What a soak's workers tell, event by event."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support import STARTED, event, gpu

from vaultcube.results.coverage import End
from vaultcube.results.events import AnyEvent, Garbled
from vaultcube.results.lives import GUARDED, Worker, last_word, read_lives
from vaultcube.results.soak import SoakTargets, measure_soak, read_soak

TARGETS = SoakTargets()
GPUS = [gpu(index) for index in range(2)]
RIGHT, WRONG = "a" * 16, "b" * 16


class Life:
    """Builds the events of one life of a worker."""

    def __init__(self, begin: float = 100.0, *, boot: str | None = "one", **started: Any) -> None:
        self.events: list[AnyEvent] = []
        self.add(
            "started", begin, **{**STARTED, "program": "stress"}, world_size=1, boot_id=boot, session="s", **started
        )

    def add(self, kind: str, mono: float, **fields: Any) -> Life:
        self.events.append(event(kind, seq=len(self.events), mono=mono, **fields))
        return self

    def device(self, uuid: str | None, name: str = "RTX 5090") -> Life:
        return self.add("device", 101.0, device_index=0, name=name, uuid=uuid, compute_capability="12.0")

    def checked(self, start: float, end: float, *, mono: float | None = None, **changes: Any) -> Life:
        fields: dict[str, Any] = {
            "phase": "bf16",
            "iterations": 10,
            "from_mono": start,
            "until_mono": end,
            "work": 10**12,
            "unit": "flop",
            "mismatches": 0,
            "key": "bf16/64/0",
            "digest": RIGHT,
        }
        return self.add("checked", end if mono is None else mono, **{**fields, **changes})

    def done(self, mono: float) -> Life:
        return self.add("finished", mono, elapsed_s=mono, covered_s=mono)

    def error(self, mono: float, code: str) -> Life:
        return self.add("error", mono, code=code, message="so it was", exit_code=70)


def worker(*lives: Life, uuid: str | None = None, garbled: tuple[Garbled, ...] = ()) -> Worker:
    return Worker([one for life in lives for one in life.events], garbled, uuid)


def measured(*workers: Worker, seconds: float = 10) -> tuple[dict[str, float], dict[str, str], list[str], list[str]]:
    """Return metrics, what is missing, evidence as `check: text`, and disturbances."""
    soak = read_soak({f"cpu-{place}": one for place, one in enumerate(workers)}, GPUS)
    found = measure_soak(soak, seconds, TARGETS)
    return (
        {name: metric.value for name, metric in found.metrics.items()},
        dict(found.missing),
        [f"{one.check}: {one.text}" for one in found.evidence],
        list(found.disturbances),
    )


def test_a_worker_on_the_cpu_is_judged_by_its_events_alone() -> None:
    metrics, missing, evidence, disturbances = measured(
        worker(Life().device(None, "a CPU").checked(101, 106).checked(106, 111).done(111))
    )
    assert (missing, evidence, disturbances) == ({}, [], [])
    assert metrics == {
        "covered_hours": 10 / 3600,
        "covered_ratio": 1,
        "uncovered_hours": 1 / 3600,
        "longest_gap_s": 1,
        "paused_hours": 0,
        "restarts_unplanned": 0,
        "restarts": 0,
        "mismatches": 0,
        "digests_disagreeing": 0,
        "faults_injected": 0,
        "bf16_flop_per_s": 2e11,
    }


def test_nothing_at_all_says_why() -> None:
    metrics, missing, _, _ = measured(worker())
    assert metrics == {}
    assert set(missing.values()) == {"no worker ever started"}


def test_one_worker_of_two_that_never_started_covers_nothing() -> None:
    metrics, missing, evidence, _ = measured(worker(Life().checked(101, 111).done(111)), worker())
    assert (metrics["covered_ratio"], metrics["covered_hours"]) == (0, 0)
    assert evidence == ["covered: worker cpu-1 covered 0 h of 0.002778 h; its worker never started"]
    assert missing == {
        "mismatches": "only 1 of 2 workers checked a result",
        "digests_disagreeing": "only 1 of 2 workers gave a digest",
    }


def test_wrong_results_condemn_even_where_others_checked_nothing() -> None:
    metrics, missing, evidence, _ = measured(
        worker(
            Life()
            .add("reference", 102.0, phase="bf16", elements=64, mismatches=2)
            .add("mismatch", 104.0, phase="bf16", iteration=3, elements=5, first=[1, 2], expected="0x0", found="0x1")
            .checked(101, 111, mismatches=4)
        ),
        worker(),
    )
    # The reference's two, and the greater of what was told in sum and one by one.
    assert metrics["mismatches"] == 7
    assert "mismatches" not in missing
    assert "no_mismatch: worker cpu-0 computed 7 wrong element(s) in bf16 (reported 2 times)" in evidence


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"start": 106, "end": 105}, "ended before it began"),
        ({"start": 101, "end": 800}, "more than 600 s at once"),
        ({"start": 101, "end": 106, "mono": 104.0}, "had not ended yet"),
        ({"start": 101, "end": 106, "iterations": 0}, "no result was checked"),
    ],
)
def test_a_report_that_cannot_be_is_not_counted(changes: dict[str, Any], said: str) -> None:
    metrics, _, _, disturbances = measured(worker(Life().checked(**changes).checked(110, 111)))
    assert metrics["covered_hours"] == 1 / 3600
    (sentence,) = disturbances
    assert sentence.startswith("cpu-0: 1 reports of load")
    assert said in sentence


def test_load_before_a_worker_began_is_not_its_own() -> None:
    metrics, *_ = measured(worker(Life(100).checked(90, 105)))
    assert metrics["covered_hours"] == 5 / 3600


def test_reports_without_a_beginning_are_not_counted() -> None:
    lost = Life(200)
    del lost.events[0]
    metrics, _, _, disturbances = measured(worker(Life().checked(101, 105), lost.checked(201, 205).checked(205, 209)))
    assert metrics["covered_hours"] == 4 / 3600
    # The lost line is seen as a gap of `seq` in one life, or as a life without a beginning.
    assert disturbances
    torn = Life(200).checked(201, 205)
    metrics, _, _, disturbances = measured(Worker([*Life().checked(101, 105).done(106).events, torn.events[1]]))
    assert metrics["covered_hours"] == 4 / 3600
    assert any("events without a beginning" in sentence for sentence in disturbances)


def test_lines_that_cannot_be_read_are_told_of() -> None:
    *_, disturbances = measured(worker(Life().checked(101, 111), garbled=(Garbled(line=3, reason="not JSON"),)))
    assert disturbances == ["cpu-0: 1 event line(s) cannot be read (line 3): not JSON"]


def test_lives_without_a_boot_never_count_the_same_time_twice() -> None:
    one, same = Life(100, boot=None).checked(101, 106), Life(100, boot=None).checked(102, 107)
    metrics, *_ = measured(worker(one, same))
    assert metrics["covered_hours"] == 6 / 3600


def test_an_injected_fault_is_told_and_fails() -> None:
    metrics, _, evidence, _ = measured(worker(Life(fault_injected=True).checked(101, 111).done(111)))
    assert metrics["faults_injected"] == 1
    assert evidence == [
        "no_fault_injected: a fault was injected into worker cpu-0 on purpose: this run can prove nothing"
    ]


@pytest.mark.parametrize(
    ("end", "word"),
    [
        ("finished", "was done"),
        ("stopped", "was told to stop"),
        ("failed", "failed (device-failed: so it was)"),
        ("silent", "ended without a word"),
    ],
)
def test_the_last_word_of_a_life(end: End, word: str) -> None:
    life = Life().checked(101, 102)
    if end == "finished":
        life.done(103)
    elif end != "silent":
        life.error(103, "interrupted" if end == "stopped" else "device-failed")
    ((found,), _) = read_lives({"a": worker(life)})
    assert found.session.end == end
    assert word in last_word(found)


def test_a_worker_that_failed_and_came_back_is_an_unplanned_restart() -> None:
    metrics, _, evidence, _ = measured(
        worker(Life().checked(101, 105).error(106, "device-failed"), Life(120).checked(121, 127).done(127))
    )
    assert (metrics["restarts_unplanned"], metrics["restarts"], metrics["covered_ratio"]) == (1, 1, 1)
    assert "its worker failed (device-failed: so it was)" in evidence[0]


@pytest.mark.parametrize("code", sorted(GUARDED))
def test_a_worker_that_its_guard_stopped_says_why_and_may_go_on_when_a_person_says_so(code: str) -> None:
    first = Life().checked(101, 105).error(106, code).checked(105, 106, mono=106.2)
    metrics, _, evidence, _ = measured(worker(first))
    assert (metrics["restarts_unplanned"], metrics["covered_ratio"]) == (0, 0.5)
    (covered,) = evidence
    assert covered.endswith(f"in the end its worker was stopped ({code}: so it was)")
    metrics, _, evidence, _ = measured(worker(first, Life(300).checked(301, 307).done(307)))
    assert (metrics["restarts_unplanned"], metrics["restarts"], evidence) == (0, 1, [])


def test_a_gpu_that_was_lost_is_no_failure_of_its_worker() -> None:
    """The worker fails first, and what the recorder knows comes a moment later; or the other way round."""
    for codes in (("device-failed", "gpu-lost"), ("gpu-lost", "device-failed")):
        life = Life().checked(101, 105)
        for number, code in enumerate(codes):
            life.error(106 + number, code)
        ((found,), _) = read_lives({"a": worker(life)})
        assert (found.session.end, last_word(found)) == ("stopped", "its worker was stopped (gpu-lost: so it was)")


def test_time_without_a_recorder_is_a_pause_that_says_why() -> None:
    life = Life().checked(101, 105).add("paused", 105.1, reason="recorder-lost", message="nothing new for 61 s")
    metrics, _, evidence, _ = measured(worker(life.add("resumed", 1905.1, reason="recorder-lost").checked(1906, 1908)))
    assert (metrics["paused_hours"], metrics["restarts_unplanned"]) == (0.5, 0)
    assert "its longest gap is 1801 s (pause: recorder-lost); in the end" in evidence[0]


def test_a_pause_that_nothing_ends_lasts_until_the_last_word() -> None:
    life = Life().add("resumed", 100.5, reason="recorder-lost").add("paused", 102, reason="recorder-lost")
    life.add("paused", 103, reason="recorder-lost").error(138, "interrupted")
    metrics, _, evidence, _ = measured(worker(life))
    assert metrics["paused_hours"] == pytest.approx(0.01)
    assert "its longest gap is 38 s (start: recorder-lost); in the end its worker was told to stop" in evidence[0]


def test_one_reboot_of_four_workers_is_one() -> None:
    workers = [
        worker(Life().checked(101, 105), Life(20, boot="two").checked(21, 27).done(27), uuid=one.uuid) for one in GPUS
    ]
    metrics, _, evidence, _ = measured(*workers)
    assert (metrics["restarts_unplanned"], metrics["restarts"]) == (1, 1)
    assert [line.split(":")[0] for line in evidence] == ["no_unplanned_restart"]


def test_restarts_for_one_reason_are_told_once() -> None:
    lives = [Life(100 + 10 * number).error(101 + 10 * number, "out-of-memory") for number in range(3)]
    metrics, _, evidence, _ = measured(
        worker(*lives, Life(140).checked(141, 142), Life(150).checked(151, 157).done(157))
    )
    assert metrics["restarts_unplanned"] == 4
    assert [line for line in evidence if line.startswith("no_unplanned_restart")] == [
        "no_unplanned_restart: worker cpu-0 began again 3 times: before that, its worker failed (out-of-memory: so it was)",
        "no_unplanned_restart: worker cpu-0 began again: before that, its worker ended without a word",
    ]


def test_a_reboot_that_all_workers_were_told_of_is_planned() -> None:
    metrics, _, evidence, _ = measured(
        worker(Life().checked(101, 105).error(106, "interrupted"), Life(20, boot="two").checked(21, 27).done(27))
    )
    assert (metrics["restarts_unplanned"], metrics["restarts"], evidence) == (0, 1, [])


def test_workers_whose_gpus_changed_places_are_sorted_by_gpu() -> None:
    first, second = GPUS[0].uuid, GPUS[1].uuid
    # After the reboot the second card comes first, and its digests are wrong on both workers.
    workers = {
        "gpu-0": worker(
            Life().device(first).checked(102, 107),
            Life(20, boot="two").device(second).checked(22, 27, mono=101.5, digest=WRONG),
            uuid=first,
        ),
        "gpu-1": worker(
            Life().device(second).checked(102, 107, digest=WRONG),
            Life(20, boot="two").device(first).checked(22, 27, mono=101.5),
            uuid=second,
        ),
    }
    soak = read_soak(workers, GPUS)
    assert [(one.name, one.gpu and one.gpu.index, len(one.lives)) for one in soak.subjects] == [
        ("gpu-0", 0, 2),
        ("gpu-1", 1, 2),
    ]
    assert [one.coverage.covered_s for one in soak.subjects] == [10, 10]
    assert len(soak.disturbances) == 2
    found = measure_soak(soak, 10, TARGETS)
    assert [(one.check, one.gpu_index, one.count) for one in found.evidence if one.check == "digests_agree"] == [
        ("digests_agree", 0, 2),
        ("digests_agree", 1, 2),
    ]


@given(st.lists(st.tuples(st.sampled_from("sdcmrfepu"), *[st.floats(-1e300, 1e300)] * 3), max_size=25))
def test_whatever_workers_say_nothing_raises_and_nothing_is_covered_twice(
    said: list[tuple[str, float, float, float]],
) -> None:
    events: list[AnyEvent] = []
    for place, (what, mono, start, end) in enumerate(said):
        life = Life.__new__(Life)
        life.events = []
        if what == "s":
            life = Life(mono, boot="one" if place % 3 else "two")
        elif what == "d":
            life.device(GPUS[place % 2].uuid)
        elif what == "c":
            life.checked(abs(start) % 1e9, abs(end) % 1e9, mono=mono, iterations=place % 3)
        elif what == "m":
            life.add("mismatch", mono, phase="bf16", iteration=1, elements=1, first=[], expected="0", found="1")
        elif what == "r":
            life.add("reference", mono, phase="x y", elements=1, mismatches=place % 2)
        elif what == "f":
            life.add("finished", mono, elapsed_s=0.0)
        elif what in "pu":
            life.add("paused" if what == "p" else "resumed", mono, reason="recorder-lost")
        else:
            life.error(mono, ("interrupted", "crash", "gpu-lost")[place % 3])
        events += life.events
    soak = read_soak({"gpu-0": Worker(events, (), GPUS[0].uuid), "gpu-1": Worker([], (), GPUS[1].uuid)}, GPUS)
    found = measure_soak(soak, 10, TARGETS)
    assert all(metric.value >= 0 for metric in found.metrics.values())
    for one in soak.subjects:
        assert one.coverage.covered_s <= sum(
            max(life.session.ended.mono_s - life.session.began.mono_s, 0) for life in one.lives
        ) * (1 + 1e-9)
