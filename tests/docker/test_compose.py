"""The compose files without the orchestrator, as a user runs them: `docker compose -f compose/ddp.yml up`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from testcontainers.compose import DockerCompose
from tests.docker.conftest import ROOT, docker

pytestmark = [pytest.mark.docker]
GPU_LESS = ["ddp.yml", "ddp.cpu.yml"]
TRAINING = ("ddp", "tensorflow")
IMAGES = {"ddp": "vaultcube/pytorch:cu124", "tensorflow": "vaultcube/tensorflow:cu124"}


@pytest.fixture(params=TRAINING)
def workload(request: pytest.FixtureRequest) -> str:
    """Return the name of a workload that trains."""
    name: str = request.param
    return name


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workload: str) -> Iterator[tuple[DockerCompose, Path]]:
    """Return the GPU-less stack in a project of its own, and the folder it writes to (which does not exist yet)."""
    if not docker("image", "ls", "--quiet", IMAGES[workload]):
        pytest.fail(f"this test needs {IMAGES[workload]} (make setup)")
    results = tmp_path / "results with spaces"
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "vaultcube-test-raw")
    monkeypatch.setenv("VAULTCUBE_RESULTS_DIR", str(results))
    monkeypatch.setenv(f"{workload.upper()}_PRESET", "smoke")
    files = [f"{workload}.yml", f"{workload}.cpu.yml"]
    compose = DockerCompose(str(ROOT / "compose"), compose_file_name=files, wait=False)
    yield compose, results
    compose.stop()
    assert not docker("ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project=vaultcube-test-raw")
    assert not docker("network", "ls", "--quiet", "--filter", "label=com.docker.compose.project=vaultcube-test-raw")


@pytest.mark.image
def test_the_raw_stack_runs_to_its_end_and_leaves_events(raw: tuple[DockerCompose, Path], workload: str) -> None:
    compose, results = raw
    compose.start()
    container = compose.get_container(workload, include_all=True)
    assert docker("wait", str(container.ID), timeout=240) == "0"
    (events,) = results.glob(f"{workload}-*/events.jsonl")
    kinds = [json.loads(line)["kind"] for line in events.read_text().splitlines()]
    assert kinds[0] == "started"
    assert kinds.count("finished") == 2
    stdout, _ = compose.get_logs(workload)
    assert "samples/s" in stdout


def resolved(*files: str) -> dict[str, dict[str, object]]:
    """Return the services of compose files as compose understands them."""
    named = [part for file in files for part in ("--file", str(ROOT / "compose" / file))]
    services: dict[str, dict[str, object]] = json.loads(docker("compose", *named, "config", "--format", "json"))[
        "services"
    ]
    return services


def test_the_gpu_file_pins_the_four_gpus_of_the_box_by_index(workload: str) -> None:
    service = resolved(f"{workload}.yml")[workload]
    (pin,) = service["deploy"]["resources"]["reservations"]["devices"]  # type: ignore[index]
    assert pin["driver"] == "nvidia"
    assert pin["device_ids"] == ["0", "1", "2", "3"]
    assert service["environment"]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"  # type: ignore[index]


def test_the_gpu_less_file_asks_for_no_gpu(workload: str) -> None:
    service = resolved(f"{workload}.yml", f"{workload}.cpu.yml")[workload]
    reservations = service["deploy"]["resources"].get("reservations", {})  # type: ignore[index]
    assert not reservations.get("devices")


def test_the_recorder_asks_for_all_gpus_and_no_cuda() -> None:
    service = resolved("recorder.yml")["recorder"]
    (pin,) = service["deploy"]["resources"]["reservations"]["devices"]  # type: ignore[index]
    assert pin == {"driver": "nvidia", "count": -1, "capabilities": ["gpu", "utility"]}
    assert service["labels"] == {"io.vaultcube.role": "recorder"}
    assert service["cap_add"] == ["SYSLOG"]


@pytest.mark.parametrize(
    "files",
    [
        ["ddp.yml"],
        GPU_LESS,
        ["tensorflow.yml"],
        ["tensorflow.yml", "tensorflow.cpu.yml"],
        ["recorder.yml"],
        ["stress.yml"],
        ["stress.yml", "stress.cpu.yml"],
    ],
)
def test_every_service_is_bounded_and_unprivileged(files: list[str]) -> None:
    for name, service in resolved(*files).items():
        assert service["init"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["stop_grace_period"], name
        assert service["logging"]["options"]["max-size"], name  # type: ignore[index]
        assert service["deploy"]["resources"]["limits"]["memory"], name  # type: ignore[index]
        assert service["network_mode"] == "none", name
        assert not service.get("privileged"), name
        assert not service.get("ports"), name
