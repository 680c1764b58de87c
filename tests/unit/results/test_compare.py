from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support import NOON, ROOT, box, result

from vaultcube.results.compare import ComparedMetric, Comparison, Difference, compare
from vaultcube.results.schema import Check, Metric, Provenance, Result, RunInfo, Status, Target, Verdict

OTHER = "tensorflow-20260102-120000-cd34"
RATE = "throughput_samples_per_s"


def other(**changes: Any) -> Result:
    """Return the result of another good run."""
    run = RunInfo(
        id=OTHER,
        workload="tensorflow",
        status=Status.COMPLETED,
        started=NOON,
        finished=NOON + timedelta(seconds=80),
    )
    return result(run=run, **changes)


def rate(value: float, low: float | None = None, high: float | None = None, unit: str = "samples/s") -> Metric:
    return Metric(value=value, unit=unit, ci95=None if low is None or high is None else (low, high))


def compared(first: Metric | None, second: Metric | None) -> ComparedMetric:
    found = compare(
        result(metrics={RATE: first} if first else {}), other(metrics={RATE: second} if second else {})
    ).metrics
    assert [one.name for one in found] == [RATE]
    return found[0]


def differences(first: Result, second: Result) -> dict[str, tuple[Any, Any]]:
    return {one.what: (one.first, one.second) for one in compare(first, second).differences}


def test_two_runs_of_the_same_differ_in_nothing() -> None:
    again = result().model_copy(update={"run": result().run.model_copy(update={"id": "ddp-20260102-120000-cd34"})})
    found = compare(result(), again)
    assert (found.differences, found.notes) == ([], [])
    assert {one.ratio for one in found.metrics if one.name == RATE} == {1.0}


def test_figures_are_held_against_each_other_with_their_intervals() -> None:
    found = compared(rate(7600, 7590, 7611), rate(7000, 6990, 7010))
    assert found.ratio == pytest.approx(7000 / 7600)
    assert found.overlap is False
    assert compared(rate(100, 90, 110), rate(105, 95, 115)).overlap is True
    # Touching is overlapping: nothing lies between them.
    assert compared(rate(100, 90, 110), rate(115, 110, 120)).overlap is True
    assert compared(rate(115, 110, 120), rate(100, 90, 110)).overlap is True


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (rate(100), None),
        (None, rate(100)),
        (rate(100), rate(100, unit="tokens/s")),
        (rate(0), rate(100)),
        (rate(1e-300), rate(1e300)),
    ],
)
def test_what_cannot_be_divided_has_no_ratio(first: Metric | None, second: Metric | None) -> None:
    found = compared(first, second)
    assert (found.ratio, found.overlap) == (None, None)
    assert (found.first, found.second) == (first, second)


def test_an_interval_on_one_side_tells_nothing_apart() -> None:
    found = compared(rate(100, 90, 110), rate(200))
    assert (found.ratio, found.overlap) == (2, None)


def test_what_only_one_of_them_has_comes_after_what_the_first_has() -> None:
    zero = Metric(value=0, unit="devices")
    check = Check(
        name="devices_detected",
        target=Target(op="==", value=0, unit="devices"),
        measured=0,
        verdict=Verdict.PASS,
        reason="0 meets the target",
    )
    second = other(metrics={"devices_missing": zero, RATE: rate(7000)}, checks=[check])
    found = compare(result(), second)
    assert [one.name for one in found.metrics] == [RATE, "ranks_lost", "devices_missing"]
    assert [one.name for one in found.checks] == ["throughput", "gpu_utilisation", "devices_detected"]
    assert (found.checks[-1].first, found.checks[-1].second) == (None, check)


def test_every_parameter_and_part_that_is_not_the_same_is_named() -> None:
    provenance = Provenance(
        vaultcube="0.1.0",
        kernel="Linux 6.8.0",
        os="Ubuntu 24.04",
        cpu="Threadripper PRO",
        images={"tensorflow": "sha256:2"},
        frameworks={"tensorflow": "2.17.1"},
        compose_sha256="1" * 64,
    )
    found = differences(
        result(params={"batch_size": 256, "channels_last": True}),
        other(params={"batch_size": 128, "xla": False}, provenance=provenance, gpus=list(box(2).gpus)),
    )
    uuids = sorted(gpu.uuid for gpu in box(4).gpus)
    assert found == {
        "workload": ("ddp", "tensorflow"),
        "gpus": ("4x NVIDIA GeForce RTX 5090", "2x NVIDIA GeForce RTX 5090"),
        "gpu uuids": (uuids, uuids[:2]),
        "batch_size": (256, 128),
        "channels_last": (True, None),
        "xla": (None, False),
        "images.tensorflow": (None, "sha256:2"),
        "frameworks.tensorflow": (None, "2.17.1"),
    }


def test_what_makes_figures_hard_to_compare_is_said() -> None:
    failed = result().run.model_copy(update={"status": Status.TIMEOUT})
    first = result(run=failed, disturbances=["clocks were held back", "and more"])
    assert compare(first, other(simulated=True, device="cpu", gpus=[])).notes == [
        f"{first.run.id} did not complete (timeout): its figures are of what it came to",
        f"{first.run.id} was disturbed: clocks were held back (and 1 more)",
        f"{OTHER} is simulated: its figures are of no real GPU",
        "one ran on GPUs and the other on the CPU",
    ]
    assert compare(result(), other(gpus=list(box(2).gpus))).notes == ["one ran on 4 GPU(s) and the other on 2"]


def test_a_comparison_follows_its_published_schema() -> None:
    schema = json.loads((ROOT / "docs/schema/compare.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    found = compare(result(), other(metrics={}, params={"data": "/x", "flags": ["--a"]}))
    document = json.loads(found.to_json())
    jsonschema.validate(document, schema)
    assert document["schema"] == "vaultcube.compare/1"
    assert Comparison.model_validate_json(found.to_json()).metrics == found.metrics


values = st.floats(allow_nan=False, allow_infinity=False)
metrics = st.dictionaries(
    st.sampled_from("abc"),
    st.builds(
        lambda value, ends, unit: Metric(value=value, unit=unit, ci95=ends and (min(ends), max(ends))),
        values,
        st.none() | st.tuples(values, values),
        st.sampled_from(["s", "bytes"]),
    ),
)


@given(metrics, metrics)
def test_the_other_way_round_is_the_same_but_for_the_side(first: dict[str, Metric], second: dict[str, Metric]) -> None:
    there = {one.name: one for one in compare(result(metrics=first), other(metrics=second)).metrics}
    back = {one.name: one for one in compare(other(metrics=second), result(metrics=first)).metrics}
    assert there.keys() == back.keys() == first.keys() | second.keys()
    for name, one in there.items():
        assert one.overlap == back[name].overlap
        assert (one.first, one.second) == (back[name].second, back[name].first)


@given(st.dictionaries(st.sampled_from("abc"), st.none() | st.integers() | st.lists(st.integers())))
def test_the_same_parameters_are_no_difference(params: dict[str, Any]) -> None:
    assert compare(result(params=params), other(params=params)).differences == [
        Difference(what="workload", first="ddp", second="tensorflow")
    ]
