"""The TensorFlow image's self-check, as far as it can be tried without it: the image's own test runs it whole."""

import ctypes
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.images.conftest import IMAGES

# As ptxas of CUDA 12.4.1 prints it.
PTXAS = """\
ptxas: NVIDIA (R) Ptx optimizing assembler
Copyright (c) 2005-2024 NVIDIA Corporation
Built on Thu_Mar_28_02:14:54_PDT_2024
Cuda compilation tools, release 12.4, V12.4.131
Build cuda_12.4.r12.4/compiler.34097967_0
"""
PINNED, ARCHITECTURES = "12.4.131", ("sm_80", "sm_90")


def module() -> ModuleType:
    """Return the module: its name is the PyTorch image's as well."""
    spec = importlib.util.spec_from_file_location("tf_selfcheck", IMAGES / "tensorflow" / "selfcheck.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


check = module()


@pytest.fixture
def tool(tmp_path: Path) -> Callable[[str], str]:
    """Return what makes a stand-in for ptxas: it tells its version, and does what it is told with a kernel."""

    def make(kernel: str = 'while [ "$1" != -o ]; do shift; done; touch "$2"', version: str = PTXAS) -> str:
        path = tmp_path / "cuda" / "bin" / "ptxas"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then cat <<END\n{version}END\nexit; fi\n{kernel}\n')
        path.chmod(0o755)
        return str(path)

    return make


def test_the_version_that_ptxas_prints_is_read() -> None:
    assert check.tool_version(PTXAS) == PINNED
    assert check.tool_version("ptxas: not found") is None


@given(st.text())
def test_whatever_a_tool_prints_is_no_reason_to_fail(text: str) -> None:
    assert check.tool_version(text) is None or "release" in text


@pytest.mark.parametrize(
    ("flags", "folder"),
    [
        ("--xla_gpu_cuda_data_dir=/opt/venv/nvidia/cuda_nvcc", "/opt/venv/nvidia/cuda_nvcc"),
        ("--xla_dump_to=/tmp --xla_gpu_cuda_data_dir='/a b'", "/a b"),
        ("--xla_gpu_cuda_data_dir=/one --xla_gpu_cuda_data_dir=/two", "/two"),
        ("--xla_dump_to=/tmp", ""),
        ("", ""),
    ],
)
def test_the_folder_is_read_from_the_flags(flags: str, folder: str) -> None:
    assert check.data_dir(flags) == folder


def test_a_ptxas_that_makes_code_for_every_gpu_is_fine(tool: Callable[..., str]) -> None:
    found = check.assembler(tool(), PINNED, ARCHITECTURES)
    assert (found.version, found.pinned, found.problem) == (PINNED, PINNED, None)
    # An image that is not ours pins none.
    assert check.assembler(tool(), None, ARCHITECTURES).problem is None


def test_a_ptxas_that_is_missing_or_another_is_named(tool: Callable[..., str]) -> None:
    assert check.assembler(None, PINNED, ARCHITECTURES).problem == "is not found by XLA"
    assert check.assembler("/nonsuch/ptxas", PINNED, ARCHITECTURES).problem == "does not tell its version"
    assert "the lock says 12.3.107" in str(check.assembler(tool(), "12.3.107", ARCHITECTURES).problem)


def test_a_gpu_that_ptxas_does_not_know_is_named(tool: Callable[..., str]) -> None:
    path = tool('case "$*" in *sm_90*) echo "Value sm_90 is not defined" >&2; exit 255 ;; esac')
    assert check.assembler(path, PINNED, ARCHITECTURES).problem == "makes nothing for sm_90: Value sm_90 is not defined"


def test_libdevice_is_bitcode_beside_ptxas(tool: Callable[..., str]) -> None:
    path = tool()
    library = Path(path).parents[1] / "nvvm" / "libdevice" / "libdevice.10.bc"
    assert "No such file" in str(check.libdevice(path).problem)
    library.parent.mkdir(parents=True)
    library.write_bytes(b"version https://git-lfs")
    assert check.libdevice(path).problem == "is not LLVM bitcode"
    library.write_bytes(b"BC\xc0\xde and so on")
    assert (check.libdevice(path).path, check.libdevice(path).problem) == (str(library), None)
    assert check.libdevice(None).problem is not None


def test_tensorflow_is_asked_for_each_library_by_its_own_function() -> None:
    asked: list[str] = []

    class Library:
        """TensorFlow, which finds everything but cuDNN."""

        def __getattr__(self, name: str) -> Callable[..., None]:
            def open_(result: object) -> None:
                asked.append(name)
                result._obj.status = 0x2D3B6601 if "Cudnn" in name else 0  # type: ignore[attr-defined]

            return open_

    answers = dict(check.opened(Library(), check.OPENED))
    assert [name for name, could in answers.items() if not could] == ["libcudnn"]
    # As the compiler spells tsl::internal::DsoLoader::GetCudnnDsoHandle().
    assert "_ZN3tsl8internal9DsoLoader17GetCudnnDsoHandleEv" in asked
    assert "_ZN3tsl8internal9DsoLoader23GetCudaRuntimeDsoHandleEv" in asked


def test_the_nccl_inside_tensorflow_is_the_one_we_know() -> None:
    def tell(version: object) -> None:
        version._obj.value = 21903  # type: ignore[attr-defined]

    library = SimpleNamespace(ncclGetVersion=tell)
    assert check.compiled_nccl(library, (2, 19, 3)).problem is None
    assert check.compiled_nccl(library, (2, 21, 5)).problem == "says it is 2.19.3"


def test_without_the_framework_the_one_finding_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    (tmp_path / "lock.txt").write_text("tensorflow==2.17.1\n")
    findings, versions = check.check(tmp_path / "lock.txt")
    assert [one.library for one in findings] == ["loader"]
    assert "tensorflow" in findings[0].problem
    assert versions == {}


def test_every_flavour_is_told_of() -> None:
    locks = {path.stem for path in (IMAGES / "tensorflow" / "requirements").glob("*.txt")}
    assert check.ARCHITECTURES.keys() == locks
    # Either the framework's NCCL is known, or the image below it is.
    assert check.NCCL.keys() | check.BASE.keys() == locks
    assert ctypes.sizeof(check._StatusOr) == 40
