"""Starts of real servers that are broken off while they load: a result is always left, and never a container."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.docker.conftest import Vaultcube, docker
from tests.docker.services import containers, cube_at

pytestmark = [pytest.mark.docker, pytest.mark.image, pytest.mark.usefixtures("serving_images")]

Wait = Callable[[Callable[[], Any], float], Any]
NAME = "test-stopped"
UP = ["up", "vllm", "--model", "tiny", "--gpus", "none", "--name", NAME]
SECRET = "sk-vaultcube-stopped"  # noqa: S105 - a test's own


@pytest.fixture
def cube(tmp_path: Path) -> Iterator[Vaultcube]:
    """Return the command, and check after the test that it left neither containers nor secrets."""
    one = cube_at(tmp_path, VLLM_API_KEY=SECRET)
    yield one
    one.close()
    left = one.left_behind()
    for run in one.run_ids():
        docker("compose", "--project-name", run, "down", "--timeout", "1", check=False)
    assert not left, f"left behind: {left}"
    assert not list((tmp_path / "data").rglob("api_key"))


def loading(cube: Vaultcube) -> bool:
    """Say whether vLLM itself has been started."""
    return any("starting vLLM" in path.read_text() for path in cube.runs.glob("*/results/events.jsonl"))


def ended(child: subprocess.Popen[str], cube: Vaultcube, code: str, exit_code: int) -> dict[str, Any]:
    """Check how an `up` ended, and return its result."""
    out, err = child.communicate(timeout=120)
    assert (child.returncode, f"[{code}]" in err, out) == (exit_code, True, ""), out + err
    assert "Traceback" not in err
    result = cube.result()
    assert result["run"]["error"]["code"] == code
    assert result["verdict"] != "PASS"
    return result


def test_ctrl_c_while_it_loads(cube: Vaultcube, wait_for: Wait) -> None:
    child = cube.start(*UP)
    wait_for(lambda: loading(cube), 60)
    child.send_signal(signal.SIGINT)
    result = ended(child, cube, "interrupted", 130)
    assert (result["run"]["status"], result["verdict"]) == ("interrupted", "UNAVAILABLE")
    # The server was asked to end, and did.
    (log,) = cube.runs.glob("*/container.log")
    assert "stopped by SIGTERM" in log.read_text()


@pytest.mark.parametrize("delay_s", [0.2, 0.6, 1.0, 1.6])
def test_ctrl_c_at_any_moment_of_the_start(cube: Vaultcube, wait_for: Wait, delay_s: float) -> None:
    child = cube.start(*UP)
    wait_for(lambda: bool(caught(child.pid) >> signal.SIGTERM - 1 & 1), 30)
    time.sleep(delay_s)  # the moment is the point
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, "[interrupted]" in err, out, "Traceback" in err) == (130, True, "", False), out + err
    if cube.run_ids():
        assert cube.result()["run"]["status"] == "interrupted"


def caught(pid: int) -> int:
    """Return the mask of the signals that a process has handlers for."""
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt")]
    return mask


def test_after_sigkill_ps_shows_it_and_down_clears_it(cube: Vaultcube, wait_for: Wait) -> None:
    child = cube.start(*UP)
    wait_for(lambda: loading(cube), 60)
    (run,) = cube.run_ids()
    listed = [one for one in json.loads(cube("ps", "--json").stdout) if one["run"] == run]
    assert [(one["name"], one["state"], one["keeper"]) for one in listed] == [(NAME, "loading", child.pid)]
    child.kill()
    child.communicate(timeout=10)
    (line,) = [line for line in cube("ps").stdout.splitlines() if line.startswith(f"{NAME} ")]
    assert "nobody: vaultcube down" in line
    seen = cube("down", NAME)
    assert seen.returncode == 0, seen.stderr
    assert f"{NAME}: stopped; interrupted" in seen.stdout
    assert cube.result()["run"]["status"] == "interrupted"
    assert not [one for one in json.loads(cube("ps", "--json").stdout) if one["run"] == run]


def test_down_from_elsewhere_while_it_loads(cube: Vaultcube, wait_for: Wait) -> None:
    child = cube.start(*UP)
    wait_for(lambda: loading(cube), 60)
    (run,) = cube.run_ids()
    assert cube("down", NAME).stdout == f"{run}: stopped by its own vaultcube (pid {child.pid})\n"
    ended(child, cube, "interrupted", 130)


def test_a_server_that_somebody_kills_while_it_loads(cube: Vaultcube, wait_for: Wait) -> None:
    child = cube.start(*UP)
    wait_for(lambda: loading(cube), 60)
    (run,) = cube.run_ids()
    docker("kill", containers(run)["vllm"])
    assert ended(child, cube, "container-killed", 1)["run"]["status"] == "failed"


def test_a_server_that_is_not_ready_in_time(cube: Vaultcube) -> None:
    child = cube.start(*UP, "--timeout", "4s")
    result = ended(child, cube, "timeout", 1)
    assert result["run"]["status"] == "timeout"
    assert "not ready after 4 s; the last it said: load" in result["run"]["error"]["message"]
