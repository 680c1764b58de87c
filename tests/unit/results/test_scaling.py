from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.support import DATA, STARTED, event

from vaultcube.results.events import AnyEvent, EventLog, Finished, Garbled, Window
from vaultcube.results.judge import Measurement
from vaultcube.results.scaling import NAMES, Expected, measure_training
from vaultcube.results.schema import Status

EXPECTED = Expected(world_size=4, batch_size=256, windows=5)


def read(case: str) -> EventLog:
    log = EventLog()
    log.feed((DATA / "runs" / case / "events.jsonl").read_bytes())
    log.close()
    return log


def measure(events: Sequence[AnyEvent], expected: Expected = EXPECTED, **more: Any) -> Measurement:
    return measure_training(events, more.get("garbled", []), expected, more.get("status", Status.COMPLETED))


def without(events: Sequence[AnyEvent], **fields: Any) -> list[AnyEvent]:
    """Return the events but those that have all these fields, numbered afresh."""
    kept = [event for event in events if any(getattr(event, name, None) != value for name, value in fields.items())]
    counts: dict[int, int] = {}
    fresh = []
    for one in kept:
        fresh.append(one.model_copy(update={"seq": counts.get(one.rank, 0)}))
        counts[one.rank] = fresh[-1].seq + 1
    return fresh


def test_a_good_run_yields_every_figure_with_its_interval() -> None:
    found = measure(read("good").events)
    assert found.disturbances == []
    assert found.missing == {}
    assert {name: metric.unit for name, metric in found.metrics.items()} == {
        "ranks_lost": "ranks",
        "losses_not_finite": "ranks",
        "memory_peak_bytes": "bytes",
        "allreduce_mismatches": "elements",
        "solo_throughput_samples_per_s": "samples/s",
        "solo_throughput_slowest_samples_per_s": "samples/s",
        "throughput_samples_per_s": "samples/s",
        "step_time_s": "s",
        "rank_time_spread_ratio": "ratio",
        "scaling_efficiency": "ratio",
    }
    # The recording was made with 2000 samples/s alone and 95 % of it together.
    assert found.metrics["solo_throughput_samples_per_s"].value == pytest.approx(2000, rel=0.01)
    assert found.metrics["throughput_samples_per_s"].value == pytest.approx(4 * 1900, rel=0.01)
    assert found.metrics["scaling_efficiency"].value == pytest.approx(0.95, abs=0.01)
    assert found.metrics["step_time_s"].value == pytest.approx(256 / 1900, rel=0.01)
    assert found.metrics["memory_peak_bytes"].value == 21_000_000_003
    for name in ("throughput_samples_per_s", "scaling_efficiency"):
        low, high = found.metrics[name].ci95 or (0, 0)
        assert low <= found.metrics[name].value <= high
        assert high / low < 1.02


def test_the_slowest_rank_alone_is_told_beside_the_mean() -> None:
    events = [
        one.model_copy(update={"elapsed_s": one.elapsed_s * 2})
        if isinstance(one, Window) and one.phase == "solo" and one.rank == 3
        else one
        for one in read("good").events
    ]
    found = measure(events).metrics
    assert found["solo_throughput_slowest_samples_per_s"].value == pytest.approx(1000, rel=0.01)
    assert found["solo_throughput_samples_per_s"].value == pytest.approx(1750, rel=0.01)


def test_a_run_that_never_started_has_no_figures_and_says_so() -> None:
    for events in ([], [event("progress", done=1, total=2)]):
        found = measure(events, status=Status.FAILED)
        assert found.metrics == {}
        assert set(found.missing) == set(NAMES)
        assert set(found.missing.values()) == {"the workload never started"}


def test_lines_that_cannot_be_read_disturb_a_run_whether_it_started_or_not() -> None:
    bad = [Garbled(line=7, reason="not JSON: x"), Garbled(line=9, reason="kind")]
    said = "2 event line(s) cannot be read (line 7, 9): not JSON: x"
    assert measure([], garbled=bad).disturbances == [said]
    assert measure(read("good").events, garbled=bad).disturbances == [said]


def test_one_rank_has_nothing_to_scale_over() -> None:
    alone = Expected(world_size=1, batch_size=256, windows=5)
    events = [one for one in read("good").events if one.rank <= 0]
    found = measure([events[0].model_copy(update={"world_size": 1}), *events[1:]], alone)
    assert found.disturbances == []
    assert found.missing["scaling_efficiency"] == "there is one rank, and nothing to scale over"
    assert found.metrics["throughput_samples_per_s"].value == pytest.approx(1900, rel=0.01)


def test_throughput_survives_a_missing_solo_phase_and_scaling_does_not() -> None:
    found = measure(without(read("good").events, kind="window", phase="solo", rank=2))
    assert found.missing["scaling_efficiency"] == "not every rank was timed alone"
    assert "solo_throughput_samples_per_s" not in found.metrics
    assert found.metrics["throughput_samples_per_s"].value > 0


def test_too_few_windows_are_no_throughput() -> None:
    events = without(read("good").events, kind="window", phase="all", index=4)
    found = measure(events)
    for name in ("throughput_samples_per_s", "scaling_efficiency"):
        assert found.missing[name] == "4 of 5 windows of all ranks together were timed"
    assert "solo_throughput_samples_per_s" in found.metrics


def test_one_rank_with_fewer_windows_spoils_the_group() -> None:
    found = measure(without(read("good").events, kind="window", phase="all", index=4, rank=1))
    assert found.missing["throughput_samples_per_s"] == "4 of 5 windows of all ranks together were timed"


def test_more_windows_than_planned_are_all_used() -> None:
    found = measure(read("good").events, dataclasses.replace(EXPECTED, windows=3))
    assert found.disturbances == []
    assert found.metrics["throughput_samples_per_s"].value > 0


def test_an_interrupted_run_has_lost_no_rank() -> None:
    found = measure(without(read("good").events, kind="finished"), status=Status.INTERRUPTED)
    assert found.missing["ranks_lost"] == "the run was interrupted"
    assert found.missing["losses_not_finite"] == "only 0 of 4 ranks came to their end"


@pytest.mark.parametrize("stranger", [-1, 4, 7])
def test_a_stranger_never_stands_in_for_a_rank(stranger: int) -> None:
    events = without(read("good").events, kind="finished", rank=3)
    events = without(events, kind="allreduce", rank=3)
    events.append(event("finished", rank=stranger, elapsed_s=1.0, loss=1.0))
    allreduce: dict[str, Any] = {
        "backend": "nccl",
        "correct": True,
        "mismatches": 0,
        "sizes_bytes": [4],
        "elapsed_s": 0.1,
    }
    events.append(event("allreduce", rank=stranger, seq=1, **allreduce))
    found = measure(events)
    assert found.metrics["ranks_lost"].value == 1
    assert found.missing["losses_not_finite"] == "only 3 of 4 ranks came to their end"
    assert found.missing["allreduce_mismatches"] == "only 3 of 4 ranks reported it"


def test_a_second_word_does_not_wash_off_the_first() -> None:
    good = read("good").events
    bad_loss = event("finished", rank=2, elapsed_s=1.0, loss=None)
    wrong = event("allreduce", rank=2, backend="nccl", correct=False, mismatches=5, sizes_bytes=[4], elapsed_s=0.1)
    found = measure([good[0], bad_loss, wrong, *good[1:]])
    assert found.metrics["losses_not_finite"].value == 1
    assert found.metrics["allreduce_mismatches"].value == 5
    assert found.metrics["ranks_lost"].value == 0


def test_an_allreduce_that_is_called_wrong_counts_without_a_number() -> None:
    fields: dict[str, Any] = {"backend": "nccl", "mismatches": 0, "sizes_bytes": [4], "elapsed_s": 0.1}
    start = event("started", rank=-1, world_size=4, **STARTED)
    found = measure([start, event("allreduce", rank=1, correct=False, **fields)], status=Status.FAILED)
    assert found.metrics["allreduce_mismatches"].value == 1


def test_what_started_must_be_what_was_planned() -> None:
    good = read("good").events
    found = measure([good[0].model_copy(update={"world_size": 3}), *good[1:]])
    assert found.disturbances == ["3 ranks started and 4 were planned"]


def _spoil(events: Sequence[AnyEvent], **change: Any) -> list[AnyEvent]:
    return [
        one.model_copy(update=change)
        if isinstance(one, Window) and (one.phase, one.rank, one.index) == ("all", 1, 2)
        else one
        for one in events
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"samples": 1}, "window 2 counts 1 samples in 20 steps of 256"),
        ({"steps": 10}, "counts 5120 samples in 10 steps of 256"),
        ({"elapsed_s": 60.0}, "window 2 claims 60.000 s"),
        ({"index": 3}, "are numbered [0, 1, 3, 3, 4]"),
        ({"index": 9}, "are numbered [0, 1, 9, 3, 4]"),
        ({"rank": 9, "seq": 0}, "rank 9 reported, and there are 4"),
    ],
)
def test_windows_that_contradict_each_other_disturb(change: dict[str, Any], said: str) -> None:
    found = measure(_spoil(read("good").events, **change))
    assert any(said in text for text in found.disturbances), found.disturbances


def test_a_window_may_be_a_little_longer_than_the_clock_says() -> None:
    good = read("good").events
    (window,) = [one for one in good if isinstance(one, Window) and (one.phase, one.rank, one.index) == ("all", 1, 2)]
    # Windows are 2 % apart in the recording, the slack is 5 %.
    assert measure(_spoil(good, elapsed_s=window.elapsed_s * 1.04)).disturbances == []
    assert measure(_spoil(good, elapsed_s=window.elapsed_s * 1.10)).disturbances != []


def test_a_warm_up_that_never_settled_is_named_by_its_phase() -> None:
    good = read("good").events
    restless = [one.model_copy(update={"plateau": False}) if one.kind == "warmup" else one for one in good]
    assert measure(restless).disturbances == [
        *(f"the step time of rank {rank} alone was not flat after 25 warm-up steps" for rank in range(4)),
        "the step time of all ranks together was not flat after 25 warm-up steps",
    ]


# --- for all runs ----------------------------------------------------------------------------------------------

GOOD = read("good").events
figures = st.one_of(st.integers(0, 3), st.integers(0, 10**15), st.sampled_from([1e-9, 0.5, 1.0, 1e9]))


@settings(max_examples=20)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.sampled_from(["drop", "twice", "swap", "rank"])), max_size=12), st.data()
)
def test_no_order_loss_or_doubling_of_events_raises(damage: list[tuple[int, str]], data: st.DataObject) -> None:
    events = list(GOOD)
    for _, what in damage:
        at = data.draw(st.integers(0, len(events) - 2))
        if what == "drop":
            del events[at]
        elif what == "twice":
            events.insert(at, events[at])
        elif what == "swap":
            events[at], events[at + 1] = events[at + 1], events[at]
        else:
            events[at] = events[at].model_copy(update={"rank": data.draw(st.integers(-1, 9))})
    found = measure(events)
    assert set(NAMES) <= {*found.metrics, *found.missing}
    assert not set(found.metrics) & set(found.missing)
    lost = found.metrics["ranks_lost"].value if "ranks_lost" in found.metrics else 0
    assert 0 <= lost <= 4
    if len([one for one in events if isinstance(one, Finished)]) < 4 and "ranks_lost" in found.metrics:
        assert lost > 0


@settings(max_examples=20)
@given(
    st.lists(st.tuples(st.sampled_from(["samples", "steps", "elapsed_s", "index", "mono"]), figures), max_size=6),
    st.data(),
)
def test_no_figures_raise(changes: list[tuple[str, float]], data: st.DataObject) -> None:
    events = list(GOOD)
    places = [at for at, one in enumerate(events) if isinstance(one, Window)]
    for name, value in changes:
        at = data.draw(st.sampled_from(places))
        raw = {**events[at].model_dump(by_alias=True), name: value}
        try:
            events[at] = Window.model_validate(raw)
        except ValueError:
            continue
    found = measure(events)
    assert set(NAMES) <= {*found.metrics, *found.missing}


def test_a_window_that_claims_far_too_little_time_is_a_contradiction() -> None:
    events = [
        one.model_copy(update={"elapsed_s": 0.001}) if isinstance(one, Window) and one.index == 2 else one
        for one in read("good").events
    ]
    assert any("claims 0.001 s" in text for text in measure(events).disturbances)


def test_a_solo_window_of_somebody_else_is_a_contradiction() -> None:
    events = [
        one.model_copy(update={"subject_rank": 3}) if isinstance(one, Window) and one.phase == "solo" else one
        for one in read("good").events
    ]
    assert "rank 0 reported a window of rank 3 alone" in measure(events).disturbances
