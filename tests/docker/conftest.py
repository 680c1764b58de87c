"""Tests against the real engine. A missing engine fails them, in CI and everywhere: skipped is not tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

IMAGE = "vaultcube/pytorch:cu124"
SERVING = ("vaultcube/vllm:cpu", "vaultcube/proxy:any")
ROOT = Path(__file__).resolve().parents[2]
# The least work there is: the tests look at what surrounds it.
FAST = ["bench", "ddp", "--gpus", "none", "--model", "resnet18", "--batch-size", "2", "--image-size", "32"]
FAST += ["--steps-per-window", "1", "--warmup-steps", "1", "--max-warmup-steps", "1"]


def docker(*args: str, check: bool = True, timeout: float = 120, env: Mapping[str, str] | None = None) -> str:
    """Run the docker command and return its stdout."""
    seen = subprocess.run(["docker", *args], capture_output=True, text=True, timeout=timeout, env=env, check=False)
    if check and seen.returncode:
        raise AssertionError(f"docker {' '.join(args)}: {seen.stderr}")
    return seen.stdout.strip()


def kill_inside(container: str, words: str, **env: str) -> None:
    """Kill -9 the Python processes of a container whose command line has these words.

    As the kernel does it: what the engine was asked to kill, it starts no more.
    """
    # Not init, nor this shell, whose command lines have them too.
    ours = f"tr '\\0' ' ' <$p/cmdline | grep -q '^[^ ]*python3 .*{words}'"
    find = f"for p in /proc/[0-9]*; do {ours} && kill -9 ${{p#/proc/}}; done"
    # A container ends with its program, and this shell with the container.
    docker("exec", container, "sh", "-c", find, check=False, env={**os.environ, **env})


@dataclass
class Vaultcube:
    """The command as a user calls it, with a results directory of its own (its path has spaces).

    Attributes:
        runs: the results directory.
        env: variables on top of ours.
    """

    runs: Path
    env: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def argv(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "vaultcube", *args]

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        return {**os.environ, "VAULTCUBE_RESULTS_DIR": str(self.runs), **self.env, **(env or {})}

    def __call__(self, *args: str, timeout: float = 200, **env: str) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        return subprocess.run(
            self.argv(*args), capture_output=True, text=True, timeout=timeout, env=self.environment(env), check=False
        )

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        """Start, and leave it going."""
        child = subprocess.Popen(
            self.argv(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment(env)
        )
        self.started.append(child)
        return child

    def close(self) -> None:
        """End what a failed test left going."""
        for child in self.started:
            with child:
                child.kill()

    def run_ids(self) -> list[str]:
        return sorted(path.parent.name for path in self.runs.glob("*/plan.json"))

    def result(self) -> dict[str, Any]:
        """Return the only run's result."""
        (path,) = self.runs.glob("*/result.json")
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def left_behind(self) -> list[str]:
        """Return containers and networks that our runs left."""
        found = []
        for run in self.run_ids():
            label = f"label=com.docker.compose.project={run}"
            found += docker("ps", "--all", "--quiet", "--filter", label, env=self.environment()).split()
            found += docker("network", "ls", "--quiet", "--filter", label, env=self.environment()).split()
        return found


def foreign_runs(ours: Path) -> list[str]:
    """Return the runs on this engine whose directory is none of these tests'."""
    labels = '{{.Label "io.vaultcube.run"}}\t{{.Label "io.vaultcube.run-dir"}}'
    lines = docker("ps", "--all", "--filter", "label=io.vaultcube.run-dir", "--format", labels).splitlines()
    runs = dict(line.split("\t", 1) for line in lines)
    return sorted(run for run, directory in runs.items() if ours not in Path(directory).parents)


@pytest.fixture(autouse=True, scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the engine's version; without an engine, or beside other runs on it, every test here fails."""
    try:
        version = docker("version", "--format", "{{.Server.Version}}")
    except (FileNotFoundError, AssertionError) as error:
        pytest.fail(f"these tests need a Docker engine (make setup): {error}")
    base = tmp_path_factory.getbasetemp()
    # A process of pytest-xdist has a folder in the session's.
    if found := foreign_runs(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base):
        pytest.fail(f"these tests measure this machine, and runs are on it: {', '.join(found)}; see: vaultcube ps")
    return version


@pytest.fixture(scope="session")
def image(engine: str) -> str:  # noqa: ARG001 - an image needs an engine
    """Return the PyTorch image's name; without it the tests that need it fail."""
    if not docker("image", "ls", "--quiet", IMAGE):
        pytest.fail(f"these tests need {IMAGE} (make setup)")
    return IMAGE


@pytest.fixture(scope="session")
def serving_images(engine: str) -> None:  # noqa: ARG001 - an image needs an engine
    """Fail without the images that serving on the CPU needs."""
    for name in SERVING:
        if not docker("image", "ls", "--quiet", name):
            pytest.fail(f"these tests need {name} (make setup)")


@pytest.fixture
def vaultcube(tmp_path: Path) -> Iterator[Vaultcube]:
    """Return the command, and check after the test that it left nothing running."""
    cube = Vaultcube(tmp_path / "runs with spaces")
    yield cube
    cube.close()
    left = cube.left_behind()
    for run in cube.run_ids():
        docker("compose", "--project-name", run, "down", "--timeout", "1", check=False)
    assert not left, f"left behind: {left}"


@pytest.fixture
def wait_for() -> Callable[[Callable[[], Any], float], Any]:
    """Return `until`."""
    return until


def until(ask: Callable[[], Any], seconds: float, why: str = "it came true") -> Any:
    """Poll until something is true, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := ask():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {why}")
