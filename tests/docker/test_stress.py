"""`vaultcube stress` on the real engine, without a GPU: to its end, detached, broken off and gone on with."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.docker.conftest import Vaultcube, docker, kill_inside, until

pytestmark = [pytest.mark.docker, pytest.mark.image, pytest.mark.usefixtures("image")]

Wait = Callable[[Callable[[], Any], float], Any]
START_S = 180
# Two workers, load that loads nothing but shows everything.
SMALL = ("stress", "--phases", "fp32", "--phase-seconds", "2")
SHORT, LONG = ("--hours", "0.002"), ("--hours", "2")


def document(out: str, err: str) -> dict[str, Any]:
    assert "Traceback" not in err
    found: dict[str, Any] = json.loads(out)
    return found


def folder(cube: Vaultcube) -> Path:
    (run,) = cube.run_ids()
    return cube.runs / run / "results"


def covering(cube: Vaultcube, *workers: str) -> bool:
    """Say whether every worker has told of load."""
    paths = [folder(cube) / worker / "events.jsonl" for worker in workers or ("gpu-0", "gpu-1")]
    return all(path.exists() and '"checked"' in path.read_text() for path in paths)


def containers(cube: Vaultcube, service: str = "") -> list[str]:
    """Return the ids of the run's containers that run."""
    (run,) = cube.run_ids()
    filters = ["--filter", f"label=io.vaultcube.run={run}"]
    filters += ["--filter", f"label=com.docker.compose.service={service}"] if service else []
    return docker("ps", "--quiet", "--no-trunc", *filters).split()


def status(cube: Vaultcube) -> dict[str, Any]:
    seen = cube("stress", "status", "--json")
    assert seen.returncode == 0, seen.stderr
    (found,) = [one for one in json.loads(seen.stdout) if one["run"] in cube.run_ids()]
    return dict(found)


def failed(result: dict[str, Any]) -> set[str]:
    return {check["name"] for check in result["checks"] if check["verdict"] == "FAIL"}


def test_a_soak_to_its_end_climbs_its_ladder_and_is_judged(vaultcube: Vaultcube) -> None:
    seen = vaultcube(*SMALL, "--ladder", "0.001,0.002", "--json", timeout=START_S + 100)
    assert seen.returncode == 0, seen.stderr
    result = document(seen.stdout, seen.stderr)
    assert (result["run"]["status"], result["verdict"], result["device"]) == ("completed", "UNAVAILABLE", "cpu")
    assert result["metrics"]["covered_ratio"]["value"] == 1
    assert {check["name"] for check in result["checks"] if check["verdict"] == "PASS"} == {
        *("covered", "no_mismatch", "digests_agree", "no_unplanned_restart", "no_fault_injected")
    }
    assert set(result["provenance"]["images"]) == {"gpu-0", "gpu-1", "judge"}
    assert "torch" in result["provenance"]["frameworks"]
    assert " covered" in seen.stderr
    # Its own judge came to the same.
    for name in ("rung-0.001h.json", "result.json"):
        own = json.loads((folder(vaultcube) / name).read_text())
        assert own["verdict"] == "UNAVAILABLE", name
        assert not failed(own)
    assert json.loads(vaultcube("runs", "show", "last", "--json").stdout) == result


def test_detached_it_goes_on_by_itself_and_tells_how_far_it_is(vaultcube: Vaultcube, wait_for: Wait) -> None:
    seen = vaultcube("up", *SMALL, *LONG, timeout=START_S)
    assert seen.returncode == 0, seen.stderr
    assert "vaultcube stress status" in seen.stdout
    wait_for(lambda: covering(vaultcube), START_S)
    found = status(vaultcube)
    assert (found["name"], found["running"], found["keeper"]) == ("stress", True, None)
    assert [one["standing"] for one in found["workers"]] == ["loading", "loading"]
    assert 0 < found["covered_s"] < found["wanted_s"] == 7200
    assert "stress" in vaultcube("ps").stdout
    # A worker that is killed comes back, and stops no other.
    (other,) = containers(vaultcube, "gpu-1")
    (victim,) = containers(vaultcube, "gpu-0")
    kill_inside(victim, "-m stress ")
    wait_for(lambda: [one["starts"] for one in status(vaultcube)["workers"]] == [2, 1], START_S)
    assert containers(vaultcube, "gpu-1") == [other]
    stopped = vaultcube("stress", "stop", "--json", timeout=60)
    result = document(stopped.stdout, stopped.stderr)
    assert (stopped.returncode, result["run"]["status"]) == (130, "interrupted")
    assert failed(result) == {"covered", "no_unplanned_restart"}
    assert any("gpu-0 began again" in one["text"] for one in result["evidence"])
    assert "no soak is running; the last one" in vaultcube("stress", "status").stdout


# Both workers load the framework twice.
@pytest.mark.timeout(600)
def test_broken_off_it_goes_on_where_it_was_and_only_as_what_it_was(vaultcube: Vaultcube, wait_for: Wait) -> None:
    child = vaultcube.start(*SMALL, "--hours", "0.008", "--json")
    wait_for(lambda: vaultcube.run_ids() and covering(vaultcube), START_S)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert document(out, err)["run"]["status"] == "interrupted"
    assert not containers(vaultcube)
    for words, said in (
        (["--gpus", "2"], "2 GPU(s) was asked for"),
        (["--hours", "24"], "24 h was asked for"),
        (["--flavour", "cu128"], "cu128 was asked for"),
    ):
        seen = vaultcube("stress", "--resume", *words)
        assert (seen.returncode, "[soak-changed]" in seen.stderr, said in seen.stderr) == (3, True, True), seen.stderr
    noted = folder(vaultcube).parent / "images.json"
    before = noted.read_text()
    noted.write_text(json.dumps(dict.fromkeys(json.loads(before), "sha256:of-before")))
    seen = vaultcube("stress", "--resume")
    assert (seen.returncode, "is another one than" in seen.stderr) == (3, True), seen.stderr
    noted.write_text(before)
    seen = vaultcube("stress", "--resume", "--json", timeout=START_S + 100)
    result = document(seen.stdout, seen.stderr)
    assert (seen.returncode, result["run"]["status"]) == (0, "completed")
    assert not failed(result)
    assert result["metrics"]["restarts"]["value"] == 2
    # What was covered before counts.
    for worker in ("gpu-0", "gpu-1"):
        lines = [json.loads(line) for line in (folder(vaultcube) / worker / "events.jsonl").read_text().splitlines()]
        assert [line["resumed_s"] > 0 for line in lines if line["kind"] == "started"] == [False, True]
    done = vaultcube("stress", "--resume", "--name", result["run"]["id"])
    assert (done.returncode, "has covered its hours" in done.stderr) == (2, True), done.stderr


def test_a_vaultcube_that_is_killed_is_not_missed(vaultcube: Vaultcube, wait_for: Wait) -> None:
    child = vaultcube.start(*SMALL, *LONG, "--json")
    wait_for(lambda: vaultcube.run_ids() and covering(vaultcube), START_S)
    second = vaultcube("stress", "--resume")
    assert (second.returncode, f"(pid {child.pid})" in second.stderr) == (3, True), second.stderr
    child.kill()
    child.communicate()
    before = status(vaultcube)
    assert (before["running"], before["keeper"]) == (True, None)
    # Somebody looks on again, at the same containers.
    running = sorted(containers(vaultcube))
    again = vaultcube.start("stress", "--resume", "--json")
    until(lambda: status(vaultcube)["keeper"] == again.pid, 30)
    assert status(vaultcube)["covered_s"] >= before["covered_s"]
    assert sorted(containers(vaultcube)) == running
    # Ended by somebody else, it says so where it was looked on.
    seen = vaultcube("down", "stress", timeout=60)
    assert seen.returncode == 0, seen.stderr
    out, err = again.communicate(timeout=60)
    assert (again.returncode, document(out, err)["run"]["status"]) == (130, "interrupted")


def test_what_a_worker_refuses_ends_the_soak_with_its_reason(vaultcube: Vaultcube) -> None:
    seen = vaultcube("stress", "--phases", "transfer", *SHORT, timeout=START_S)
    assert (seen.returncode, "[bad-parameter]" in seen.stderr) == (2, True), seen.stderr
    assert "--phases transfer needs a GPU" in seen.stderr
    assert vaultcube.result()["run"]["status"] == "failed"
