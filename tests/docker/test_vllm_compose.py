"""The compose files of vLLM without the orchestrator, as a user runs them: serve, ask, measure, stop."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.docker.conftest import ROOT, docker
from tests.docker.services import START_S, ask, prompt

pytestmark = [
    pytest.mark.docker,
    pytest.mark.image,
    pytest.mark.usefixtures("serving_images"),
    pytest.mark.timeout(900),
]

PROJECT = "vaultcube-test-raw-vllm"
FILES = [
    word for name in ("vllm.yml", "vllm.cpu.yml", "vllm.bench.yml") for word in ("--file", str(ROOT / "compose" / name))
]
SETTINGS = {"VAULTCUBE_FLAVOUR": "cpu", "VLLM_FLAGS": "--enforce-eager", "VLLM_PORT": "0", "BENCH_CONCURRENCY": "1,2"}
SETTINGS |= {"BENCH_INPUT_LEN": "8", "BENCH_OUTPUT_LEN": "8", "BENCH_MIN_SECONDS": "1", "COMPOSE_PROJECT_NAME": PROJECT}


@dataclass
class Raw:
    """The stack while its server is healthy, and the folder it writes to."""

    env: dict[str, str]
    results: Path

    def __call__(self, *words: str, timeout: float = 120) -> str:
        return docker("compose", *FILES, *words, timeout=timeout, env=self.env)

    def events(self, pattern: str) -> list[dict[str, Any]]:
        (path,) = self.results.glob(f"{pattern}/events.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Raw]:
    """Return the stack; its results folder does not exist before."""
    results = tmp_path_factory.mktemp("raw") / "results with spaces"
    stack = Raw({**os.environ, **SETTINGS, "VAULTCUBE_RESULTS_DIR": str(results)}, results)
    try:
        stack("up", "--detach", "--wait", "vllm", timeout=START_S)
        yield stack
    finally:
        # The volume keeps models, of other projects as well.
        stack("down", "--timeout", "20")
    assert not docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}")
    assert not docker("network", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}")


def test_it_answers_on_the_loopback_interface_alone(raw: Raw) -> None:
    where = raw("port", "vllm", "8000")
    assert where.startswith("127.0.0.1:")
    answer = ask(f"http://{where}", "/v1/completions", prompt("tiny", 8))
    assert (answer.status, answer.json["usage"]["completion_tokens"]) == (200, 8)


def test_its_events_tell_how_it_came_up(raw: Raw) -> None:
    kinds = [event["kind"] for event in raw.events("vllm-[0-9]*")]
    assert kinds[0] == "started"
    assert "server" in kinds
    assert "error" not in kinds


def test_the_client_measures_it_and_ends(raw: Raw) -> None:
    raw("run", "--rm", "client", timeout=300)
    events = raw.events("vllm-bench-*")
    levels = [event for event in events if event["kind"] == "level"]
    assert [level["concurrency"] for level in levels] == [1, 2]
    assert [level["failed"] for level in levels] == [0, 0]
    assert all(level["output_tokens"] == 8 * level["completed"] for level in levels)
    assert events[-1]["kind"] == "finished"


def test_stopped_it_ends_by_itself(raw: Raw) -> None:
    raw("stop", "vllm")
    container = raw("ps", "--all", "--quiet", "vllm")
    assert docker("inspect", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}", container) == "75 false"


def test_a_port_that_is_no_port_is_refused_by_compose() -> None:
    env = {**os.environ, **SETTINGS, "VLLM_PORT": "eight"}
    seen = subprocess.run(
        ["docker", "compose", *FILES, "config"], capture_output=True, text=True, timeout=60, env=env, check=False
    )
    assert seen.returncode != 0
    assert "eight" in seen.stderr
