"""An engine that is stopped in the middle of a run (`systemctl stop docker`), on a second engine of the test's own."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from tests.docker.conftest import FAST, IMAGE, Vaultcube, docker, until
from tests.docker.engines import Engine, told

pytestmark = [pytest.mark.docker]

# The engine is what is tested: a stand-in says that it started, and waits.
STAND_IN = """#!/bin/sh
printf '{"schema":1,"seq":0,"time":"2026-01-01T00:00:00Z","mono":1.0,"rank":-1,"kind":"started","program":"ddp",\
"params":{},"world_size":2,"device":"cpu","python":"3.11.2"}\\n' >>/results/events.jsonl
exec sleep 300
"""


def load_stand_in(engine: Engine, folder: Path) -> None:
    """Put an image of our name on the engine that only waits."""
    base = next(
        name for name in ("vaultcube/base:bookworm", "debian:bookworm-slim") if docker("image", "ls", "-q", name)
    )
    script = folder / "python3"
    script.write_text(STAND_IN)
    script.chmod(0o755)
    saved = folder / "base.tar"
    docker("save", "--output", str(saved), base)
    there = ["--host", engine.host]
    docker(*there, "load", "--input", str(saved))
    container = docker(*there, "create", base)
    docker(*there, "cp", str(script), f"{container}:/usr/bin/python3")
    docker(*there, "commit", container, IMAGE)
    docker(*there, "rm", container)


def test_an_engine_that_goes_away_is_told_and_the_result_is_kept(tmp_path: Path) -> None:
    cube = Vaultcube(tmp_path / "runs")
    with Engine("600m") as engine:
        load_stand_in(engine, tmp_path)
        child = cube.start(*FAST, DOCKER_HOST=engine.host)
        until(lambda: list(cube.runs.glob("*/results/events.jsonl")), 60, "the workload started")
        os.kill(int((engine.folder / "pid").read_text()), signal.SIGTERM)
        out, err = child.communicate(timeout=90)
    told(subprocess.CompletedProcess(child.args, child.returncode, "", err), "engine-lost", 1, as_json=False)
    assert "the Docker engine went away during the run" in err
    result = cube.result()
    assert (result["run"]["status"], result["run"]["error"]["code"]) == ("failed", "engine-lost"), out
    assert result["provenance"]["engine"]
