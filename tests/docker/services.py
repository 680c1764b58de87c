"""What the tests of running services share: a server that was brought up, and asking it as a client does."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.docker.conftest import Vaultcube, docker

# Where nobody answers: what needs no network does not mind, and what needs it fails at once.
NOWHERE = "http://127.0.0.1:9"
# Loads in half the time; that vLLM compiles is tested where this is left out.
EAGER = ["--", "--enforce-eager"]
# Ten seconds of a quiet machine's two cores, and ten times that of a busy one's.
START_S = 400


def cube_at(folder: Path, **env: str) -> Vaultcube:
    """Return the command with results and secrets of its own, neither hub nor proxy, and nobody's secrets but these."""
    own = {"XDG_DATA_HOME": str(folder / "data"), "HF_TOKEN_PATH": str(folder / "none"), "HF_ENDPOINT": NOWHERE}
    own |= {"HTTPS_PROXY": NOWHERE, "HTTP_PROXY": NOWHERE, "HF_TOKEN": "", "VLLM_API_KEY": ""}
    return Vaultcube(folder / "runs with spaces", env={**own, **env})


@dataclass
class Answer:
    """What a server answered: the HTTP status, the body, and when it was streamed the chunks in their order."""

    status: int
    body: bytes
    chunks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


def ask(url: str, path: str, body: dict[str, Any] | None = None, *, key: str = "", timeout: float = 60) -> Answer:
    """Ask a server once. A stream is read chunk by chunk, to the end that it itself declares."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    try:
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if not (body or {}).get("stream"):
        return Answer(answer.status, text)
    lines = [line.removeprefix("data: ") for line in text.decode().splitlines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    return Answer(answer.status, text, [json.loads(line) for line in lines])


def prompt(model: str, tokens: int = 4, **more: Any) -> dict[str, Any]:
    """Return the body of a completion of exactly so many tokens."""
    return {"model": model, "prompt": "The capital of", "max_tokens": tokens, "ignore_eos": True, **more}


@dataclass
class Running:
    """An instance that answers.

    Attributes:
        cube: the command that started it.
        record: what was said of it (service.json).
        out: what `up` printed.
        err: its progress.
    """

    cube: Vaultcube
    record: dict[str, Any]
    out: str
    err: str

    @property
    def directory(self) -> Path:
        return self.cube.runs / str(self.record["run"])

    def ask(self, path: str, body: dict[str, Any] | None = None, *, key: str = "") -> Answer:
        return ask(self.record["url"], path, body, key=key)

    def containers(self, *more: str) -> dict[str, str]:
        """Return the ids of its containers by service; stopped ones with `--all`."""
        return containers(str(self.record["run"]), *more)

    def state(self) -> str:
        """Return how `ps` says that it stands; empty when it does not list it."""
        listed = json.loads(self.cube("ps", "--json").stdout)
        return next((one["state"] for one in listed if one["run"] == self.record["run"]), "")

    def health(self, service: str = "vllm") -> str:
        return docker("inspect", "--format", "{{.State.Health.Status}}", self.containers()[service])

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "result.json").read_text())
        return found


def containers(run: str, *more: str) -> dict[str, str]:
    """Return the ids of a run's containers by service."""
    words = ["--filter", f"label=io.vaultcube.run={run}", "--no-trunc", *more]
    lines = docker("ps", *words, "--format", '{{.Label "com.docker.compose.service"}} {{.ID}}')
    return dict(line.split() for line in lines.splitlines())


@contextmanager
def running(cube: Vaultcube, name: str, *words: str) -> Iterator[Running]:
    """Bring the tiny model up on the CPU, and take it down again if the tests did not."""
    before = set(cube.run_ids())
    seen = cube("up", "vllm", "--model", "tiny", "--gpus", "none", "--name", name, *words, timeout=START_S)
    try:
        assert seen.returncode == 0, seen.stderr
        (run,) = set(cube.run_ids()) - before
        record = json.loads((cube.runs / run / "service.json").read_text())
        yield Running(cube, record, seen.stdout, seen.stderr)
    finally:
        cube("down", name)
        left = cube.left_behind()
        for run in cube.run_ids():
            docker("compose", "--project-name", run, "down", "--timeout", "1", check=False)
    assert not left, f"left behind: {left}"


def shell(command: str, **env: str) -> str:
    """Run a command line as somebody who pasted it, and return its stdout."""
    seen = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", **env},
        check=False,
    )
    assert seen.returncode == 0, seen.stderr
    return seen.stdout


def stages(run: Path) -> list[str]:
    """Return the stages that a run's servers have come to, in the order of their first mention."""
    events = [json.loads(line) for line in (run / "results/events.jsonl").read_text().splitlines()]
    return list(dict.fromkeys(event["stage"] for event in events if event["kind"] == "stage"))
