from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultcube.results.judge import CheckSpec, Measurement, judge
from vaultcube.results.schema import Metric, Operator, Target, Verdict

GRAVITY = [Verdict.PASS, Verdict.UNAVAILABLE, Verdict.INVALID, Verdict.FAIL]
OPS: list[Operator] = [">=", "<=", "=="]


def spec(op: Operator = ">=", value: float = 10, *, timed: bool = False, needs_gpu: bool = False) -> CheckSpec:
    return CheckSpec(
        name="rate",
        metric="rate",
        target=Target(op=op, value=value, unit="samples/s"),
        timed=timed,
        needs_gpu=needs_gpu,
    )


def measured(value: float, ci95: tuple[float, float] | None = None, *disturbances: str) -> Measurement:
    return Measurement(metrics={"rate": Metric(value=value, unit="samples/s", ci95=ci95)}, disturbances=disturbances)


def one(asked: CheckSpec, found: Measurement, device: Literal["cuda", "cpu"] = "cuda") -> tuple[Verdict, str]:
    (check,), _ = judge([asked], found, device=device, simulated=False)
    return check.verdict, check.reason


@pytest.mark.parametrize(
    ("op", "value", "ci95", "verdict"),
    [
        (">=", 10.0, None, Verdict.PASS),
        (">=", 9.999, None, Verdict.FAIL),
        # The end of the interval that is less in our favour decides, not the value.
        (">=", 11.0, (9.0, 13.0), Verdict.FAIL),
        (">=", 11.0, (10.0, 12.0), Verdict.PASS),
        ("<=", 9.0, (8.0, 11.0), Verdict.FAIL),
        ("<=", 9.0, (8.0, 10.0), Verdict.PASS),
        # Counts have no interval to hide in.
        ("==", 10.0, None, Verdict.PASS),
        ("==", 11.0, (10.0, 12.0), Verdict.FAIL),
    ],
)
def test_a_target_is_held_against_the_bound(
    op: Operator, value: float, ci95: tuple[float, float] | None, verdict: Verdict
) -> None:
    assert one(spec(op), measured(value, ci95))[0] is verdict


def test_a_check_says_which_bound_decided() -> None:
    assert one(spec(), measured(11, (9.0, 13.0))) == (Verdict.FAIL, "the lower bound 9 misses the target")
    assert one(spec("<="), measured(9, (8.0, 9.5))) == (Verdict.PASS, "the upper bound 9.5 meets the target")
    assert one(spec("=="), measured(10)) == (Verdict.PASS, "10 meets the target")


def test_what_was_not_measured_says_why() -> None:
    missing = Measurement(missing={"rate": "the sensor is not there"})
    assert one(spec(), missing) == (Verdict.UNAVAILABLE, "the sensor is not there")
    assert one(spec(), Measurement()) == (Verdict.UNAVAILABLE, "it was not measured")


def test_a_gpu_target_is_not_judged_on_the_cpu_and_the_figure_is_kept() -> None:
    (check,), verdict = judge([spec(needs_gpu=True)], measured(999), device="cpu", simulated=False)
    assert (check.verdict, check.measured, verdict) == (Verdict.UNAVAILABLE, 999, Verdict.UNAVAILABLE)
    assert one(spec(), measured(999), "cpu")[0] is Verdict.PASS


def test_a_disturbance_spoils_timed_checks_only_and_keeps_the_figure() -> None:
    timed, counted = judge(
        [spec(timed=True), spec()], measured(11, None, "clocks throttled", "x"), device="cuda", simulated=False
    )[0]
    assert (timed.verdict, timed.reason, timed.measured) == (Verdict.INVALID, "clocks throttled", 11)
    assert counted.verdict is Verdict.PASS


def test_no_checks_are_no_pass() -> None:
    assert judge([], Measurement(), device="cuda", simulated=False) == ([], Verdict.UNAVAILABLE)


# --- for all measurements -------------------------------------------------------------------------------------

numbers = st.floats(-1e9, 1e9)
metrics = st.builds(
    lambda value, below, above, has: Metric(
        value=value, unit="samples/s", ci95=(value - below, value + above) if has else None
    ),
    numbers,
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.booleans(),
)
names = st.sampled_from(["a", "b", "c"])
specs = st.lists(
    st.builds(
        lambda name, op, value, timed, needs_gpu: CheckSpec(
            name=name, metric=name, target=Target(op=op, value=value, unit="x"), timed=timed, needs_gpu=needs_gpu
        ),
        names,
        st.sampled_from(OPS),
        numbers,
        st.booleans(),
        st.booleans(),
    ),
    max_size=5,
)
measurements = st.builds(
    Measurement,
    st.dictionaries(names, metrics),
    st.dictionaries(names, st.text(min_size=1, max_size=5)),
    st.lists(st.text(min_size=1, max_size=5), max_size=2),
)
devices = st.sampled_from(["cuda", "cpu"])


@given(specs, measurements, devices, st.booleans())
def test_the_verdict_is_the_gravest_of_the_checks(
    asked: list[CheckSpec],
    found: Measurement,
    device: Literal["cuda", "cpu"],
    simulated: bool,  # noqa: FBT001
) -> None:
    checks, verdict = judge(asked, found, device=device, simulated=simulated)
    gravest = max((GRAVITY.index(check.verdict) for check in checks), default=1)
    assert GRAVITY.index(verdict) == max(gravest, int(simulated))


@given(specs, measurements, devices, st.booleans())
def test_nothing_passes_that_was_missing_disturbed_or_on_the_wrong_device(
    asked: list[CheckSpec],
    found: Measurement,
    device: Literal["cuda", "cpu"],
    simulated: bool,  # noqa: FBT001
) -> None:
    checks, verdict = judge(asked, found, device=device, simulated=simulated)
    for wanted, check in zip(asked, checks, strict=True):
        if check.verdict in {Verdict.PASS, Verdict.FAIL}:
            assert wanted.metric in found.metrics
            assert not (wanted.timed and found.disturbances)
            assert device == "cuda" or not wanted.needs_gpu
        assert check.reason
        assert (check.measured is None) == (wanted.metric not in found.metrics)
    assert not (simulated and verdict is Verdict.PASS)


@given(specs, measurements, devices, st.booleans(), st.text(min_size=1, max_size=9))
def test_one_more_disturbance_never_makes_a_pass(
    asked: list[CheckSpec],
    found: Measurement,
    device: Literal["cuda", "cpu"],
    simulated: bool,  # noqa: FBT001
    more: str,
) -> None:
    before = judge(asked, found, device=device, simulated=simulated)[0]
    worse = Measurement(found.metrics, found.missing, [*found.disturbances, more])
    after = judge(asked, worse, device=device, simulated=simulated)[0]
    for was, now in zip(before, after, strict=True):
        assert now.verdict is not Verdict.PASS or was.verdict is Verdict.PASS


@given(specs, measurements, devices, st.booleans())
def test_judging_twice_gives_the_same(
    asked: list[CheckSpec],
    found: Measurement,
    device: Literal["cuda", "cpu"],
    simulated: bool,  # noqa: FBT001
) -> None:
    first = judge(asked, found, device=device, simulated=simulated)
    assert judge(asked, found, device=device, simulated=simulated) == first
