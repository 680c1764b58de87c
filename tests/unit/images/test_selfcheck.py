"""The PyTorch image's self-check, as far as it can be tried without PyTorch: the image's own test runs it whole."""

import ctypes
from pathlib import Path

import pytest
import selfcheck

from common import libraries


def test_everything_that_tells_its_version_is_required() -> None:
    assert set(selfcheck.REQUIRED) == libraries.READERS.keys()


def test_a_driver_that_is_missing_is_no_fault_and_anything_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: str) -> None:
        raise OSError(f"{path}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", load)
    selfcheck._open("libcuda.so.1")
    with pytest.raises(OSError, match="libcudart"):
        selfcheck._open("libcudart.so.12")


def test_without_the_framework_the_one_finding_says_so(tmp_path: Path) -> None:
    (tmp_path / "lock.txt").write_text("torch==2.6.0\n")
    findings, versions = selfcheck.check(tmp_path / "lock.txt")
    assert [(one.library, one.problem) for one in findings] == [("loader", "No module named 'torch'")]
    assert versions == {}
