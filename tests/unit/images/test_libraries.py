import json
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import libraries

IMAGES = Path(libraries.__file__).parents[1]
REQUIRED = ("libcudart", "libcudnn")
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


def problems(*mapped: str, versions: dict[str, tuple[int, ...] | None] | None = None) -> dict[str, str]:
    told = {CUDART: (12, 4), CUDNN: (9, 1, 0)} | (versions or {})
    findings = libraries.inspect(mapped, FILES, LOCK, REQUIRED, told.get)
    return {finding.library: finding.problem for finding in findings if finding.problem}


def test_maps_are_read() -> None:
    assert libraries.parse_maps(MAPS) == {CUDART, "/a folder/libx.so"}


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

    found = libraries.inspect([CUDART, CUDNN], FILES, LOCK, REQUIRED, read)
    assert all("does not tell its version" in str(finding.problem) for finding in found)


def test_a_base_s_own_library_is_held_against_what_the_base_is_known_to_have() -> None:
    own = "/usr/local/cuda/lib64/libcudart.so.12"
    files = {"libcudnn.so.9": (CUDNN, "nvidia-cudnn-cu12")}
    told = {own: (12, 8), CUDNN: (9, 1, 0)}

    def wrong(base: dict[str, str], *mapped: str) -> dict[str, str | None]:
        found = libraries.inspect(mapped, files, LOCK, REQUIRED, told.get, base)
        return {finding.library: finding.problem for finding in found if finding.problem}

    assert wrong({"libcudart": "12.8"}, own, CUDNN) == {}
    assert wrong({}, own, CUDNN) == {}
    assert "says it is 12.8" in str(wrong({"libcudart": "12.9"}, own, CUDNN)["libcudart"])
    # What was laid over the base still has to come first.
    assert "is not the one" in str(wrong({"libcudart": "12.8"}, own, "/usr/lib/libcudnn.so.9")["libcudnn"])
    assert "2 places" in str(wrong({"libcudart": "12.8"}, own, CUDNN, "/usr/lib/libcudart.so.12")["libcudart"])


def test_a_cudnn_that_cannot_use_its_parts_is_named() -> None:
    # Any library will do: it has no such function.
    libc = next(path for path in libraries.mapped() if "/libc.so" in path)
    with pytest.raises(OSError, match="libcudnn cannot use its parts"):
        libraries.load_cudnn(libc, ["cudnnOpsInferVersionCheck"])


def test_what_nobody_has_opened_yet_is_opened() -> None:
    libraries.load_the_rest({"libcudart.so.12": ("/nonsuch", "nvidia-cuda-runtime-cu12")})
    with pytest.raises(OSError, match="nonsuch"):
        libraries.load_the_rest({"libnvrtc-builtins.so.12.4": ("/nonsuch", "nvidia-cuda-nvrtc-cu12")})


@pytest.mark.parametrize(
    ("version", "pinned", "same"),
    [
        ((12, 4), "12.4.127", True),
        ((12, 4, 5), "12.4.5.8", True),
        ((0, 6, 2), "0.6.2", True),
        ((12, 4), "12.40.1", False),
        ((12,), "12.4", True),
        ((9, 7, 1), "9", True),
        ((9, 7, 1), "8", False),
        ((2, 6, 0), "2.6.0+cu124", True),
        ((2, 6, 1), "2.6.0+cu124", False),
    ],
)
def test_versions_are_compared_as_far_as_they_go(version: tuple[int, ...], pinned: str, *, same: bool) -> None:
    assert libraries.matches(version, pinned) is same


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_numbers_are_taken_apart(major: int, minor: int, patch: int) -> None:
    assert libraries.runtime_version(major * 1000 + minor * 10) == (major, minor)
    assert libraries.nccl_version(major * 10000 + minor * 100 + patch) == (major, minor, patch)


@pytest.mark.parametrize(
    ("image", "flavour", "framework", "cudnn"),
    [
        ("pytorch", "cu124", ("torch", "2.6.0"), "9.1.0.70"),
        ("pytorch", "cu128", ("torch", "2.8.0"), "9.10.2.21"),
        ("tensorflow", "cu124", ("tensorflow", "2.17.1"), "8.9.7.29"),
    ],
)
def test_locks_are_read(image: str, flavour: str, framework: tuple[str, str], cudnn: str) -> None:
    lock = libraries.parse_lock((IMAGES / image / "requirements" / f"{flavour}.txt").read_text())
    assert lock[framework[0]] == (framework[1], False)
    assert lock["nvidia-cudnn-cu12"][0] == cudnn
    # TensorFlow has NCCL compiled in.
    assert ("nvidia-nccl-cu12" in lock) is (image == "pytorch")


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
    found = {finding.library: finding.problem for finding in libraries.distributions(lock, cuda=True)}
    assert found == {
        "numpy": "is installed as 2.0.0, the lock says 2.2.6",
        "sympy": "is not installed",
        "nvidia-nccl-cu12": "is not installed",
    }
    assert "nvidia-nccl-cu12" not in {one.library for one in libraries.distributions(lock, cuda=False)}


@pytest.mark.parametrize("problem", [None, "is not loaded from anywhere"])
def test_the_command_says_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], problem: str | None
) -> None:
    finding = libraries.Finding("libcudart", CUDART, "12.4", "12.4.127", problem)
    framework: dict[str, object] = {"torch": "2.6.0+cu124", "cuda": "12.4", "architectures": ["sm_90"]}
    asked: list[Path] = []

    def check(lock: Path) -> tuple[list[libraries.Finding], dict[str, object]]:
        asked.append(lock)
        return [finding], framework

    def run(*argv: str) -> int:
        return libraries.run(argv, "About.", tmp_path / "lock.txt", check)

    assert run("--json") == (1 if problem else 0)
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is (problem is None)
    assert document["findings"][0]["library"] == "libcudart"
    assert document["framework"] == framework
    run("--lock", str(tmp_path / "other.txt"))
    printed = capsys.readouterr()
    assert ("selfcheck: libcudart is not loaded" in printed.err) is (problem is not None)
    assert ("ok: torch 2.6.0+cu124, CUDA 12.4" in printed.out) is (problem is None)
    assert [path.name for path in asked] == ["lock.txt", "other.txt"]
