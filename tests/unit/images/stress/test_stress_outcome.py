import pytest
from stress.outcome import explain

from common.outcome import Problem, bad_parameter


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be"), "device-failed"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"), "device-failed"),
        (RuntimeError("CUDA driver error: device not ready"), "device-failed"),
        (RuntimeError("CUDA error: out of memory"), "out-of-memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), "out-of-memory"),
        (MemoryError(), "out-of-memory"),
        (ModuleNotFoundError("No module named 'torch'"), "worker-failed"),
    ],
)
def test_whatever_it_was_it_has_a_name(error: Exception, code: str) -> None:
    problem = explain(error)
    assert (problem.code, problem.exit_code) == (code, 70)
    assert "\n" not in problem.message
    assert problem.next_step


def test_a_problem_stays_what_it_is() -> None:
    problem = bad_parameter("a", "b")
    assert isinstance(explain(problem), Problem)
    assert explain(problem) is problem
