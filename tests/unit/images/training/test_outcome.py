import json
from collections.abc import Callable
from pathlib import Path

import pytest
from ddp.program import DdpParams

from common.events import EventWriter
from common.outcome import Problem, bad_parameter, first_line
from training.outcome import explain
from training.params import Job, Params


class OutOfMemoryError(RuntimeError):
    """Named as torch's own."""


class UnidentifiedImageError(OSError):
    """Named as Pillow's own."""


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), "out-of-memory", 70),
        (RuntimeError("CUDA error: out of memory"), "out-of-memory", 70),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out-of-memory", 70),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), "out-of-memory", 70),
        (MemoryError(), "out-of-memory", 70),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), "no-kernels", 69),
        (RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]"), "peer-lost", 70),
        (RuntimeError("CUDA error: an illegal memory access was encountered\nmore"), "device-failed", 70),
        (RuntimeError("NCCL error in: NCCLUtils.hpp:317, unhandled system error"), "device-failed", 70),
        (
            RuntimeError("NCCL error ... Last error:\nError while creating shared memory segment nccl-x"),
            "shared-memory-too-small",
            70,
        ),
        (ZeroDivisionError("division by zero"), "rank-failed", 70),
        (bad_parameter("no", "see --help"), "bad-parameter", 64),
    ],
)
def test_errors_are_explained(params: Callable[..., Params], error: BaseException, code: str, exit_code: int) -> None:
    problem = explain(error, params())
    assert (problem.code, problem.exit_code) == (code, exit_code)
    assert problem.next_step


def test_out_of_memory_names_a_smaller_batch(params: Callable[..., Params]) -> None:
    assert "--batch-size 128" in explain(MemoryError(), params(batch_size=256)).next_step
    assert "smaller model" in explain(MemoryError(), params(batch_size=1)).next_step


def test_a_file_that_is_no_image_is_the_data_s_fault_only_where_there_is_data(params: Callable[..., Params]) -> None:
    error = UnidentifiedImageError("cannot identify image file '/data/a/1.jpg'")
    assert explain(error, params(data="/data")).code == "data-unreadable"
    assert explain(error, params()).code == "rank-failed"


def test_first_line() -> None:
    assert first_line("\n  \n a b \n c") == "a b"
    assert first_line("") == "no message"
    assert len(first_line("x" * 1000)) == 300


def test_a_problem_is_told_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = Problem("hang", "no progress", "look", 70)
    problem.tell()
    assert capsys.readouterr().err == "error [hang]: no progress\n  next: look\n"
    problem.record(EventWriter(tmp_path / "e", 1))
    event = json.loads((tmp_path / "e").read_text())
    fields = ("kind", "rank", "code", "message", "next_step", "exit_code")
    assert tuple(event[name] for name in fields) == ("error", 1, "hang", "no progress", "look", 70)


def test_a_job_survives_its_journey(params: Callable[..., Params]) -> None:
    job = Job(params(data="/with \N{SNOWMAN} and \udcff"), "/e", "/b", "/r")
    assert Job.from_json(job.to_json(), DdpParams) == job
