"""Looking at a machine, with docker replayed."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from tests.unit.replay import Recording
from tests.unit.support import DATA

from vaultcube.errors import InterruptedRunError
from vaultcube.gpu.preflight.facts import NOT_ASKED, Asked, Engine, Facts, Toolkit, Unseen
from vaultcube.stack import facts as looking
from vaultcube.stack.docker import Docker
from vaultcube.stack.facts import look
from vaultcube.stack.signals import Stop

RECORDED = DATA / "preflight"
EVERYTHING = frozenset(field.name for field in fields(Facts)) - {"asked", "simulated"}
SOCKET = "unix:///var/run/docker.sock"


def healthy(recording: Recording) -> None:
    recording.says("info", (RECORDED / "docker-info-28.3.json").read_text())
    recording.says("compose version --short", "2.39.1\n")
    recording.says("buildx version", "github.com/docker/buildx v0.26.1 1a8287f\n")
    recording.says("image ls", "vaultcube/pytorch:cu128\n")
    recording.says("ps", "")


def tool(recording: Recording, script: str) -> None:
    path = recording.folder / "nvidia-ctk"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_everything_is_seen_or_there_is_a_reason(recording: Recording, tmp_path: Path) -> None:
    healthy(recording)
    tool(recording, "echo NVIDIA Container Toolkit CLI version 1.18.1")
    found = look(EVERYTHING, Asked(), docker=Docker(), results_root=tmp_path)
    assert isinstance(found.engine, Engine)
    assert (found.engine.version, found.compose, found.buildx) == ("28.3.3", "2.39.1", "0.26.1")
    assert found.images == frozenset({"vaultcube/pytorch:cu128"})
    assert isinstance(found.toolkit, Toolkit)
    assert found.toolkit.version == "1.18.1"
    assert not isinstance(found.offers, Unseen)
    # What the engine found counts, not what is in files here.
    assert found.offers.cdi is not None
    assert "GPU-0b6b7808-c002-f593-ac86-cd8e57757b94" in found.offers.cdi
    for field in fields(Facts):
        seen = getattr(found, field.name)
        assert seen is not None
        assert not isinstance(seen, Unseen) or (seen.reason and seen != NOT_ASKED), field.name


def test_only_what_is_wanted_is_asked_for(recording: Recording, tmp_path: Path) -> None:
    healthy(recording)
    look({"compose"}, Asked(), docker=Docker(), results_root=tmp_path)
    assert recording.calls == ["compose version --short"]
    # The CDI devices are the engine's to tell.
    found = look({"offers"}, Asked(), docker=Docker(), results_root=tmp_path)
    assert recording.calls[1:] == ["info --format {{json .}}"]
    assert found.compose == NOT_ASKED
    assert look(set(), Asked(), docker=Docker()) == Facts()


def test_files_of_another_machine_are_a_simulation(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy(recording)
    assert not look(EVERYTHING, Asked(), docker=Docker()).simulated
    monkeypatch.setenv("VAULTCUBE_HOST_ROOT", str(tmp_path))
    assert look({"pci"}, Asked(), docker=Docker()).simulated


def test_a_dead_engine_keeps_nothing_else_from_being_seen(recording: Recording, tmp_path: Path) -> None:
    said = f"Cannot connect to the Docker daemon at {SOCKET}. Is the docker daemon running?\n"
    recording.says("info", '{"ServerVersion": ""}\n', stderr=said, status=1)
    recording.says("image ls", stderr=said, status=1)
    recording.says("compose version --short", "2.39.1\n")
    recording.says("buildx version", "github.com/docker/buildx v0.26.1 x\n")
    found = look(EVERYTHING, Asked(), docker=Docker(), results_root=tmp_path)
    assert isinstance(found.engine, Unseen)
    assert found.engine.code == "engine-unreachable"
    assert found.engine == found.offers == found.cdi == found.images_disk
    assert (found.compose, found.buildx) == ("2.39.1", "0.26.1")
    assert not isinstance(found.ports, Unseen)


def test_a_socket_without_permission_has_its_own_code(recording: Recording) -> None:
    said = f"permission denied while trying to connect to the Docker daemon socket at {SOCKET}\n"
    recording.says("info", stderr=said, status=1)
    found = look({"engine"}, Asked(), docker=Docker())
    assert isinstance(found.engine, Unseen)
    assert found.engine.code == "engine-permission"


def test_engines_that_hang_share_one_deadline(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    recording.says("", after_s=600)
    monkeypatch.setattr(looking, "PROBE_S", 0.3)
    found = look({"engine", "compose", "buildx", "images"}, Asked(), docker=Docker())
    for seen in (found.engine, found.compose, found.buildx, found.images):
        assert isinstance(seen, Unseen)
        assert seen.code == "engine-unreachable"
        assert "did not answer within" in seen.reason


def test_no_docker_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = look(EVERYTHING, Asked(), docker=Docker(), results_root=tmp_path)
    for seen in (found.engine, found.compose, found.buildx, found.images, found.offers):
        assert isinstance(seen, Unseen)
        assert seen.code == "docker-missing"
    assert isinstance(found.toolkit, Toolkit)
    assert found.toolkit.version is None


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [("2.20.0\n", 0, "compose-missing"), ("", 125, "compose-missing"), ("dev\n", 0, "compose-missing")],
)
def test_compose_that_will_not_do(recording: Recording, said: str, status: int, code: str) -> None:
    recording.says("compose version", said, stderr="unknown flag: --short\n" if status else "", status=status)
    found = look({"compose"}, Asked(), docker=Docker())
    assert isinstance(found.compose, Unseen)
    assert found.compose.code == code


@pytest.mark.parametrize(("said", "status"), [("", 1), ("what?\n", 0), ("", 0)])
def test_no_buildx(recording: Recording, said: str, status: int) -> None:
    recording.says("buildx version", said, status=status)
    assert look({"buildx"}, Asked(), docker=Docker()).buildx == Unseen("docker has no buildx plugin", "buildx-missing")


@pytest.mark.parametrize("said", ["no json", "", "[]", "{}"])
def test_an_engine_that_talks_nonsense(recording: Recording, said: str) -> None:
    recording.says("info", said)
    assert isinstance(look({"engine"}, Asked(), docker=Docker()).engine, Unseen)


@pytest.mark.parametrize("script", ["exit 3", "echo no version here"])
def test_a_toolkit_that_does_not_tell_its_version(recording: Recording, script: str) -> None:
    tool(recording, script)
    assert isinstance(look({"toolkit"}, Asked(), docker=Docker()).toolkit, Unseen)


def test_a_toolkit_that_cannot_be_run(recording: Recording) -> None:
    tool(recording, "true")
    (recording.folder / "nvidia-ctk").write_bytes(b"\x7fELF or not")
    seen = look({"toolkit"}, Asked(), docker=Docker()).toolkit
    assert isinstance(seen, Unseen)
    assert "nvidia-ctk" in seen.reason


def test_a_stop_ends_the_looking_and_leaves_nothing_behind(recording: Recording) -> None:
    recording.says("", after_s=600)
    with Stop() as stop:
        stop._handle(2, None)
        with pytest.raises(InterruptedRunError):
            look({"engine", "images"}, Asked(), docker=Docker(stop))
