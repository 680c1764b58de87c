from collections.abc import Callable
from pathlib import Path

import pytest
from mirrored.outcome import explain, gist
from mirrored.program import MirroredParams

from common.outcome import Problem, bad_parameter

LOGS = Path(__file__).resolve().parents[3] / "data" / "tensorflow"
GOOD = (LOGS / "good-two-gpus.txt").read_text()
ALL_OF_IT = {0: 15 << 30, 1: 15 << 30}


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's own."""


class InternalError(Exception):
    """Named as TensorFlow's own."""


def told(
    params: MirroredParams,
    error: BaseException,
    log: str = GOOD,
    totals: dict[int, int] | None = None,
    *,
    proven: bool = True,
) -> Problem:
    return explain(error, params, log, ALL_OF_IT if totals is None else totals, proven=proven)


def test_a_batch_that_does_not_fit_names_a_smaller_one(mirrored: Callable[..., MirroredParams]) -> None:
    oom = ResourceExhaustedError("Graph execution error:\n\nOOM when allocating tensor with shape[256,64,112,112]")
    for device in ("cpu", "cuda"):
        problem = told(mirrored(device=device, batch_size=256), oom)
        assert (problem.code, problem.exit_code) == ("out-of-memory", 70)
        assert "--batch-size 128" in problem.next_step


def test_memory_that_somebody_else_holds_is_told_from_a_large_batch(mirrored: Callable[..., MirroredParams]) -> None:
    oom = ResourceExhaustedError("OOM when allocating tensor")
    problem = told(mirrored(device="cuda"), oom, GOOD.replace("GPU:1 with 14384", "GPU:1 with 312"))
    assert (problem.code, problem.exit_code) == ("gpu-memory", 70)
    assert "GPU 1 (NVIDIA A16) had 0.3 of 15.0 GiB" in problem.message


@pytest.mark.parametrize(
    "error",
    [
        InternalError(
            "failed initializing StreamExecutor: failed call to cuDevicePrimaryCtxRetain: CUDA_ERROR_OUT_OF_MEMORY: out of memory"
        ),
        ResourceExhaustedError("OOM when allocating tensor with shape[67108864]"),
    ],
)
def test_no_memory_before_anything_was_proven_is_somebody_else_s(
    mirrored: Callable[..., MirroredParams], error: Exception
) -> None:
    problem = told(mirrored(device="cuda"), error, totals={}, proven=False)
    assert (problem.code, problem.exit_code) == ("gpu-memory", 70)
    assert "nvidia-smi" in problem.next_step


def test_a_gpu_that_does_not_start_is_named(mirrored: Callable[..., MirroredParams]) -> None:
    words = "INTERNAL: failed initializing StreamExecutor for CUDA device ordinal 1: INTERNAL: failed call to "
    error = RuntimeError(
        words + "cuDevicePrimaryCtxRetain: CUDA_ERROR_DEVICE_UNAVAILABLE: CUDA-capable device(s) is/are busy"
    )
    problem = told(mirrored(device="cuda"), error, totals={}, proven=False)
    assert (problem.code, problem.exit_code) == ("cuda-unavailable", 69)
    assert problem.message.startswith("GPU 1 does not start: CUDA_ERROR_DEVICE_UNAVAILABLE")


@pytest.mark.parametrize(
    ("text", "log", "code"),
    [
        ("libdevice not found at ./libdevice.10.bc [Op:__inference_product_12]", GOOD, "library-missing"),
        (
            "'cuLaunchKernel(...)' failed with 'CUDA_ERROR_INVALID_HANDLE'",
            (LOGS / "blackwell-ptx.txt").read_text(),
            "no-kernels",
        ),
        ("DNN library is not found.", (LOGS / "cudnn-too-old.txt").read_text(), "library-missing"),
        ("Graph execution error:\n\nsomething new", GOOD, "rank-failed"),
    ],
)
def test_the_log_explains_what_an_error_does_not(
    mirrored: Callable[..., MirroredParams], text: str, log: str, code: str
) -> None:
    assert told(mirrored(device="cuda"), InternalError(text), log).code == code


def test_on_the_cpu_the_missing_driver_is_no_news(mirrored: Callable[..., MirroredParams]) -> None:
    problem = told(mirrored(), InternalError("something new"), (LOGS / "no-driver.txt").read_text())
    assert (problem.code, problem.message) == ("rank-failed", "InternalError: something new")


def test_a_problem_stays_what_it_is(mirrored: Callable[..., MirroredParams]) -> None:
    assert told(mirrored(), bad_parameter("no", "see --help")).code == "bad-parameter"


def test_the_gist_is_what_happened_not_where() -> None:
    wrapped = 'Graph execution error:\n\nDetected at node Sum defined at (most recent call last):\n  File "/x.py", line 1\n\nwords\n\t [[{{node Sum}}]]'
    assert gist(wrapped) == "words"
    assert gist(
        "{{function_node __wrapped__DecodeImage_device_/device:CPU:0}} Unknown format. [Op:DecodeImage] name: "
    ) == ("Unknown format.")
    assert gist("Graph execution error:") == "Graph execution error:"
    assert gist("") == "no message"
