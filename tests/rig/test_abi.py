"""The library as a loader and a C program see it: its name, its exports, the layout of what it fills in."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import subprocess
from pathlib import Path
from typing import Any

import pynvml
import pytest
from tests.rig import build as building
from tests.rig.build import SOURCES, Built, build
from tests.rig.inside import still_box

# What nvidia-ml-py and nvitop ask for first.
FIRST = [
    "nvmlInitWithFlags",
    "nvmlInit_v2",
    "nvmlShutdown",
    "nvmlErrorString",
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetHandleByPciBusId_v2",
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetComputeRunningProcesses_v2",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetFieldValues",
    "nvmlEventSetWait_v2",
    "nvmlDeviceGetNvLinkRemotePciInfo_v2",
    "vaultcube_rig_simulated",
]
# Ours, and nvidia-ml-py's.
STRUCTURES = {
    "nvmlPciInfo_t": pynvml.nvmlPciInfo_t,
    "nvmlMemory_t": pynvml.c_nvmlMemory_t,
    "nvmlMemory_v2_t": pynvml.c_nvmlMemory_v2_t,
    "nvmlBAR1Memory_t": pynvml.c_nvmlBAR1Memory_t,
    "nvmlUtilization_t": pynvml.c_nvmlUtilization_t,
    "nvmlTemperature_t": pynvml.c_nvmlTemperature_v1_t,
    "nvmlMarginTemperature_t": pynvml.c_nvmlMarginTemperature_v1_t,
    "nvmlViolationTime_t": pynvml.c_nvmlViolationTime_t,
    "nvmlFieldValue_t": pynvml.c_nvmlFieldValue_t,
    "nvmlProcessInfo_t": pynvml.c_nvmlProcessInfo_t,
    "nvmlProcessUtilizationSample_t": pynvml.c_nvmlProcessUtilizationSample_t,
    "nvmlDeviceAttributes_t": pynvml.c_nvmlDeviceAttributes,
    "nvmlEventData_t": pynvml.c_nvmlEventData_t,
}


def run(*argv: object) -> str:
    return subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def built() -> Built:
    return build()


def test_its_name_is_that_of_the_real_one(built: Built) -> None:
    assert "Library soname: [libnvidia-ml.so.1]" in run("readelf", "-d", built.library)


def test_it_exports_nvml_and_nothing_else(built: Built) -> None:
    symbols = [line.split() for line in run("nm", "-D", "--defined-only", built.library).splitlines()]
    names = {name.partition("@")[0] for _, kind, name in symbols if kind != "A"}

    assert set(FIRST) <= names
    assert all(name.startswith(("nvml", "vaultcube_rig_")) for name in names)
    # As NVIDIA links it: every name under the SONAME as its version.
    assert {name.partition("@@")[2] for _, kind, name in symbols if kind != "A"} == {"libnvidia-ml.so.1"}


@pytest.mark.parametrize("which", ["library", "smi"])
def test_it_needs_no_libc_newer_than_debian_12s(built: Built, which: str) -> None:
    needed = run("nm", "-D", "--undefined-only", getattr(built, which))
    versions = {
        tuple(map(int, word.partition("@GLIBC_")[2].split("."))) for word in needed.split() if "@GLIBC_" in word
    }

    assert max(versions) <= (2, 36)
    libraries = run("readelf", "-d", getattr(built, which))
    assert {line.split("[")[1] for line in libraries.splitlines() if "NEEDED" in line} == {"libc.so.6]"}


def test_structures_are_laid_out_as_in_nvidia_ml_py(tmp_path: Path) -> None:
    def prints(name: str, structure: Any) -> str:
        fields = [field for field, *_ in structure._fields_ if (name, field) != ("nvmlFieldValue_t", "value")]
        offsets = "".join(f'printf(" %zu", offsetof({name}, {field}));' for field in fields)
        return f'printf("{name} %zu", sizeof({name}));{offsets}putchar(10);'

    body = "".join(prints(name, structure) for name, structure in STRUCTURES.items())
    program = tmp_path / "layout.c"
    program.write_text(f'#include <stddef.h>\n#include <stdio.h>\n#include "abi.h"\nint main(void) {{{body}}}\n')
    run("cc", "-I", SOURCES, "-o", tmp_path / "layout", program)
    ours = {line.split()[0]: [int(word) for word in line.split()[1:]] for line in run(tmp_path / "layout").splitlines()}

    for name, structure in STRUCTURES.items():
        fields = [field for field, *_ in structure._fields_ if (name, field) != ("nvmlFieldValue_t", "value")]
        theirs = [ctypes.sizeof(structure), *(getattr(structure, field).offset for field in fields)]
        assert ours[name] == theirs, name


def test_a_program_linked_against_it_runs(tmp_path: Path, built: Built) -> None:
    """As software does that was linked, not dlopened, against the driver's own library."""
    program = tmp_path / "linked.c"
    program.write_text(
        "int nvmlInit_v2(void); int nvmlDeviceGetCount_v2(unsigned *);\n"
        "int main(void) { unsigned count = 0; return nvmlInit_v2() || nvmlDeviceGetCount_v2(&count) || count != 4; }\n"
    )
    run("cc", "-o", tmp_path / "linked", program, built.library)
    box = still_box(tmp_path / "box")

    assert subprocess.run([tmp_path / "linked"], env={**os.environ, **box.env()}, check=False).returncode == 0


def _build(cache: Path) -> Built:
    return build(cache=cache)


def test_several_processes_may_build_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        results = pool.map(_build, [tmp_path / "cache"] * 3)

    assert len(set(results)) == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [results[0].library.parent.name]


def test_what_is_built_is_not_built_again(monkeypatch: pytest.MonkeyPatch, built: Built) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(building, "_compile", refuse)
    assert build() == built


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="needs a C compiler: sudo apt-get install gcc"):
        build("no-such-compiler", cache=tmp_path)


def test_a_failed_build_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "COMMON", ["-std=c11", "-include", "no-such-header.h"])
    with pytest.raises(RuntimeError, match="no-such-header"):
        build(cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
