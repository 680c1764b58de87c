"""Parameters of a soak, the argv of its workers and of its judge."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultcube.errors import BadParameterError
from vaultcube.workloads.stress import WORKLOAD, StressParams


def params(device: Any = "cuda", **given: Any) -> StressParams:
    found = WORKLOAD.resolve(None, given, device)
    assert isinstance(found, StressParams)
    return found


def test_a_day_on_gpus_and_a_minute_without() -> None:
    assert params().seconds == 86400
    assert params("cpu").seconds == 60


def test_every_worker_is_told_the_same_but_its_name() -> None:
    one, other = (WORKLOAD.worker_command(params(), key=key, device="cuda") for key in ("gpu-0", "gpu-7"))
    assert [(a, b) for a, b in zip(one, other, strict=True) if a != b] == [("gpu-0", "gpu-7")]
    assert one[:3] == ["python3", "-m", "stress"]
    flags = dict(zip(one[3::2], one[4::2], strict=True))
    assert flags["--seconds"] == "86400"
    assert flags["--phases"] == "bf16,tf32,fp32,memory,transfer"
    assert flags["--recorder-lost-s"] == "60"
    assert flags["--on-fault"] == "gpu"
    assert "--max-celsius" not in flags


def test_without_a_gpu_nothing_is_recorded_and_nothing_waited_for() -> None:
    argv = WORKLOAD.worker_command(params("cpu", recorder_lost_s=60), key="gpu-0", device="cpu")
    flags = dict(zip(argv[3::2], argv[4::2], strict=True))
    assert (flags["--recorder-lost-s"], flags["--phases"]) == ("0", "fp32,memory")


def test_the_judge_knows_the_rungs() -> None:
    assert WORKLOAD.judge_command(params()) == ["stress", "judge", "/results", "--wait"]
    climbing = params(hours=24, ladder=(1, 6.5, 24))
    assert WORKLOAD.judge_command(climbing)[-2:] == ["--ladder", "1,6.5,24"]


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"hours": 0}, "hours"),
        ({"hours": -1}, "hours"),
        ({"hours": float("nan")}, "hours"),
        ({"hours": float("inf")}, "hours"),
        ({"hours": 721}, "hours"),
        ({"hours": 6, "ladder": (6, 1)}, "ascend"),
        ({"hours": 6, "ladder": (1, 1, 6)}, "ascend"),
        ({"hours": 6, "ladder": (0, 6)}, "ascend"),
        ({"hours": 6, "ladder": (1, 5)}, "ends with all hours"),
        ({"phases": "bf16,bf16"}, "twice"),
        ({"phases": "bf16,warm"}, "phases"),
        ({"max_celsius": 1000}, "max_celsius"),
        ({"recorder_lost_s": -1}, "recorder_lost_s"),
    ],
)
def test_nonsense_is_refused_with_the_command_that_explains(given_: dict[str, Any], said: str) -> None:
    with pytest.raises(BadParameterError) as caught:
        params(**given_)
    assert said in caught.value.message
    assert "vaultcube stress --help" in str(caught.value.next_step)


@given(st.floats(0.001, 720))
def test_any_hours_in_range_are_whole_seconds(hours: float) -> None:
    found = params(hours=hours).seconds
    assert found >= 1
    assert abs(found - hours * 3600) <= 0.5 or found == 1
