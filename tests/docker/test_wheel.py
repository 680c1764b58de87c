"""vaultcube from its wheel, away from the checkout, by a user whose home cannot be written: all of it works the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.docker.conftest import ROOT, Vaultcube
from tests.docker.engines import Call

from vaultcube import __version__

DRY = ("bench", "ddp", "--gpus", "none", "--dry-run", "--json")
LEAST = ["bench", "ddp", "--gpus", "none", "--model", "resnet18", "--batch-size", "2", "--image-size", "32"]
LEAST += ["--ranks", "1", "--steps-per-window", "1", "--warmup-steps", "1", "--max-warmup-steps", "1", "--json"]
CACHES = {"__pycache__", ".ruff_cache", ".mypy_cache", ".pytest_cache", "_assets"}
pytestmark = [pytest.mark.docker]


@dataclass
class Installed(Vaultcube):
    """The command that an installation made.

    Attributes:
        target: the folder it is installed in.
    """

    target: Path = field(default_factory=Path)

    def argv(self, *args: str) -> list[str]:
        # Away from the checkout, and back again after the test as the process ends.
        return ["env", "--chdir=/", str(self.target / "bin" / "vaultcube"), *args]

    def environment(self, env: dict[str, str] | None = None) -> dict[str, str]:  # type: ignore[override]
        # Nothing can be made in /proc, not even by root.
        path = os.pathsep.join([str(self.target), *filter(None, [os.environ.get("PYTHONPATH")])])
        return {**super().environment(env), "HOME": "/proc", "PYTHONPATH": path}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def target(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with spaces that the wheel is installed in, without what it depends on."""
    folder = tmp_path_factory.mktemp("somewhere else")
    pip("install", "--target", str(folder), str(wheel))
    return folder


@pytest.fixture
def installed(vaultcube: Vaultcube, target: Path) -> Installed:
    """Return the installed command."""
    return Installed(vaultcube.runs, target=target)


def pip(verb: str, *args: str) -> None:
    argv = [sys.executable, "-m", "pip", verb, "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    seen = subprocess.run([*argv, *args], capture_output=True, text=True, timeout=120, check=False)
    assert seen.returncode == 0, seen.stderr


def document(call: Call, *words: str, timeout: float = 60) -> Any:
    """Run it to its good end and return the JSON document it printed."""
    seen = call.run(*words, timeout=timeout)
    assert seen.returncode == 0, seen.stderr
    assert "Traceback" not in seen.stderr
    return json.loads(seen.stdout)


def files(folder: Path) -> set[str]:
    """Return the files below a folder that belong to it."""
    found = set()
    for where, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if name not in CACHES]
        found |= {str((Path(where) / name).relative_to(folder)) for name in names}
    return found


def test_the_wheel_holds_all_sources_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {f"vaultcube/{name}" for name in files(ROOT / "orchestrator" / "vaultcube")}
    for folder in ("compose", "images"):
        expected |= {f"vaultcube/_assets/{folder}/{name}" for name in files(ROOT / folder)}
    assert held == expected
    assert {"vaultcube/_assets/compose/ddp.yml", "vaultcube/_assets/images/pytorch/Dockerfile"} <= held


def test_the_version(installed: Installed) -> None:
    seen = Call(installed).run("--version")
    assert (seen.returncode, seen.stdout, seen.stderr) == (0, f"vaultcube {__version__}\n", "")


def test_a_dry_run_is_the_same_but_for_its_paths(vaultcube: Vaultcube, installed: Installed) -> None:
    there, here = document(Call(installed), *DRY), document(Call(vaultcube), *DRY)
    compose = str(installed.target / "vaultcube" / "_assets" / "compose")
    assert f"{compose}/ddp.yml" in there["command"]
    for plan in (there["plan"], here["plan"]):
        del plan["run_id"], plan["created"]
    assert there["plan"] == here["plan"]
    moved = [word.replace(compose, str(ROOT / "compose")) for word in there["command"]]
    assert [word for word in moved if "ddp-" not in word] == [word for word in here["command"] if "ddp-" not in word]


def test_images_are_listed_the_same(vaultcube: Vaultcube, installed: Installed) -> None:
    verb = ("images", "list", "--json")
    listed = document(Call(installed), *verb)
    names = ["proxy:any", "pytorch:cu124", "pytorch:cu128", "recorder:any", "tensorflow:cu124", "tensorflow:cu128"]
    names += ["vllm:cu124", "vllm:cu128", "vllm:cpu"]
    assert [row["name"] for row in listed] == [f"vaultcube/{name}" for name in names]
    assert listed == document(Call(vaultcube), *verb)


def test_images_are_built_from_the_sources_in_the_package(installed: Installed, tmp_path: Path) -> None:
    """The build comes as far as its base image: bake file and context were found. Buildx itself needs a folder."""
    base = "registry.invalid/none:1"
    call = Call(installed, env={"BUILDX_CONFIG": str(tmp_path / "buildx")})
    assert base in call.refused("base-image", 3, "images", "build", "--base-image", base)


def test_the_recorder_s_image_is_built_from_the_installed_modules(installed: Installed, tmp_path: Path) -> None:
    call = Call(installed, env={"BUILDX_CONFIG": str(tmp_path / "buildx")})
    seen = call.run("images", "build", "recorder", timeout=240)
    assert seen.returncode == 0, seen.stderr
    assert seen.stdout.startswith("vaultcube/recorder:any  ")


def test_a_home_that_cannot_be_written(installed: Installed) -> None:
    call = Call(installed, env={"VAULTCUBE_RESULTS_DIR": ""})
    assert "/proc/" in call.refused("results-unwritable", 3, *LEAST)


@pytest.mark.image
@pytest.mark.usefixtures("image")
def test_a_run(installed: Installed) -> None:
    result = document(Call(installed), *LEAST, timeout=240)
    assert result["run"]["status"] == "completed"
    assert result["provenance"]["git"] is None
    assert result["provenance"]["compose_sha256"]
    assert installed.run_ids() == [result["run"]["id"]]
    assert document(Call(installed), "runs", "show", "--json") == result
