"""`docker compose -f compose/stress.yml up` without the orchestrator: pins, a soak on the CPU, deaths, going on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.docker.conftest import ROOT, Vaultcube, docker, kill_inside
from tests.docker.test_compose import resolved

pytestmark = [pytest.mark.docker]
PROJECT = "vaultcube-test-stress"
FILES = [word for name in ("stress.yml", "stress.cpu.yml") for word in ("--file", str(ROOT / "compose" / name))]
# What needs neither a card nor a recorder.
JUDGED_ANYWHERE = {"covered", "no_mismatch", "digests_agree", "no_unplanned_restart", "no_fault_injected"}
Wait = Callable[[Callable[[], Any], float], Any]


@dataclass
class Raw:
    """The stack on the CPU, and the folder it writes to."""

    env: dict[str, str]
    results: Path

    def __call__(self, *words: str, timeout: float = 120, **env: str) -> str:
        return docker("compose", *FILES, *words, timeout=timeout, env={**self.env, **env})

    def events(self, gpu: str, soak: str = "a-day") -> list[dict[str, Any]]:
        path = self.results / soak / gpu / "events.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def kinds(self, gpu: str, soak: str = "a-day") -> list[str]:
        return [event["kind"] for event in self.events(gpu, soak)]

    def container(self, service: str) -> str:
        return self("ps", "--all", "--quiet", service)

    def exit_code(self, service: str) -> int | None:
        """Return the exit code of a container that has ended."""
        said = docker("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", self.container(service))
        status, _, code = said.partition(" ")
        return int(code) if status == "exited" else None

    def kill(self, service: str, words: str) -> None:
        kill_inside(self.container(service), words)

    def result(self, soak: str = "a-day") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.results / soak / "result.json").read_text())
        return found


@pytest.fixture
def raw(tmp_path: Path, image: str) -> Iterator[Raw]:  # noqa: ARG001
    """Return the stack; its results folder does not exist yet, and has a space in its name."""
    results = tmp_path / "results with spaces"
    env = {**os.environ, "COMPOSE_PROJECT_NAME": PROJECT, "VAULTCUBE_RESULTS_DIR": str(results)}
    stack = Raw({**env, "STRESS_NAME": "a-day", "STRESS_SECONDS": "6", "STRESS_SETTLE": "4"}, results)
    try:
        yield stack
    finally:
        stack("down", "--timeout", "5")
    assert not docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}")


def test_each_worker_has_one_gpu_of_the_box_and_the_recorder_sees_all() -> None:
    services = resolved("stress.yml")
    assert sorted(services) == ["gpu-0", "gpu-1", "gpu-2", "gpu-3", "judge", "recorder", "recorder-results"]
    for index in range(4):
        service: Any = services[f"gpu-{index}"]
        (pin,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert (pin["driver"], pin["device_ids"]) == ("nvidia", [str(index)])
        assert f"--gpu=gpu-{index}" in service["command"]
        assert {"--seconds=86400", "--recorder-lost-s=60", "--max-celsius=", "--on-fault=gpu"} <= {*service["command"]}
        assert service["environment"]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        # Back after a crash or a restart of the machine, but not for ever.
        assert service["restart"] == "on-failure:20"
        # `up gpu-0` brings both.
        assert {"judge", "recorder"} < {*service["depends_on"]}
    recorder: Any = services["recorder"]
    (pin,) = recorder["deploy"]["resources"]["reservations"]["devices"]
    assert (pin["count"], pin["capabilities"]) == (-1, ["gpu", "utility"])
    assert (recorder["restart"], recorder["labels"]) == ("on-failure", {"io.vaultcube.role": "recorder"})
    folder = "/results/soak"
    told = {f"--db={folder}/run.db", f"--beat={folder}/recorder.json", f"--until={folder}/ended"}
    assert told <= {*recorder["command"]}


def test_the_judge_computes_nothing_and_has_no_gpu() -> None:
    judge: Any = resolved("stress.yml")["judge"]
    assert judge["command"][:7] == ["python3", "-m", "vaultcube", "stress", "judge", "/results/soak", "--wait"]
    assert (judge["network_mode"], judge["read_only"], judge["cap_drop"]) == ("none", True, ["ALL"])
    assert not judge["deploy"]["resources"].get("reservations")
    assert judge["restart"] == "on-failure:20"


def test_the_gpu_less_file_asks_for_no_gpu_and_records_none() -> None:
    services = resolved("stress.yml", "stress.cpu.yml")
    assert sorted(services) == ["gpu-0", "gpu-1", "judge", "recorder-results"]
    for name in services:
        service: Any = services[name]
        reservations = service["deploy"]["resources"].get("reservations", {})
        assert not reservations.get("devices")
        # Nobody waits for a recorder that is not there.
        assert not any("--recorder-lost" in word for word in service["command"]), name


@pytest.mark.image
def test_a_soak_ends_with_its_verdict_and_another_start_adds_nothing(raw: Raw, vaultcube: Vaultcube) -> None:
    raw("up", "--no-build", timeout=240)
    for gpu in ("gpu-0", "gpu-1"):
        assert raw.exit_code(gpu) == 0
        checked = [event for event in raw.events(gpu) if event["kind"] == "checked"]
        assert sum(event["until_mono"] - event["from_mono"] for event in checked) >= 6
        assert not any(event["mismatches"] for event in checked)
        assert raw.kinds(gpu)[-1] == "finished"
    # Equal machines compute equal bits.
    digests = [
        {event["key"]: event["digest"] for event in raw.events(gpu) if event["kind"] == "checked"}
        for gpu in ("gpu-0", "gpu-1")
    ]
    assert digests[0] == digests[1]
    # The judge ends last, whatever it found, and is not started again.
    assert raw.exit_code("judge") == 0
    assert "verdict UNAVAILABLE" in raw("logs", "judge")
    result = raw.result()
    assert (result["run"]["status"], result["device"], result["verdict"]) == ("completed", "cpu", "UNAVAILABLE")
    verdicts = {check["name"]: check["verdict"] for check in result["checks"]}
    assert {name for name, verdict in verdicts.items() if verdict == "PASS"} == JUDGED_ANYWHERE
    assert {verdicts[name] for name in verdicts.keys() - JUDGED_ANYWHERE} == {"UNAVAILABLE"}
    # Whoever owns the results may judge them again, and finds the same.
    seen = vaultcube("stress", "judge", str(raw.results / "a-day"), "--json")
    assert seen.returncode == 0, seen.stderr
    assert json.loads(seen.stdout)["checks"] == result["checks"]
    before = raw.kinds("gpu-0").count("checked")
    raw("up", "--no-build", timeout=240)
    assert raw.kinds("gpu-0").count("checked") == before
    assert raw.kinds("gpu-0")[-1] == "finished"
    assert raw.result()["verdict"] == "UNAVAILABLE"


@pytest.mark.image
def test_ctrl_c_leaves_a_verdict_and_up_goes_on_from_there(raw: Raw, wait_for: Wait) -> None:
    argv = ["docker", "compose", *FILES, "up", "--no-build"]
    env = {**raw.env, "STRESS_SECONDS": "8"}
    with subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as front:
        wait_for(lambda: all("reference" in raw.kinds(gpu) for gpu in ("gpu-0", "gpu-1")), 120)
        front.send_signal(signal.SIGINT)
        front.wait(60)
    for gpu in ("gpu-0", "gpu-1"):
        assert raw.exit_code(gpu) == 75
        assert raw.events(gpu)[-1]["code"] == "interrupted"
    assert raw.exit_code("judge") == 130
    found = raw.result()
    assert (found["run"]["status"], found["verdict"]) == ("interrupted", "FAIL")
    assert not (raw.results / "a-day/ended").exists()
    raw("up", "--no-build", timeout=240, STRESS_SECONDS="8")
    found = raw.result()
    assert found["run"]["status"] == "completed"
    # It was told to: planned.
    assert {check["name"] for check in found["checks"] if check["verdict"] == "PASS"} == JUDGED_ANYWHERE
    assert (found["metrics"]["restarts"]["value"], found["metrics"]["restarts_unplanned"]["value"]) == (2, 0)


@pytest.mark.image
def test_one_gpu_alone_brings_its_judge_into_a_folder_of_the_users(raw: Raw, wait_for: Wait) -> None:
    raw.results.mkdir(mode=0o755)
    raw("up", "--no-build", "--detach", "gpu-0", STRESS_SECONDS="2")
    wait_for((raw.results / "a-day/result.json").exists, 120)
    assert [subject.name for subject in raw.results.glob("a-day/gpu-*")] == ["gpu-0"]
    assert raw.result()["run"]["status"] == "completed"
    folder, above = (raw.results / "a-day").stat(), raw.results.stat()
    # Who owns the folder can clear it.
    assert (folder.st_mode & 0o7777, folder.st_uid, folder.st_gid) == (0o3777, above.st_uid, above.st_gid)
    wait_for(lambda: raw.exit_code("judge") == 0, 30)


@pytest.mark.image
def test_whatever_is_killed_comes_back_and_stops_no_other(raw: Raw, wait_for: Wait) -> None:
    raw("up", "--no-build", "--detach", STRESS_SECONDS="600")
    wait_for(lambda: "checked" in raw.kinds("gpu-0") and "checked" in raw.kinds("gpu-1"), 120)
    other = raw.container("gpu-1")
    since = docker("inspect", "--format", "{{.State.StartedAt}}", other)
    # As the kernel does it, not a stop that the engine was asked for: first the launcher, later what it started.
    raw.kill("gpu-0", "-m stress ")
    raw.kill("judge", "stress judge")
    wait_for(lambda: raw.kinds("gpu-0").count("started") == 2, 60)
    first, second = [event for event in raw.events("gpu-0") if event["kind"] == "started"]
    assert first["session"] != second["session"]
    assert second["resumed_s"] > 0
    wait_for(lambda: docker("inspect", "--format", "{{.RestartCount}}", raw.container("judge")) == "1", 60)
    assert docker("inspect", "--format", "{{.State.Running}} {{.State.StartedAt}}", other) == f"true {since}"
    raw.kill("gpu-1", "stress.worker")
    wait_for(lambda: raw.kinds("gpu-1").count("started") == 2, 60)
    assert [event["code"] for event in raw.events("gpu-1") if event["kind"] == "error"] == ["worker-failed"]
    raw("stop")
    for gpu in ("gpu-0", "gpu-1"):
        assert raw.exit_code(gpu) == 75
        assert raw.events(gpu)[-1]["code"] == "interrupted"
    found = raw.result()
    assert (found["run"]["status"], found["metrics"]["restarts_unplanned"]["value"]) == ("interrupted", 2)


@pytest.mark.image
def test_nonsense_is_refused_and_not_tried_for_ever(raw: Raw, wait_for: Wait) -> None:
    raw("up", "--no-build", "--detach", "gpu-0", STRESS_SECONDS="never")
    wait_for(lambda: "never" in docker("logs", raw.container("gpu-0")) + raw("logs", "gpu-0"), 60)
    limit = docker("inspect", "--format", "{{.HostConfig.RestartPolicy.MaximumRetryCount}}", raw.container("gpu-0"))
    assert limit == "20"
