"""Runs that are stopped, killed or starved on the real engine: a result is always left, and never a container."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.docker.conftest import FAST, Vaultcube, docker

pytestmark = [pytest.mark.docker, pytest.mark.image, pytest.mark.usefixtures("image")]

Wait = Callable[[Callable[[], Any], float], Any]
# Long enough that nobody is done before the test is.
LONG = [*FAST, "--windows", "1000", "--hang-timeout-s", "60"]


def container(cube: Vaultcube) -> str:
    """Return the id of the running container, or an empty string."""
    runs = cube.run_ids()
    return docker("ps", "--quiet", "--no-trunc", "--filter", f"label=io.vaultcube.run={runs[0]}") if runs else ""


def said(cube: Vaultcube, kind: str) -> bool:
    """Say whether the workload wrote an event of that kind."""
    return any(f'"{kind}"' in path.read_text() for path in cube.runs.glob("*/results/events.jsonl"))


def ended(child: Any, cube: Vaultcube, code: str, exit_code: int) -> dict[str, Any]:
    """Check how a bench ended, and return its result."""
    out, err = child.communicate(timeout=120)
    assert (child.returncode, f"[{code}]" in err) == (exit_code, True), out + err
    assert "Traceback" not in err
    result = cube.result()
    assert result["run"]["error"]["code"] == code
    return result


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_leaves_what_was_measured(vaultcube: Vaultcube, wait_for: Wait, number: int) -> None:
    child = vaultcube.start(*LONG)
    wait_for(lambda: said(vaultcube, "window"), 90)
    child.send_signal(number)
    result = ended(child, vaultcube, "interrupted", 130)
    assert (result["run"]["status"], result["verdict"]) == ("interrupted", "UNAVAILABLE")
    assert "interrupted" in (vaultcube.runs / result["run"]["id"] / "results/events.jsonl").read_text()


@pytest.mark.parametrize("delay_s", [0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 1.0])
def test_a_signal_at_any_moment_of_the_start_leaves_nothing(
    vaultcube: Vaultcube, wait_for: Wait, delay_s: float
) -> None:
    child = vaultcube.start(*LONG)
    # Until our first line has run, a signal is the interpreter's business.
    wait_for(lambda: catches(child.pid, signal.SIGTERM), 30)
    time.sleep(delay_s)  # the moment is the point
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, "[interrupted]" in err, "Traceback" in err) == (130, True, False), out + err
    if vaultcube.run_ids():
        assert vaultcube.result()["run"]["status"] == "interrupted"


def catches(pid: int, number: signal.Signals) -> bool:
    """Say whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(mask >> (number - 1) & 1)


def test_a_killed_container_is_told_as_such(vaultcube: Vaultcube, wait_for: Wait) -> None:
    child = vaultcube.start(*LONG)
    wait_for(lambda: said(vaultcube, "window"), 90)
    docker("kill", container(vaultcube))
    result = ended(child, vaultcube, "container-killed", 1)
    assert (result["run"]["status"], result["verdict"]) == ("failed", "FAIL")


def test_a_container_stopped_by_somebody_else_is_no_failure_of_the_box(vaultcube: Vaultcube, wait_for: Wait) -> None:
    child = vaultcube.start(*LONG)
    wait_for(lambda: said(vaultcube, "window"), 90)
    docker("stop", container(vaultcube))
    result = ended(child, vaultcube, "container-stopped", 1)
    assert (result["run"]["status"], result["verdict"]) == ("interrupted", "UNAVAILABLE")


def test_a_removed_container_is_told_as_such(vaultcube: Vaultcube, wait_for: Wait) -> None:
    child = vaultcube.start(*LONG)
    # Compose has started it: one that vanishes under compose's hands is waited for until the start is given up.
    wait_for(lambda: list(vaultcube.runs.glob("*/compose.resolved.json")), 90)
    docker("rm", "--force", container(vaultcube))
    ended(child, vaultcube, "container-killed", 1)


def test_a_container_without_memory_is_told_as_such(vaultcube: Vaultcube) -> None:
    seen = vaultcube(*LONG, "--memory", "200m")
    assert (seen.returncode, "[container-out-of-memory]" in seen.stderr) == (1, True), seen.stderr
    assert vaultcube.result()["run"]["status"] == "failed"


def test_a_rank_that_hangs_ends_the_run(vaultcube: Vaultcube, wait_for: Wait) -> None:
    child = vaultcube.start(*FAST, "--windows", "1000", "--hang-timeout-s", "6")
    wait_for(lambda: said(vaultcube, "window"), 90)
    ranks = docker("exec", container(vaultcube), "sh", "-c", "grep -l ddp[.]worker /proc/[0-9]*/cmdline").split()
    pid = ranks[-1].split("/")[2]
    docker("exec", container(vaultcube), "sh", "-c", f"kill -STOP {pid}")
    result = ended(child, vaultcube, "workload-failed", 1)
    assert result["verdict"] == "FAIL"
    assert "rank 1 gave no sign of life" in result["run"]["error"]["message"]


def test_a_run_past_its_limit_is_stopped(vaultcube: Vaultcube) -> None:
    seen = vaultcube(*LONG, "--timeout", "5s")
    assert (seen.returncode, "[timeout]" in seen.stderr) == (1, True), seen.stderr
    assert vaultcube.result()["run"]["status"] == "timeout"


def test_garbled_events_are_seen_and_spoil_the_timings_only(vaultcube: Vaultcube, wait_for: Wait) -> None:
    child = vaultcube.start(*FAST, "--ranks", "1", "--json")
    wait_for(lambda: said(vaultcube, "started"), 60)
    (events,) = vaultcube.runs.glob("*/results/events.jsonl")
    with events.open("ab") as file:
        file.write(b'\xff\xfe{"schema": 1, "seq":\n')
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    result = json.loads(out)
    assert result["run"]["status"] == "completed"
    assert any("cannot be read" in text for text in result["disturbances"])


def test_a_model_that_does_not_exist_is_the_users_mistake(vaultcube: Vaultcube) -> None:
    seen = vaultcube("bench", "ddp", "--gpus", "none", "--model", "resnet51")
    assert (seen.returncode, "[bad-parameter]" in seen.stderr) == (2, True), seen.stderr
    assert "resnet50" in seen.stderr


def test_after_sigkill_ps_shows_the_orphan_and_down_judges_it(vaultcube: Vaultcube, wait_for: Wait) -> None:
    child = vaultcube.start(*LONG)
    wait_for(lambda: said(vaultcube, "window"), 90)
    (run,) = vaultcube.run_ids()
    assert [one["keeper"] for one in json.loads(vaultcube("ps", "--json").stdout) if one["run"] == run] == [child.pid]
    child.kill()
    child.communicate(timeout=10)
    assert f"{run}  ddp       running  -     -        nobody: vaultcube down" in vaultcube("ps").stdout
    assert "[not-found]" in vaultcube("runs", "show", run).stderr
    listed = json.loads(vaultcube("runs", "list", "--json").stdout)
    assert [one["status"] for one in listed] == ["lost"]
    seen = vaultcube("down", run)
    assert (seen.returncode, seen.stdout.startswith(f"{run}: cleared; interrupted")) == (0, True), seen.stderr
    assert vaultcube.result()["run"]["status"] == "interrupted"
    assert not [one for one in json.loads(vaultcube("ps", "--json").stdout) if one["run"] == run]


def test_down_stops_a_run_that_is_looked_after(vaultcube: Vaultcube, wait_for: Wait) -> None:
    child = vaultcube.start(*LONG)
    wait_for(lambda: container(vaultcube), 60)
    (run,) = vaultcube.run_ids()
    seen = vaultcube("down", run)
    assert seen.stdout == f"{run}: stopped by its own vaultcube (pid {child.pid})\n", seen.stderr
    ended(child, vaultcube, "interrupted", 130)


def test_a_run_that_lost_everything_can_still_be_settled(vaultcube: Vaultcube, wait_for: Wait) -> None:
    child = vaultcube.start(*LONG)
    found = wait_for(lambda: container(vaultcube), 60)
    child.kill()
    child.communicate(timeout=10)
    docker("rm", "--force", found)
    (run,) = vaultcube.run_ids()
    assert vaultcube("down", run).stdout.startswith(f"{run}: interrupted")
    assert vaultcube.result()["run"]["status"] == "interrupted"
