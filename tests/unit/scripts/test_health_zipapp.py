"""The health checks as one file: what is in it, that it can be built again, that a bare Python runs it."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from jsonschema import validate
from tests.unit.support import ROOT

from vaultcube.host.words import schema

SCRIPT = ROOT / "scripts" / "health_zipapp.py"
# The oldest that a host may have (Debian 12); Ubuntu 24.04 has 3.12.
OLDEST = (3, 11)


def build(target: Path, *, umask: int = 0o022) -> Path:
    argv = ["bash", "-c", f'umask {umask:o}; exec "$@"', "bash", sys.executable, str(SCRIPT), str(target)]
    subprocess.run(argv, check=True)
    return target


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("zipapp") / "deep" / "vaultcube-health")


def test_the_same_sources_give_the_same_bytes(program: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "elsewhere"
    shutil.copytree(ROOT / "orchestrator", checkout / "orchestrator", copy_function=shutil.copyfile)
    (checkout / "scripts").mkdir()
    script = shutil.copy(SCRIPT, checkout / "scripts")
    subprocess.run([sys.executable, script, str(tmp_path / "other")], check=True)
    assert (tmp_path / "other").read_bytes() == program.read_bytes()
    assert build(tmp_path / "third", umask=0o077).read_bytes() == program.read_bytes()


def test_a_file_that_is_current_is_left_alone(program: Path) -> None:
    before = program.stat().st_mtime_ns
    build(program)
    assert program.stat().st_mtime_ns == before


def test_it_holds_nothing_that_asks_for_a_package(program: Path) -> None:
    ours, foreign = set[str](), set[str]()
    with zipfile.ZipFile(program) as archive:
        names = archive.namelist()
        for name in names:
            for node in ast.walk(ast.parse(archive.read(name))):
                if isinstance(node, ast.Import):
                    foreign |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    (ours if node.module.startswith("vaultcube") else foreign).add(node.module)
    assert foreign - {"__future__"} and {one.partition(".")[0] for one in foreign} <= sys.stdlib_module_names  # noqa: PT018
    files = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in names}
    assert ours <= files
    assert not any(name.startswith(("vaultcube/stack", "vaultcube/results", "vaultcube/workloads")) for name in names)


def test_without_a_target_it_says_so() -> None:
    seen = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert (seen.returncode, seen.stderr.splitlines()[0]) == (2, "error: where should it go?")


def test_the_oldest_python_of_a_host_understands_it(program: Path) -> None:
    with zipfile.ZipFile(program) as archive:
        for name in archive.namelist():
            ast.parse(archive.read(name), name, feature_version=OLDEST)


def test_a_bare_python_runs_it(program: Path, tmp_path: Path) -> None:
    """`-S`: not even what is installed beside it. Debian's own Python: tests/docker/test_health.py."""
    argv = [sys.executable, "-I", "-S", "-W", "error", str(program), "--check", "disk", "--check", "module", "--json"]
    seen = subprocess.run(
        argv, capture_output=True, text=True, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, check=False
    )
    assert seen.stderr == "" or "[host-health]" in seen.stderr
    document = json.loads(seen.stdout)
    validate(document, schema())
    assert [one["code"] for one in document["checks"]] == ["disk", "module"]
