"""A session with a device of paper: no framework, and a clock that only the load moves."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stress.params import Job, Params
from stress.session import BATCH_S, MOST_TOLD, REPORT_S, Session, Wrong

from common.events import EventWriter
from common.watchdog import Watchdog


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


class PaperLoad:
    unit, work, capacity = "flop", 10, 64

    def __init__(self, device: "PaperDevice", phase: str) -> None:
        self.key = f"{phase}/8/0"
        self._device = device
        self._phase = phase

    def settle(self) -> Wrong | None:
        return self._device.unsettled

    def run(self, first: int, count: int) -> list[int]:
        self._device.batches.append((self._phase, first, count))
        self._device.clock.time += count * self._device.each_s
        return [number for number in range(count) if first + number in self._device.wrong]

    def examine(self, position: int) -> Wrong:
        return Wrong(3, [position, 1], "0x0001", "0x0003")

    def digest(self, position: int) -> int:
        _, first, _ = self._device.batches[-1]
        return 0xBAD if first + position in self._device.wrong else 0x600D


class PaperDevice:
    def __init__(self, clock: Clock, each_s: float = 0.01, wrong: set[int] | None = None) -> None:
        self.clock = clock
        self.each_s = each_s
        self.wrong = wrong or set()
        self.unsettled: Wrong | None = None
        self.batches: list[tuple[str, int, int]] = []
        self.loads: list[str] = []

    def reference(self, phase: str) -> tuple[int, int]:
        return 64, int(phase == "memory")

    def load(self, phase: str) -> PaperLoad:
        self.loads.append(phase)
        # What it takes to prepare is no load.
        self.clock.time += 1
        return PaperLoad(self, phase)


Soak = Callable[..., tuple[Session, PaperDevice, list[dict[str, Any]]]]


@pytest.fixture
def soak(tmp_path: Path) -> Soak:
    def run(
        *,
        seconds: int = 60,
        resumed_s: float = 0,
        fault: str = "",
        stop_after: int = 10**9,
        patience: int = 10**9,
        held: Callable[[float], bool] = lambda _: False,
        **device: Any,
    ) -> tuple[Session, PaperDevice, list[dict[str, Any]]]:
        path = tmp_path / "events.jsonl"
        path.unlink(missing_ok=True)
        clock = Clock()
        unsettled = device.pop("unsettled", None)
        paper = PaperDevice(clock, **device)
        paper.unsettled = unsettled
        params = Params("gpu-0", "cpu", seconds, ("fp32", "memory"), 20.0, 0.85, 0, 120.0)
        events = EventWriter(path, 0, monotonic=clock)
        dog = Watchdog(120.0, lambda *_: None, clock=clock)
        job = Job(params, resumed_s, str(path), "", fault)
        waited: list[float] = []

        def rest(seconds: float) -> None:
            waited.append(seconds)
            clock.time += seconds

        session = Session(
            job,
            events,
            paper,
            dog,
            lambda: len(paper.batches) >= stop_after or len(waited) >= patience,
            held=lambda: held(clock.time),
            rest=rest,
            clock=clock,
        )
        try:
            session.run()
        finally:
            events.close()
        return session, paper, [json.loads(line) for line in path.read_text().splitlines()]

    return run


def of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["kind"] == kind]


def test_it_goes_on_until_enough_is_covered(soak: Soak) -> None:
    session, device, events = soak()
    checked = of(events, "checked")
    lengths = [event["until_mono"] - event["from_mono"] for event in checked]
    assert 60 <= session.covered_s < 60 + 2 * BATCH_S
    assert session.covered_s == pytest.approx(sum(lengths))
    assert max(lengths) < REPORT_S + 2 * BATCH_S
    assert device.loads == ["fp32", "memory", "fp32"]
    assert {(event["phase"], event["key"], event["unit"]) for event in checked} == {
        ("fp32", "fp32/8/0", "flop"),
        ("memory", "memory/8/0", "flop"),
    }
    assert sum(event["iterations"] for event in checked) == sum(count for _, _, count in device.batches)
    assert all(event["work"] == 10 * event["iterations"] for event in checked)
    assert {event["digest"] for event in checked} == {"000000000000600d"}


def test_every_phase_is_compared_with_the_cpu_first(soak: Soak) -> None:
    _, _, events = soak()
    assert [(event["kind"], event["phase"], event["mismatches"]) for event in events[:2]] == [
        ("reference", "fp32", 0),
        ("reference", "memory", 1),
    ]


def test_intervals_of_one_turn_join_and_preparing_is_outside(soak: Soak) -> None:
    _, _, events = soak()
    checked = of(events, "checked")
    joins = [later["from_mono"] - earlier["until_mono"] for earlier, later in pairwise(checked)]
    assert sorted({round(join, 6) for join in joins}) == [0, 1]
    assert joins.count(pytest.approx(1)) == 2


@pytest.mark.parametrize("each_s", [0.0001, 0.01, 0.15, 1.5])
def test_it_can_be_stopped_after_one_batch(soak: Soak, each_s: float) -> None:
    session, device, events = soak(each_s=each_s, stop_after=4)
    assert len(device.batches) == 4
    assert all(count * each_s <= max(BATCH_S, each_s) for _, _, count in device.batches)
    # What was checked until then is told.
    (checked,) = of(events, "checked")
    assert session.covered_s == checked["until_mono"] - checked["from_mono"] > 0


def test_iterations_are_counted_on_from_turn_to_turn(soak: Soak) -> None:
    _, device, _ = soak()
    expected = {"fp32": 0, "memory": 0}
    for phase, first, count in device.batches:
        assert first == expected[phase]
        expected[phase] += count


def test_it_goes_on_where_it_stopped(soak: Soak) -> None:
    session, device, _ = soak(seconds=90, resumed_s=70.0)
    assert device.loads[0] == "memory"
    assert 90 <= session.covered_s < 91
    assert soak(resumed_s=60.0)[1].batches == []


def test_a_mismatch_is_told_counted_and_does_not_end_it(soak: Soak) -> None:
    session, _, events = soak(wrong={7})
    told = of(events, "mismatch")
    assert [(event["phase"], event["iteration"], event["elements"]) for event in told] == [
        ("fp32", 7, 3),
        ("memory", 7, 3),
    ]
    assert (told[0]["expected"], told[0]["found"]) == ("0x0001", "0x0003")
    assert [event["mismatches"] for event in of(events, "checked")].count(3) == 2
    bad = [event for event in of(events, "checked") if event["mismatches"]]
    # Others are compared with what was wrong, even if the results after it were right.
    assert {event["digest"] for event in bad} == {"0000000000000bad"}
    assert session.covered_s >= 60


def test_a_card_that_is_always_wrong_does_not_fill_the_disk(soak: Soak) -> None:
    _, _, events = soak(wrong=set(range(100_000)))
    checked = of(events, "checked")
    assert len(of(events, "mismatch")) == MOST_TOLD * len(checked)
    assert all(event["mismatches"] == 3 * event["iterations"] for event in checked)


def test_a_first_result_that_was_wrong_counts(soak: Soak) -> None:
    _, _, events = soak(unsettled=Wrong(2, [0, 0], "0x00", "0x01"), seconds=10)
    assert [(event["iteration"], event["elements"]) for event in of(events, "mismatch")] == [(0, 2), (0, 2)]
    assert sum(event["mismatches"] for event in of(events, "checked")) == 4


def test_an_injected_failure_looks_like_a_lost_gpu(soak: Soak) -> None:
    with pytest.raises(RuntimeError, match="CUDA error"):
        soak(fault="fail:memory:3")


def test_while_it_is_held_nothing_is_loaded_and_nothing_is_covered(soak: Soak) -> None:
    # The paper's clock begins at 100.
    session, device, events = soak(held=lambda now: 110 <= now < 150)
    checked = of(events, "checked")
    assert not any(event["until_mono"] > 110 + BATCH_S and event["from_mono"] < 150 for event in checked)
    # What was done before is told at once, and what comes after counts from its own beginning.
    assert [event for event in checked if 110 <= event["until_mono"] <= 110 + BATCH_S]
    assert min(event["from_mono"] for event in checked if event["until_mono"] > 150) >= 150
    assert 60 <= session.covered_s < 60 + 2 * BATCH_S
    assert session.covered_s == pytest.approx(sum(event["until_mono"] - event["from_mono"] for event in checked))
    # The turn goes on where it was, with the load that was made for it.
    assert device.loads == ["fp32", "memory", "fp32"]
    assert sum(event["iterations"] for event in checked) == sum(count for _, _, count in device.batches)


def test_held_from_the_start_it_does_nothing_at_all_until_it_may(soak: Soak) -> None:
    _, device, events = soak(held=lambda now: now < 130)
    assert min(event["mono"] for event in events) >= 130
    assert device.loads
    _, device, events = soak(held=lambda _: True, patience=50)
    assert (device.batches, device.loads, events) == ([], [], [])


def test_told_to_stop_while_it_is_held_it_stops_without_another_batch(soak: Soak) -> None:
    _, device, events = soak(held=lambda now: now >= 110, patience=50)
    before = len(device.batches)
    assert sum(count for _, _, count in device.batches) == sum(event["iterations"] for event in of(events, "checked"))
    assert before > 0
    assert of(events, "checked")[-1]["until_mono"] < 110 + BATCH_S


def test_lines_can_be_followed(soak: Soak, capsys: pytest.CaptureFixture[str]) -> None:
    soak()
    lines = capsys.readouterr().out.splitlines()
    assert 4 <= len(lines) <= 7
    assert lines[-1].startswith("gpu-0  fp32")
    assert "1 min 00 s of 1 min 00 s (100.0 %)  1 MISMATCH" in lines[-1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(
    seconds=st.integers(1, 120),
    resumed_s=st.floats(0, 200),
    each_s=st.floats(0.01, 3),
    wrong=st.sets(st.integers(0, 300), max_size=5),
)
def test_the_sums_are_right(soak: Soak, seconds: int, resumed_s: float, each_s: float, wrong: set[int]) -> None:
    session, device, events = soak(seconds=seconds, resumed_s=resumed_s, each_s=each_s, wrong=wrong)
    checked = of(events, "checked")
    added = sum(event["until_mono"] - event["from_mono"] for event in checked)
    assert session.covered_s == pytest.approx(resumed_s + added)
    assert session.covered_s >= min(seconds, resumed_s)
    found = sum(number in wrong for _, first, count in device.batches for number in range(first, first + count))
    assert sum(event["mismatches"] for event in checked) == 3 * found
