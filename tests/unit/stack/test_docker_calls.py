"""Reading what docker prints, and calling it, with recorded replies."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.unit.replay import Recording
from tests.unit.support import RUN_ID

from vaultcube.errors import (
    BuildxMissingError,
    ComposeMissingError,
    EngineMissingError,
    EngineUnreachableError,
    InterruptedRunError,
)
from vaultcube.stack.docker import (
    Container,
    Docker,
    compose_version,
    containers_args,
    parse_containers,
)
from vaultcube.stack.process import Finished
from vaultcube.stack.signals import Stop

SOCKET = "unix:///var/run/docker.sock"


# --- reading ---------------------------------------------------------------------------------------------------

DIRECTORY = 'runs with "quotes" and ü'
PS = "\n".join(
    json.dumps([identity * 64, f"{RUN_ID}-{number}", state, status, RUN_ID, "ddp", f"/data/{DIRECTORY}/{RUN_ID}"])
    for number, (identity, state, status) in enumerate(
        [
            ("a", "exited", "Exited (137) 2 seconds ago"),
            ("b", "running", "Up 3 seconds"),
            ("c", "exited", "Exited (0) 3 seconds ago"),
        ]
    )
)


def inspected(identity: str, **state: Any) -> dict[str, Any]:
    whole = {
        "Status": "exited",
        "Running": False,
        "Paused": False,
        "OOMKilled": False,
        "Pid": 0,
        "ExitCode": 0,
        "Error": "",
    }
    labels = {"com.docker.compose.service": "ddp", "io.vaultcube.run": RUN_ID}
    return {"Id": identity * 64, "State": {**whole, **state}, "Image": "sha256:fe90", "Config": {"Labels": labels}}


def test_containers_are_read_with_names_of_any_kind() -> None:
    killed, running, _done = parse_containers(PS + "\n\n")
    assert killed == Container(
        id="a" * 64,
        name=f"{RUN_ID}-0",
        state="exited",
        status="Exited (137) 2 seconds ago",
        run=RUN_ID,
        workload="ddp",
        run_dir=f"/data/{DIRECTORY}/{RUN_ID}",
    )
    assert running.state == "running"
    assert parse_containers("") == []


def test_containers_are_asked_for_by_label() -> None:
    assert "label=io.vaultcube.run" in containers_args(None)
    assert f"label=io.vaultcube.run={RUN_ID}" in containers_args(RUN_ID)
    assert "--all" in containers_args(None)


@pytest.mark.parametrize(
    ("stdout", "version"),
    [("2.26.1-4\n", "2.26.1"), ("v2.24.4\n", "2.24.4"), ("5.0.0\n", "5.0.0"), ("2.40.3-desktop.1\n", "2.40.3")],
)
def test_composes_versions(stdout: str, version: str) -> None:
    assert compose_version(Finished(("docker",), 0, stdout, "")) == version


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (Finished(("docker",), 0, "2.24.3\n", ""), "compose 2.24.3 is older than 2.24.4"),
        (Finished(("docker",), 0, "1.29.2\n", ""), "compose 1.29.2 is older"),
        (Finished(("docker",), 0, "dev\n", ""), "no compose v2 plugin"),
        (Finished(("docker",), 125, "", "unknown flag: --short\n"), "no compose v2 plugin"),
    ],
)
def test_a_compose_that_is_missing_or_too_old_is_refused(seen: Finished, said: str) -> None:
    with pytest.raises(ComposeMissingError, match=said):
        compose_version(seen)


# --- calls, with recorded replies ------------------------------------------------------------------------------


def test_engine_and_compose_are_probed_side_by_side(recording: Recording) -> None:
    recording.says("version --format {{json .Server.Version}}", '"26.1.5+dfsg1"\n')
    recording.says("compose version --short", "2.26.1-4\n")
    recording.says("image ls", "vaultcube/pytorch:cu124\nvaultcube/base:bookworm\n")
    found = Docker().begin_probe().finish(Docker())
    assert (found.engine, found.compose) == ("26.1.5+dfsg1", "2.26.1")
    assert found.images == {"vaultcube/pytorch:cu124", "vaultcube/base:bookworm"}


def test_a_probe_names_the_engine_before_compose(recording: Recording) -> None:
    recording.says("version", stderr=f"Cannot connect to the Docker daemon at {SOCKET}.", status=1)
    recording.says("compose version", stderr="unknown flag: --short", status=125)
    recording.says("image ls", stderr=f"Cannot connect to the Docker daemon at {SOCKET}.", status=1)
    with pytest.raises(EngineUnreachableError):
        Docker().begin_probe().finish(Docker())


def test_a_probe_may_be_given_up(recording: Recording) -> None:
    recording.says("", after_s=600)
    probe = Docker().begin_probe()
    probe.cancel()
    probe.cancel()


def test_no_docker_command_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineMissingError, match="no docker command on the PATH"):
        Docker().call(["ps"])
    (tmp_path / "docker").write_text("neither a script nor a program")
    (tmp_path / "docker").chmod(0o755)
    with pytest.raises(EngineMissingError, match="cannot be run"):
        Docker().call(["ps"])


def test_an_engine_that_never_answers_is_unreachable(recording: Recording) -> None:
    recording.says("ps", after_s=600)
    with pytest.raises(EngineUnreachableError, match=r"docker ps did not answer within 0\.2 s"):
        Docker().call(["ps"], timeout=0.2)


def test_a_stop_cuts_a_call_short_and_a_shielded_one_is_let_end(recording: Recording) -> None:
    recording.says("ps", after_s=600)
    recording.says("down", "done", after_s=0.3)
    with Stop() as stop:
        docker = Docker(stop)
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(InterruptedRunError):
            docker.ask(["ps"])
        timer.join()
        assert docker.shielded().ask(["down"]) == "done"


def test_what_would_change_our_files_meaning_does_not_reach_compose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "docker"
    script.write_text("#!/bin/sh\nenv\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name in ("COMPOSE_FILE", "COMPOSE_PROFILES", "VAULTCUBE_FLAVOUR", "DDP_PRESET", "BASE_IMAGE"):
        monkeypatch.setenv(name, "foreign")
    monkeypatch.setenv("DOCKER_HOST", "ssh://box.example.invalid")
    seen = Docker().ask(["anything"])
    assert "foreign" not in seen
    # Which engine is meant is the user's to say.
    assert "DOCKER_HOST=ssh://box.example.invalid" in seen


@pytest.mark.parametrize(
    ("stdout", "status", "said"),
    [
        ("github.com/docker/buildx 0.13.1+ds1 0.13.1+ds1-3\n", 0, None),
        ("github.com/docker/buildx v0.29.1 a32761a\n", 0, None),
        ("github.com/docker/buildx v0.12.1 30feaa1\n", 0, "buildx 0.12.1 is older than 0.13"),
        ("", 1, "no buildx plugin"),
    ],
)
def test_buildx_is_probed(recording: Recording, stdout: str, status: int, said: str | None) -> None:
    recording.says("buildx version", stdout, stderr="docker: 'buildx' is not a docker command.", status=status)
    if said is None:
        assert Docker().probe_buildx() in {"0.13.1", "0.29.1"}
        return
    with pytest.raises(BuildxMissingError, match=said):
        Docker().probe_buildx()


IMAGE = {"Id": "sha256:fe90", "Size": 74492574, "Created": "2026-01-01T02:17:15.8Z", "Config": {"Labels": None}}


def test_a_local_image_is_described(recording: Recording) -> None:
    recording.says_json("image inspect bare", [IMAGE])
    recording.says_json("image inspect none", [{**IMAGE, "Config": None}])
    recording.says_json("image inspect labelled", [{**IMAGE, "Config": {"Labels": {"a": "b"}}}])
    found = Docker().image("bare")
    assert found is not None
    assert (found.id, found.size_bytes, found.labels) == ("sha256:fe90", 74492574, {})
    assert Docker().image("none") == found
    labelled = Docker().image("labelled")
    assert labelled is not None
    assert labelled.labels == {"a": "b"}


def test_an_image_that_is_not_there_is_none_and_a_dead_engine_is_an_error(recording: Recording) -> None:
    recording.says("image inspect gone", "[]\n", stderr="Error response from daemon: No such image: gone:1\n", status=1)
    recording.says("image inspect dead", "[]\n", stderr=f"Cannot connect to the Docker daemon at {SOCKET}.\n", status=1)
    assert Docker().image("gone") is None
    with pytest.raises(EngineUnreachableError):
        Docker().image("dead")


def test_how_containers_ended_is_read(recording: Recording) -> None:
    whole = [inspected("a"), inspected("b", ExitCode=70), inspected("c", ExitCode=137, OOMKilled=True)]
    whole.append({**inspected("d", Running=True), "Config": {"Labels": None}})
    recording.says_json("inspect --type container", whole)
    done, failed_, killed, running = Docker().exits(["a", "b", "c", "d"])
    assert (done.service, done.running, done.exit_code, done.image_id) == ("ddp", False, 0, "sha256:fe90")
    assert failed_.exit_code == 70
    assert (killed.exit_code, killed.oom_killed) == (137, True)
    assert (running.running, running.service) == (True, "")


def test_containers_that_are_gone_are_left_out(recording: Recording) -> None:
    said = "Error response from daemon: No such container: b\n"
    recording.says("inspect --type container a b", json.dumps([inspected("a")]), stderr=said, status=1)
    recording.says("inspect --type container b", "", stderr=said, status=1)
    recording.says("inspect --type container c", "[]", stderr="unexpected EOF", status=1)
    assert [one.id for one in Docker().exits(["a", "b"])] == ["a" * 64]
    assert Docker().exits(["b"]) == []
    assert Docker().exits([]) == []
    with pytest.raises(EngineUnreachableError):
        Docker().exits(["c"])


def test_everything_of_ours_is_containers_and_networks(recording: Recording) -> None:
    recording.says("ps --all", PS)
    recording.says("network ls", "ddp-b\nddp-a\nddp-a\n")
    containers, networks = Docker().everything()
    assert len(containers) == 3
    assert networks == ["ddp-a", "ddp-b"]
    assert Docker().containers(RUN_ID) == containers


def test_a_project_is_removed_with_its_orphans(recording: Recording) -> None:
    recording.says("compose")
    Docker().remove_project(RUN_ID, grace_s=10)
    assert recording.calls == [f"compose --project-name {RUN_ID} down --remove-orphans --timeout 10"]


def test_the_engine_describes_itself(recording: Recording) -> None:
    recording.says_json("info", {"DockerRootDir": "/var/lib/docker"})
    assert Docker().info() == {"DockerRootDir": "/var/lib/docker"}
