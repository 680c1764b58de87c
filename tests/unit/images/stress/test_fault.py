import pytest
from stress.fault import Fault, asked, parse

from common.outcome import Problem


def test_nothing_is_asked_for() -> None:
    assert parse("") is None
    assert asked({}) == ""


def test_one_iteration_or_all() -> None:
    one, every = parse("flip:bf16:12"), parse("hang:memory:all")
    assert (one, every) == (Fault("flip", "bf16", 12), Fault("hang", "memory", None))
    assert one is not None
    assert [number for number in range(20) if one.hits("flip", "bf16", number)] == [12]
    assert not one.hits("fail", "bf16", 12)
    assert not one.hits("flip", "fp32", 12)
    assert every is not None
    assert every.hits("hang", "memory", 10**9)


@pytest.mark.parametrize("text", ["flip", "flip:bf16", "flip:fp64:1", "melt:bf16:1", "flip:bf16:-1", "flip:bf16:1 "])
def test_nonsense_is_exit_64(text: str) -> None:
    with pytest.raises(Problem, match="STRESS_FAULT") as caught:
        asked({"STRESS_FAULT": text})
    assert caught.value.exit_code == 64
