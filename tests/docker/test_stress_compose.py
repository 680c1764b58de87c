"""`docker compose -f compose/stress.yml up` without the orchestrator: pins, a soak on the CPU, deaths, going on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.docker.conftest import ROOT, Vaultcube, docker
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

    def container(self, gpu: str) -> str:
        return self("ps", "--all", "--quiet", gpu)


@pytest.fixture
def raw(tmp_path: Path, image: str) -> Iterator[Raw]:  # noqa: ARG001
    """Return the stack; its results folder does not exist yet, and has a space in its name."""
    results = tmp_path / "results with spaces"
    env = {**os.environ, "COMPOSE_PROJECT_NAME": PROJECT, "VAULTCUBE_RESULTS_DIR": str(results)}
    stack = Raw({**env, "STRESS_NAME": "a-day", "STRESS_SECONDS": "6"}, results)
    try:
        yield stack
    finally:
        stack("down", "--timeout", "5")
    assert not docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}")


def test_each_worker_has_one_gpu_of_the_box_and_the_recorder_sees_all() -> None:
    services = resolved("stress.yml")
    assert sorted(services) == ["gpu-0", "gpu-1", "gpu-2", "gpu-3", "recorder", "recorder-results"]
    for index in range(4):
        service: Any = services[f"gpu-{index}"]
        (pin,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert (pin["driver"], pin["device_ids"]) == ("nvidia", [str(index)])
        assert f"--gpu=gpu-{index}" in service["command"]
        assert "--seconds=86400" in service["command"]
        assert service["environment"]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        # Back after a crash or a restart of the machine, but not for ever.
        assert service["restart"] == "on-failure:20"
    recorder: Any = services["recorder"]
    (pin,) = recorder["deploy"]["resources"]["reservations"]["devices"]
    assert (pin["count"], pin["capabilities"]) == (-1, ["gpu", "utility"])
    assert (recorder["restart"], recorder["labels"]) == ("unless-stopped", {"io.vaultcube.role": "recorder"})
    assert "--db=/results/soak/run.db" in recorder["command"]


def test_the_gpu_less_file_asks_for_no_gpu_and_records_none() -> None:
    services = resolved("stress.yml", "stress.cpu.yml")
    assert sorted(services) == ["gpu-0", "gpu-1", "recorder-results"]
    for service in services.values():
        reservations = service["deploy"]["resources"].get("reservations", {})  # type: ignore[index]
        assert not reservations.get("devices")


@pytest.mark.image
def test_a_soak_runs_to_its_end_is_judged_and_another_start_adds_nothing(raw: Raw, vaultcube: Vaultcube) -> None:
    raw("up", "--no-build", timeout=240)
    for gpu in ("gpu-0", "gpu-1"):
        assert docker("inspect", "--format", "{{.State.ExitCode}}", raw.container(gpu)) == "0"
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
    seen = vaultcube("stress", "judge", str(raw.results / "a-day"), "--json")
    assert seen.returncode == 0, seen.stderr
    result = json.loads(seen.stdout)
    assert (result["run"]["status"], result["device"], result["verdict"]) == ("completed", "cpu", "UNAVAILABLE")
    verdicts = {check["name"]: check["verdict"] for check in result["checks"]}
    assert {name for name, verdict in verdicts.items() if verdict == "PASS"} == JUDGED_ANYWHERE
    assert {verdicts[name] for name in verdicts.keys() - JUDGED_ANYWHERE} == {"UNAVAILABLE"}
    before = raw.kinds("gpu-0").count("checked")
    raw("up", "--no-build", timeout=240)
    assert raw.kinds("gpu-0").count("checked") == before
    assert raw.kinds("gpu-0")[-1] == "finished"


@pytest.mark.image
def test_a_worker_that_is_killed_goes_on_where_it_stopped_and_stops_no_other(raw: Raw, wait_for: Wait) -> None:
    raw("up", "--no-build", "--detach", STRESS_SECONDS="600")
    wait_for(lambda: "checked" in raw.kinds("gpu-0") and "checked" in raw.kinds("gpu-1"), 120)
    other = raw.container("gpu-1")
    since = docker("inspect", "--format", "{{.State.StartedAt}}", other)
    # As the kernel does it: not a stop that the engine was asked for.
    docker("exec", raw.container("gpu-0"), "sh", "-c", "kill -9 $(cat /proc/1/task/1/children)")
    wait_for(lambda: raw.kinds("gpu-0").count("started") == 2, 60)
    first, second = [event for event in raw.events("gpu-0") if event["kind"] == "started"]
    assert first["session"] != second["session"]
    assert second["resumed_s"] > 0
    assert docker("inspect", "--format", "{{.State.Running}} {{.State.StartedAt}}", other) == f"true {since}"
    raw("stop")
    for gpu in ("gpu-0", "gpu-1"):
        assert docker("inspect", "--format", "{{.State.ExitCode}}", raw.container(gpu)) == "75"
        assert raw.events(gpu)[-1]["code"] == "interrupted"


@pytest.mark.image
def test_nonsense_is_refused_and_not_tried_for_ever(raw: Raw, wait_for: Wait) -> None:
    raw("up", "--no-build", "--detach", "gpu-0", STRESS_SECONDS="never")
    wait_for(lambda: "never" in docker("logs", raw.container("gpu-0")) + raw("logs", "gpu-0"), 60)
    limit = docker("inspect", "--format", "{{.HostConfig.RestartPolicy.MaximumRetryCount}}", raw.container("gpu-0"))
    assert limit == "20"
