import json
from importlib import metadata
from pathlib import Path

import pytest
import selfcheck
from hypothesis import given
from hypothesis import strategies as st

REQUIREMENTS = Path(selfcheck.__file__).parent / "requirements"
SITE = "/opt/venv/lib/python3.11/site-packages/nvidia"
CUDART, CUDNN = f"{SITE}/cuda_runtime/lib/libcudart.so.12", f"{SITE}/cudnn/lib/libcudnn.so.9"
FILES = {
    "libcudart.so.12": (CUDART, "nvidia-cuda-runtime-cu12"),
    "libcudnn.so.9": (CUDNN, "nvidia-cudnn-cu12"),
}
LOCK = {"nvidia-cuda-runtime-cu12": ("12.4.127", True), "nvidia-cudnn-cu12": ("9.1.0.70", True)}
MAPS = f"""\
55d0c0000000-55d0c0001000 r--p 00000000 00:2e 123 /usr/bin/python3.11
7f0000000000-7f0000001000 r-xp 00000000 00:2e 124 {CUDART}
7f0000001000-7f0000002000 rw-p 00000000 00:2e 124 {CUDART}
7f0000002000-7f0000003000 rw-p 00000000 00:00 0
7f0000003000-7f0000004000 r-xp 00000000 00:2e 125 /a folder/libx.so
7ffd00000000-7ffd00001000 rw-p 00000000 00:00 0                          [stack]
"""


@pytest.fixture(autouse=True)
def _only_two_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfcheck, "READERS", {"libcudart": None, "libcudnn": None})


def problems(*mapped: str, versions: dict[str, tuple[int, ...] | None] | None = None) -> dict[str, str]:
    told = {CUDART: (12, 4), CUDNN: (9, 1, 0)} | (versions or {})
    findings = selfcheck.inspect(mapped, FILES, LOCK, told.get)
    return {finding.library: finding.problem for finding in findings if finding.problem}


def test_maps_are_read() -> None:
    assert selfcheck.parse_maps(MAPS) == {CUDART, "/a folder/libx.so"}


def test_the_pinned_libraries_from_their_place_are_fine() -> None:
    assert problems(CUDART, CUDNN, "/usr/lib/x86_64-linux-gnu/libcuda.so.1", "/usr/lib/libc.so.6") == {}


def test_a_missing_library_is_named() -> None:
    assert problems(CUDART) == {"libcudnn": "is not loaded from anywhere"}


def test_a_second_copy_is_found() -> None:
    other = "/usr/local/cuda/lib64/libcudart.so.12"
    assert "2 places" in problems(CUDART, CUDNN, other)["libcudart"]


def test_a_second_major_version_is_a_copy_too() -> None:
    assert "2 places" in problems(CUDART, CUDNN, "/usr/lib/libcudart.so.11")["libcudart"]


def test_a_copy_instead_of_the_wheel_s_is_found() -> None:
    assert "is not the one the locked wheels brought" in problems("/usr/lib/libcudart.so.12", CUDNN)["libcudart"]


def test_a_library_nobody_locked_is_found() -> None:
    assert "libcublas" in problems(CUDART, CUDNN, "/usr/lib/libcublas.so.12")


def test_a_wrong_version_is_found() -> None:
    wrong = problems(CUDART, CUDNN, versions={CUDNN: (9, 2, 0)})
    assert wrong == {"libcudnn": "says it is 9.2.0, the lock says 9.1.0.70"}


def test_a_library_that_does_not_answer_is_found() -> None:
    def read(path: str) -> tuple[int, ...]:
        raise OSError(f"{path} is torn")

    found = selfcheck.inspect([CUDART, CUDNN], FILES, LOCK, read)
    assert all("does not tell its version" in str(finding.problem) for finding in found)


@pytest.mark.parametrize(
    ("version", "pinned", "same"),
    [
        ((12, 4), "12.4.127", True),
        ((12, 4, 5), "12.4.5.8", True),
        ((0, 6, 2), "0.6.2", True),
        ((12, 4), "12.40.1", False),
        ((12,), "12.4", True),
        ((2, 6, 0), "2.6.0+cu124", True),
        ((2, 6, 1), "2.6.0+cu124", False),
    ],
)
def test_versions_are_compared_as_far_as_they_go(version: tuple[int, ...], pinned: str, *, same: bool) -> None:
    assert selfcheck.matches(version, pinned) is same


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_numbers_are_taken_apart(major: int, minor: int, patch: int) -> None:
    assert selfcheck.runtime_version(major * 1000 + minor * 10) == (major, minor)
    assert selfcheck.nccl_version(major * 10000 + minor * 100 + patch) == (major, minor, patch)


@pytest.mark.parametrize(
    ("flavour", "torch", "cudnn"), [("cu124", "2.6.0", "9.1.0.70"), ("cu128", "2.8.0", "9.10.2.21")]
)
def test_locks_are_read(flavour: str, torch: str, cudnn: str) -> None:
    lock = selfcheck.parse_lock((REQUIREMENTS / f"{flavour}.txt").read_text())
    assert lock["torch"] == (torch, False)
    assert lock["nvidia-cudnn-cu12"] == (cudnn, True)
    assert "nvidia-nccl-cu12" in lock


def test_distributions_are_held_against_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"torch": "2.6.0+cu124", "numpy": "2.0.0"}

    def version(name: str) -> str:
        try:
            return installed[name]
        except KeyError:
            raise metadata.PackageNotFoundError(name) from None

    monkeypatch.setattr(metadata, "version", version)
    lock = {
        "torch": ("2.6.0", False),
        "numpy": ("2.2.6", False),
        "sympy": ("1.13.1", False),
        "setuptools": ("80.10.2", True),
        "nvidia-nccl-cu12": ("2.21.5", True),
    }
    found = {finding.library: finding.problem for finding in selfcheck.distributions(lock, cuda=True)}
    assert found == {
        "numpy": "is installed as 2.0.0, the lock says 2.2.6",
        "sympy": "is not installed",
        "nvidia-nccl-cu12": "is not installed",
    }
    assert "nvidia-nccl-cu12" not in {one.library for one in selfcheck.distributions(lock, cuda=False)}


@pytest.mark.parametrize("problem", [None, "is not loaded from anywhere"])
def test_the_command_says_what_it_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], problem: str | None
) -> None:
    finding = selfcheck.Finding("libcudart", CUDART, "12.4", "12.4.127", problem)
    framework = {"torch": "2.6.0+cu124", "cuda": "12.4", "architectures": ["sm_90"]}
    monkeypatch.setattr(selfcheck, "check", lambda _lock: ([finding], framework))
    assert selfcheck.main(["--json"]) == (1 if problem else 0)
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is (problem is None)
    assert document["findings"][0]["library"] == "libcudart"
    selfcheck.main([])
    printed = capsys.readouterr()
    assert ("selfcheck: libcudart is not loaded" in printed.err) is (problem is not None)
