"""The recorder in its container: the raw compose file over the simulated box, by hook and by CDI."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.docker.conftest import until
from tests.rig.box import Box
from tests.rig.engine import ROOT, RigEngine

from vaultcube.gpu.telemetry import Event, Meta, Telemetry, TelemetryError

IMAGE = "vaultcube/recorder:any"
COMPOSE = ROOT / "compose" / "recorder.yml"
PATIENCE_S = 60


class Stack:
    """The compose file, up in the rig's engine.

    Attributes:
        results: the folder that it writes to, which it has to make.
    """

    def __init__(self, engine: RigEngine, box: Box, results: Path, override: Sequence[str] = ()) -> None:
        self.engine = engine
        self.box = box
        self.results = results
        self._argv = ["docker", "compose", "--project-name", "vaultcube-recorder", "--file", str(COMPOSE), *override]

    def compose(self, *words: str) -> str:
        env = {
            **os.environ,
            "DOCKER_HOST": self.engine.host,
            "VAULTCUBE_RESULTS_DIR": str(self.results),
            "RECORDER_PERIOD": "0.2",
        }
        seen = subprocess.run([*self._argv, *words], env=env, capture_output=True, text=True, timeout=120, check=False)
        assert seen.returncode == 0, seen.stderr
        return seen.stdout

    def container(self) -> dict[str, Any]:
        """Return what the engine says of the recorder's container."""
        name = self.compose("ps", "--all", "--quiet", "recorder").strip()
        found: dict[str, Any] = json.loads(self.engine.ask("inspect", name))[0]
        return found

    @property
    def file(self) -> Path:
        """The recording."""
        (found,) = self.results.glob("recorder-*/run.db")
        return found

    def read(self) -> tuple[Meta, list[Event]]:
        with Telemetry.open(self.file) as telemetry:
            return telemetry.meta, telemetry.events()

    def until(self, ask: Any) -> Any:
        """Poll the recording until something is true of its meta and events."""

        def asked() -> Any:
            with suppress(TelemetryError, ValueError):
                return ask(*self.read())
            return None

        return until(asked, PATIENCE_S, "it was recorded")


@pytest.fixture(params=["hook", "cdi"])
def stack(request: pytest.FixtureRequest, recorder_image: Path, box: Box, tmp_path: Path) -> Iterator[Stack]:
    engine: RigEngine = request.getfixturevalue(f"rig_{request.param}")
    override: list[str] = []
    if request.param == "cdi":
        # As the orchestrator asks where the engine offers it.
        devices = [{"driver": "cdi", "device_ids": ["nvidia.com/gpu=all"], "capabilities": ["gpu"]}]
        pins = {"deploy": {"resources": {"reservations": {"devices": Override(devices)}}}}
        file = tmp_path / "override.yml"
        file.write_text(yaml.dump({"services": {"recorder": pins}}, Dumper=Dumper))
        override = ["--file", str(file)]
    with loaded(engine, recorder_image):
        found = Stack(engine, box, tmp_path / "results with spaces", override)
        found.compose("up", "--detach")
        yield found
        found.compose("down", "--timeout", "5")


@contextmanager
def loaded(engine: RigEngine, image: Path) -> Iterator[None]:
    """Put the image into the rig's engine."""
    engine.ask("load", "--quiet", "--input", str(image))
    yield
    engine.clear()
    engine.ask("image", "rm", IMAGE)


class Override(list[Any]):
    """A list that replaces the one below it."""


class Dumper(yaml.SafeDumper):
    """Writes it so that compose understands."""


Dumper.add_representer(Override, lambda dumper, data: dumper.represent_sequence("!override", data))


def test_it_records_all_gpus_until_it_is_stopped(stack: Stack, box: Box) -> None:
    meta, _ = stack.until(lambda meta, events: meta.gpus and (meta, events))
    assert [gpu.uuid for gpu in meta.gpus] == box.uuids
    assert meta.simulated
    # Nobody else may read it where dmesg_restrict is set: SYSLOG it is.
    assert meta.kernel_log == "/dev/kmsg"

    box.lose(2)
    (lost,) = stack.until(lambda _, events: [event for event in events if event.kind == "lost"])
    assert lost.uuid == box.uuids[2]

    stack.compose("stop")
    container = stack.container()
    assert (container["State"]["ExitCode"], container["State"]["OOMKilled"]) == (0, False)
    said = stack.engine.docker("logs", container["Id"])
    assert (said.stdout, said.stderr) == ("recording\n", "")
    meta, _ = stack.read()
    assert meta.ended_by == "SIGTERM"
    assert [file.name for file in stack.file.parent.iterdir()] == ["run.db"]


def test_it_is_confined_and_computes_nothing(stack: Stack) -> None:
    stack.until(lambda meta, _: meta.gpus)
    container = stack.container()
    host = container["HostConfig"]
    assert (host["CapDrop"], host["CapAdd"], host["Privileged"]) == (["ALL"], ["SYSLOG"], False)
    assert (host["NetworkMode"], host["ReadonlyRootfs"]) == ("none", True)
    assert container["Config"]["Labels"]["io.vaultcube.role"] == "recorder"
    script = "tr '\\0' '\\n' </proc/1/environ; grep CapEff /proc/self/status; ls -l /dev/kmsg; nvidia-smi -L"
    said = stack.engine.ask("exec", container["Id"], "sh", "-c", script)
    words = said.splitlines()
    assert {word for word in words if word.startswith("NVIDIA_DRIVER_CAPABILITIES=")} == {
        "NVIDIA_DRIVER_CAPABILITIES=utility"
    }
    # CAP_SYSLOG is bit 34.
    assert f"CapEff:\t{1 << 34:016x}" in words
    assert said.count("(UUID: GPU-") == 4


def test_who_owns_the_results_can_clear_them(stack: Stack) -> None:
    stack.until(lambda meta, _: meta.gpus)
    assert stack.results.stat().st_mode & 0o7777 == 0o3777
    folder = stack.file.parent.stat()
    assert folder.st_mode & 0o7777 == 0o2775
    assert folder.st_gid == stack.results.stat().st_gid
