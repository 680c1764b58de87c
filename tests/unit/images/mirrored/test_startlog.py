from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mirrored import startlog
from mirrored.startlog import Created

LOGS = Path(__file__).resolve().parents[3] / "data" / "tensorflow"

CAUSES = [
    ("missing-libraries", "library-missing", 69, "libcusolver.so.11, libcudnn.so.8"),
    ("missing-dependency", "library-missing", 69, "libcusolver.so.11 (needs libnvJitLink.so.12)"),
    ("cudnn-too-old", "library-missing", 69, "cuDNN 8.0.5 was loaded, and TensorFlow was built with 8.6.0"),
    ("no-libdevice", "library-missing", 69, "libdevice.10.bc"),
    ("no-ptxas", "library-missing", 69, "ptxas"),
    ("no-driver", "cuda-unavailable", 69, "no CUDA driver"),
    ("no-libcuda", "cuda-unavailable", 69, "no CUDA driver"),
    ("driver-mismatch", "cuda-unavailable", 69, "kernel module is 460.91.3, its library 470.57.2"),
    ("no-device", "cuda-unavailable", 69, "kernel module is 455.32.0"),
    ("memory-taken", "gpu-memory", 70, "cuDevicePrimaryCtxRetain: CUDA_ERROR_OUT_OF_MEMORY"),
    ("memory-short", "gpu-memory", 70, "failed to allocate 8.41G"),
    ("blackwell", "no-kernels", 69, "compute capability 12.0"),
    ("blackwell-ptx", "no-kernels", 69, "no kernels"),
    ("gpu-ignored", "no-kernels", 69, "Tesla M60"),
    ("2.17.1-no-libcuda", "cuda-unavailable", 69, "no CUDA driver"),
    ("2.17.1-no-cudnn", "library-missing", 69, "libcudnn.so.8"),
    ("2.17.1-too-small", "fewer-devices", 69, "core count: 4"),
    ("aborted", "rank-failed", 70, "ptxas 12.3.103 has a bug"),
]
# The last one ends in an exception, which is told apart.
GOOD = ["good-two-gpus", "no-ptxas-driver-compiles", "2.17.1-no-context"]


def log(name: str) -> str:
    return (LOGS / f"{name}.txt").read_text()


@pytest.mark.parametrize(("name", "code", "exit_code", "says"), CAUSES)
def test_why_gpus_cannot_be_used(name: str, code: str, exit_code: int, says: str) -> None:
    problem = startlog.cause(log(name))
    assert problem is not None
    assert (problem.code, problem.exit_code) == (code, exit_code)
    assert says in problem.message
    assert "\n" not in problem.message
    assert problem.next_step


@pytest.mark.parametrize("name", GOOD)
def test_a_start_that_works_has_no_cause(name: str) -> None:
    assert startlog.cause(log(name)) is None


def test_every_recorded_log_is_read_here() -> None:
    assert {path.stem for path in LOGS.glob("*.txt")} == {*GOOD, *(name for name, *_ in CAUSES)}


def test_gpus_that_were_taken() -> None:
    assert startlog.created(log("good-two-gpus")) == [
        Created(0, 14384 << 20, "NVIDIA A16", "0000:0e:00.0", (8, 6)),
        Created(1, 14384 << 20, "NVIDIA A16", "0000:10:00.0", (8, 6)),
    ]
    assert startlog.created(log("no-ptxas"))[0].compute_capability == (12, 0)
    assert startlog.created(log("no-driver")) == []


def test_a_gpu_that_is_named_twice_is_one() -> None:
    assert len(startlog.created(log("good-two-gpus") * 2)) == 2


def test_libraries_that_tensorflow_can_do_without_are_not_missing() -> None:
    line = "Could not load dynamic library 'libnvinfer.so.8'; dlerror: libnvinfer.so.8: cannot open shared object file"
    assert startlog.missing_libraries(line) == {}
    assert startlog.cause(line) is None


def test_a_library_is_named_also_where_the_loader_s_reason_is_another() -> None:
    line = "Could not load dynamic library 'libcudnn.so.8'; dlerror: libcudnn.so.8: invalid ELF header"
    assert startlog.missing_libraries(line) == {"libcudnn.so.8": "libcudnn.so.8"}


def test_kernels_that_the_driver_can_compile_are_no_problem() -> None:
    line = log("blackwell").replace("12.0", "9.0")
    assert startlog.cause(line) is None


def test_only_what_ended_the_process_is_fatal() -> None:
    assert startlog.fatal(log("aborted")) is not None
    assert startlog.fatal(log("memory-taken")) is not None
    assert startlog.fatal(log("good-two-gpus")) is None
    assert startlog.fatal("F0000 00:00:1749115662.735525   30701 a.cc:1] Check failed: x") is not None
    assert startlog.fatal("Following the guide\nFalse\nF1 score") is None


@given(st.text(max_size=200), st.sampled_from(sorted(path.stem for path in LOGS.glob("*.txt"))), st.integers(0, 3000))
def test_nothing_in_a_log_is_an_error_of_ours(noise: str, name: str, cut: int) -> None:
    text = noise + log(name)[:cut] + noise
    startlog.created(text)
    problem = startlog.cause(text)
    assert problem is None or problem.message
