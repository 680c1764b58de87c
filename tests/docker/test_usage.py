"""Words that make no sense: refused by the command itself, before any container, and told clearly."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.docker.conftest import Vaultcube
from tests.docker.engines import Call

pytestmark = [pytest.mark.docker]
BENCH = ("bench", "ddp", "--json")


@pytest.fixture
def call(vaultcube: Vaultcube, tmp_path: Path) -> Call:
    """Return a call on a machine without GPU, whatever this one has: its NVML cannot be loaded."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libnvidia-ml.so.1").write_text("no library")
    return Call(vaultcube, env={"LD_LIBRARY_PATH": str(tmp_path / "lib")})


# The grammar itself is tested without a command; these are what a shell or a habit makes of it.
NONSENSE = ["", "0", "-1", "1.5", "two", "ALL", "all,0", "device=", "0,", "device=0-3", "GPU-xyz", "MIG-0f3cb7a2"]
NONSENSE += ["$(id)", "device=0\n1", "99999999999999999999"]


@pytest.mark.parametrize("gpus", NONSENSE)
def test_gpus_that_are_no_gpus(call: Call, gpus: str) -> None:
    call.refused("gpu-selection", 2, *BENCH, "--gpus", gpus)


@pytest.mark.parametrize("gpus", ["all", "999", "device=0", "GPU-0f3cb7a2-8a3d-4a0e-b0f6-2d9fbb0a1c11"])
def test_gpus_where_none_are(call: Call, gpus: str) -> None:
    assert "none is here" in call.refused("gpu-unavailable", 3, *BENCH, "--gpus", gpus)


@pytest.mark.parametrize(
    "words",
    [
        ("--batch-size", "-1"),
        ("--batch-size", "1000000000"),
        ("--batch-size", "9" * 40),
        ("--windows", "4"),
        ("--warmup-steps", "50", "--max-warmup-steps", "10"),
        ("--hang-timeout-s", "nan"),
        ("--hang-timeout-s", "-5"),
        ("--model", "../../etc/passwd"),
        ("--model", "--help-me"),
        ("--preset", "nonsense"),
        ("--preset", ""),
    ],
    ids=" ".join,
)
def test_parameters_out_of_their_range(call: Call, words: tuple[str, ...]) -> None:
    message = call.refused("bad-parameter", 2, *BENCH, *words)
    assert words[-2].strip("-").replace("-", "_") in message


@pytest.mark.parametrize(
    "words",
    [
        ("bench", "ddp", "--batch-size", "many"),
        ("bench", "ddp", "--precision", "fp8"),
        ("bench", "ddp", "--flavour", "cu999"),
        ("bench", "ddp", "--ranks", "0"),
        ("bench", "ddp", "--memory", "plenty"),
        ("bench", "ddp", "--timeout", "never"),
        ("bench", "ddp", "--gpus"),
        ("bench", "ddp", "--batchsize", "4"),
        ("bench", "ddp", "extra"),
        ("bench", "nothing"),
        ("nothing",),
        ("down", "some-run", "--all"),
        ("images", "build", "nothing"),
        ("images", "build", "--flavour", "cu999"),
        ("images", "build", "--wheelhouse", "/nowhere"),
        ("images", "build", "--ca-bundle", "/nowhere"),
    ],
    ids=" ".join,
)
def test_words_that_no_verb_knows(call: Call, words: tuple[str, ...]) -> None:
    call.refused("usage", 2, *words)


def test_a_usage_error_is_one_document_too(call: Call) -> None:
    assert "--ranks" in call.refused("usage", 2, *BENCH, "--ranks", "none")


@pytest.mark.parametrize("verb", [("down",), ("logs",), ("runs", "show")], ids=" ".join)
def test_a_run_that_is_not_there(call: Call, verb: tuple[str, ...]) -> None:
    assert "no-such-run" in call.refused("not-found", 2, *verb, "no-such-run")


@pytest.mark.parametrize(
    "text",
    [
        b"name = ",
        b"\xff\xfe\x00",
        b"",
        b"name = 'x'\ncolour = 'red'",
        b"name = 'x'\n[targets.ddp]\nthroughput_samples_per_s = 'fast'",
        b"name = 'x'\n[targets.ddp]\nthroughput = 100",
        b"name = 'x'\n[targets.ddp]\nscaling_efficiency = nan",
        b"name = 'x'\n[hardware]\ngpu_count = 0",
    ],
)
def test_a_broken_profile(call: Call, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "mine.toml").write_bytes(text)
    message = call.refused("profile", 2, *BENCH, "--profile", str(tmp_path / "mine.toml"))
    assert "mine.toml" in message or "profile x: targets.ddp." in message


@pytest.mark.parametrize("profile", ["nonsense", "/nowhere/mine.toml", "/tmp", ""])
def test_a_profile_that_is_not_there(call: Call, profile: str) -> None:
    call.refused("profile", 2, *BENCH, "--profile", profile)


def test_data_that_is_not_there(call: Call, tmp_path: Path) -> None:
    assert str(tmp_path) in call.refused("data-unreadable", 3, *BENCH, "--data", str(tmp_path / "none"))


def test_data_that_is_a_file(call: Call, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    call.refused("data-unreadable", 3, *BENCH, "--data", str(tmp_path / "data"))


def test_data_that_the_container_cannot_read(call: Call, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700 if os.getuid() == 0 else 0o300)
    assert "cannot read" in call.refused("data-unreadable", 3, *BENCH, "--data", str(tmp_path / "data"))


def test_a_dry_run_refuses_as_the_run_does(call: Call, tmp_path: Path) -> None:
    call.refused("gpu-selection", 2, *BENCH, "--dry-run", "--gpus", "0")
    call.refused("data-unreadable", 3, *BENCH, "--dry-run", "--data", str(tmp_path / "none"))
