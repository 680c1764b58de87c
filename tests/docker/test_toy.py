"""A fifth workload, as docs/adding-a-workload.md writes it: three new things in a copy of the tree, and it runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docker.conftest import ROOT, Vaultcube, docker

from vaultcube.results.schema import Result, Status, Verdict

pytestmark = [pytest.mark.docker]
IMAGE = "vaultcube/toy:any"
PAGE = ROOT / "docs/adding-a-workload.md"
FILE = re.compile(r"^<!-- file: (?P<path>\S+) -->\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
# What a checkout consists of, as far as running goes; the tests are there to hold the new workload to what all promise.
PARTS = ("orchestrator", "images", "compose", "tests/unit", "tests/conftest.py", "pyproject.toml")


def files() -> dict[str, str]:
    """Return the files that the page shows: text by path."""
    return {found["path"]: found["text"] for found in FILE.finditer(PAGE.read_text(encoding="utf-8"))}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of this checkout with the new workload in it."""
    copy = tmp_path_factory.mktemp("a copy")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, copy / part, ignore=ignore)
        elif source.exists():
            (copy / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy / part)
    for path, text in files().items():
        assert not (copy / path).exists()
        (copy / path).parent.mkdir(exist_ok=True)
        (copy / path).write_text(text, encoding="utf-8")
    return copy


@pytest.fixture(scope="module")
def built(tree: Path) -> Iterator[None]:
    """Build its image, and take it away after the tests."""
    seen = Vaultcube(tree / "runs", {"PYTHONPATH": str(tree / "orchestrator")})("images", "build", "toy", timeout=300)
    assert seen.returncode == 0, seen.stderr
    assert seen.stdout.startswith(f"{IMAGE}  ")
    yield
    docker("image", "rm", IMAGE)


@pytest.fixture
def toy(vaultcube: Vaultcube, tree: Path) -> Vaultcube:
    """Return the command of the copy."""
    vaultcube.env["PYTHONPATH"] = str(tree / "orchestrator")
    return vaultcube


def test_it_is_one_file_of_a_workload_one_compose_file_and_one_image_folder() -> None:
    folders = [str(Path(path).parent) for path in files()]
    assert sorted(folders) == ["compose", "images/toy", "images/toy", "orchestrator/vaultcube/workloads"]


def test_it_has_its_place_on_the_command_line(toy: Vaultcube) -> None:
    assert "toy" in toy("bench", "--help").stdout
    page = toy("bench", "toy", "--help").stdout
    assert "--numbers" in page
    assert "how many numbers to add" in page
    names = [row["name"] for row in json.loads(toy("images", "list", "--json").stdout)]
    assert IMAGE in names


@pytest.mark.usefixtures("built")
def test_it_runs_in_a_container_and_is_judged(toy: Vaultcube, tree: Path) -> None:
    seen = toy("bench", "toy", "--gpus", "none", "--json")
    assert seen.returncode == 0, seen.stderr
    result = Result.model_validate_json(seen.stdout)
    assert (result.run.workload, result.run.status, result.verdict) == ("toy", Status.COMPLETED, Verdict.PASS)
    assert [(check.name, check.verdict) for check in result.checks] == [
        ("sum_correct", Verdict.PASS),
        ("speed", Verdict.PASS),
    ]
    assert result.metrics["additions_per_s"].value > 1000
    assert result.params == {"numbers": 1000}
    resolved = json.loads((toy.runs / result.run.id / "compose.resolved.json").read_text())["services"]["toy"]
    assert (resolved["image"], resolved["network_mode"], resolved["read_only"]) == (IMAGE, "none", True)
    plan = json.loads((toy.runs / result.run.id / "plan.json").read_text())
    assert plan["compose_files"] == ["toy.yml"]
    assert str(tree) not in json.dumps(plan)


@pytest.mark.usefixtures("built")
def test_it_runs_raw(tree: Path) -> None:
    files = ["--file", str(tree / "compose/toy.yml")]
    assert docker("compose", *files, "run", "--rm", "toy") == "500000500000"
    docker("compose", *files, "down")


@pytest.mark.usefixtures("built")
def test_two_of_its_runs_are_compared(toy: Vaultcube) -> None:
    for numbers in ("10", "20"):
        assert toy("bench", "toy", "--gpus", "none", "--numbers", numbers).returncode == 0
    document = json.loads(toy("runs", "compare", *toy.run_ids(), "--json").stdout)
    assert {one["what"] for one in document["differences"]} == {"numbers"}
    assert {one["name"] for one in document["metrics"]} == {"sum_error", "additions_per_s"}


def test_what_makes_no_sense_is_refused(toy: Vaultcube) -> None:
    seen = toy("bench", "toy", "--gpus", "none", "--numbers", "0")
    assert (seen.returncode, seen.stdout) == (2, "")
    assert "See --numbers in `vaultcube bench toy --help`." in seen.stderr


def test_what_all_workloads_promise_it_promises_too(tree: Path) -> None:
    env = {**os.environ, "PYTHONPATH": f"{tree / 'orchestrator'}{os.pathsep}{tree}"}
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/workloads/test_registry.py"]
    seen = subprocess.run(
        [*argv, "-k", "toy"], cwd=tree, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert seen.returncode == 0, seen.stdout + seen.stderr
    assert re.search(r"\b[5-9] passed", seen.stdout), seen.stdout
