import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.outcome import Problem
from training import arch

CU124 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CU128 = ["sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        (CU124, (8, 6), True),
        (CU124, (8, 9), True),  # Ada runs Ampere's code
        (CU124, (9, 0), True),
        (CU124, (10, 0), False),
        (CU124, (12, 0), False),
        (CU124, (3, 5), False),
        (CU128, (12, 0), True),
        (CU128, (12, 1), True),
        (CU128, (11, 0), False),
        (CU128, (6, 1), False),
        (["sm_89"], (8, 6), False),  # newer minor than the GPU
        (["compute_90"], (9, 0), True),
        (["compute_90"], (12, 0), True),  # PTX runs on everything newer
        (["compute_90"], (8, 9), False),
        (["sm_90a"], (9, 0), True),
        (["sm_90a"], (10, 0), False),
        (["compute_90a"], (12, 0), False),
        (["sm_100f"], (10, 3), True),
        (["sm_100f"], (12, 0), False),
        (["compute_100f"], (12, 0), False),
        ([], (8, 0), False),
        (["gfx90a", "sm_", "sm_x0", "sm_9"], (9, 0), False),
    ],
)
def test_what_runs_on_what(architectures: list[str], capability: tuple[int, int], *, runs: bool) -> None:
    assert arch.runs_on(architectures, capability) is runs


@given(built=st.tuples(st.integers(1, 20), st.integers(0, 9)), gpu=st.tuples(st.integers(1, 20), st.integers(0, 9)))
def test_binaries_need_the_same_major_and_ptx_only_something_newer(
    built: tuple[int, int], gpu: tuple[int, int]
) -> None:
    assert arch.runs_on([f"sm_{built[0]}{built[1]}"], gpu) is (built[0] == gpu[0] and built[1] <= gpu[1])
    assert arch.runs_on([f"compute_{built[0]}{built[1]}"], gpu) is (built <= gpu)


def refusal(capability: tuple[int, int], architectures: list[str], precision: str, flavour: str) -> Problem:
    with pytest.raises(Problem) as caught:
        arch.check("NVIDIA GeForce RTX 5090", capability, architectures, precision, flavour)
    return caught.value


def test_cu124_on_blackwell_names_cu128() -> None:
    problem = refusal((12, 0), CU124, "bf16", "cu124")
    assert (problem.code, problem.exit_code) == ("no-kernels", 69)
    assert "RTX 5090" in problem.message
    assert "12.0" in problem.message
    assert "cu128" in problem.next_step


def test_cu128_on_an_old_gpu_names_cu124() -> None:
    assert "cu124" in refusal((6, 1), CU128, "fp32", "cu128").next_step


def test_no_flavour_is_named_where_none_can() -> None:
    assert "no flavour" in refusal((3, 5), CU124, "fp32", "cu124").next_step
    assert "no flavour" in refusal((13, 0), CU128, "fp32", "cu128").next_step


@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_a_precision_without_units_for_it_is_refused(precision: str) -> None:
    problem = refusal((7, 5), CU124, precision, "cu124")
    assert (problem.code, problem.exit_code) == ("precision-unsupported", 69)


def test_what_can_run_is_left_alone() -> None:
    arch.check("A100", (8, 0), CU124, "bf16", "cu124")
    arch.check("T4", (7, 5), CU124, "fp32", "")
