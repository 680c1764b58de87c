from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support import STARTED, event

from vaultcube.results.devices import NAMES, measure_devices
from vaultcube.results.events import AnyEvent

TWO = ("matmul", "xla_matmul")
START = event("started", rank=-1, world_size=2, **STARTED)
ON_CPU = event("started", rank=-1, world_size=2, **{**STARTED, "device": "cpu"})


def detection(found: int, names: list[str], *, rank: int = 0) -> AnyEvent:
    return event("detection", rank=rank, wanted=2, found=found, names=names)


def operation(rank: int, name: str = "matmul", **changed: Any) -> AnyEvent:
    placed = f"/job:localhost/replica:0/task:0/device:GPU:{rank}"
    fields: dict[str, Any] = {"name": name, "placed": placed, "elements": 9, "mismatches": 0}
    return event("operation", rank=rank, **(fields | changed))


def allocation(rank: int, **changed: Any) -> AnyEvent:
    fields: dict[str, Any] = {"growth": True, "bytes": 1024, "peak_bytes": None}
    return event("allocation", rank=rank, **(fields | changed))


def measure(*events: AnyEvent, start: AnyEvent = START) -> dict[str, float | str]:
    """Return the value of each metric, or why there is none."""
    found = measure_devices([start, *events], 2, TWO)
    assert not found.metrics.keys() & found.missing.keys()
    return {name: metric.value for name, metric in found.metrics.items()} | dict(found.missing)


def test_every_device_is_there_computes_right_and_has_memory() -> None:
    told = [operation(rank, name) for rank in (0, 1) for name in TWO]
    found = measure(detection(2, ["a", "b"]), *told, allocation(0), allocation(1))
    assert found == {"devices_missing": 0, "operation_mismatches": 0, "allocations_failed": 0}


@pytest.mark.parametrize(
    ("events", "missing"),
    [
        ([detection(1, ["a"])], 1),
        ([detection(0, [])], 2),
        # More than were wanted are none too few; whose they are is for others to say.
        ([detection(3, ["a", "b", "c"])], 0),
        # One that is told twice is one.
        ([detection(2, ["a", "a"])], 1),
        # A better word does not wash off the worse one.
        ([detection(1, ["a"]), detection(2, ["a", "b"], rank=-1)], 1),
    ],
)
def test_devices_that_the_framework_does_not_list_are_missing(events: list[AnyEvent], missing: int) -> None:
    assert measure(*events)["devices_missing"] == missing


def test_a_result_that_was_computed_elsewhere_is_wrong_altogether() -> None:
    told = [operation(0, name) for name in TWO] + [operation(1), operation(1, "xla_matmul", placed="/device:CPU:0")]
    assert measure(*told)["operation_mismatches"] == 9
    assert measure(operation(1, placed="/device:GPU:0"))["operation_mismatches"] == 9
    assert measure(operation(1, placed="/device:GPU:11"))["operation_mismatches"] == 9
    assert measure(operation(0, placed="/device:CPU:0"), start=ON_CPU)["operation_mismatches"] == (
        "only 1 of 4 operations were reported"
    )


def test_one_wrong_element_is_enough_and_silence_is_no_proof() -> None:
    assert measure(operation(1, mismatches=1))["operation_mismatches"] == 1
    assert measure(operation(1), operation(1))["operation_mismatches"] == "only 1 of 4 operations were reported"
    # A stranger proves nothing.
    assert (
        measure(*(operation(7, name) for name in TWO))["operation_mismatches"] == "only 0 of 4 operations were reported"
    )


def test_memory_that_is_taken_whole_or_not_at_all_fails_its_device() -> None:
    assert measure(allocation(0, growth=False), allocation(1))["allocations_failed"] == 1
    assert measure(allocation(0, bytes=0), allocation(0), allocation(1, growth=False))["allocations_failed"] == 2
    assert measure(allocation(0), allocation(0))["allocations_failed"] == "only 1 of 2 devices reported it"
    # Main memory always grows.
    assert measure(allocation(0, growth=False), allocation(1), start=ON_CPU)["allocations_failed"] == 0


def test_a_run_that_never_started_has_no_figures() -> None:
    found = measure_devices([detection(2, ["a", "b"])], 2, TWO)
    assert found.metrics == {}
    assert found.missing == dict.fromkeys(NAMES, "the workload never started")


some = st.one_of(
    st.builds(detection, st.integers(0, 9), st.lists(st.text(max_size=2))),
    st.builds(
        lambda rank, name, placed, wrong: operation(rank, name, placed=placed, mismatches=wrong),
        st.integers(-1, 3),
        st.text(max_size=3),
        st.text(max_size=8),
        st.integers(0, 10**15),
    ),
    st.builds(lambda rank, grows: allocation(rank, growth=grows), st.integers(-1, 3), st.booleans()),
)


@given(st.lists(some, max_size=8))
def test_whatever_is_said_every_figure_is_there_or_its_absence_explained(events: list[AnyEvent]) -> None:
    found = measure_devices([START, *events], 2, TWO)
    assert found.metrics.keys() | found.missing.keys() == set(NAMES)
    assert all(metric.value >= 0 for metric in found.metrics.values())
