"""What docker says, as it was recorded from clients 26.1 and 28.2, engine 26.1, compose 2.26 and buildx 0.13."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultcube.errors import (
    ComposeMissingError,
    EnginePermissionError,
    EngineUnreachableError,
    RefusedError,
    StartError,
    VaultCubeError,
)
from vaultcube.stack.dockerwords import (
    checked,
    diagnose,
    engine_is_gone,
    known_error,
    last_line,
)
from vaultcube.stack.lifecycle import start_error
from vaultcube.stack.process import Finished

SOCKET = "unix:///var/run/docker.sock"
DENIED = 'Get "http://%2Fvar%2Frun%2Fdocker.sock/v1.45/containers/json": dial unix /var/run/docker.sock: connect: permission denied'


def failed(stderr: str, *argv: str, status: int = 1) -> Finished:
    return Finished(("docker", *(argv or ("ps",))), status, "", stderr)


@pytest.mark.parametrize(
    ("stderr", "error"),
    [
        # No engine: client 26.1 and 28.2, a socket that is not there, a port that nobody listens on.
        (f"Cannot connect to the Docker daemon at {SOCKET}. Is the docker daemon running?", EngineUnreachableError),
        (
            "Cannot connect to the Docker daemon at tcp://127.0.0.1:9. Is the docker daemon running?",
            EngineUnreachableError,
        ),
        # Client 29.
        (
            (
                f"failed to connect to the docker API at {SOCKET}; check if the path is correct and if the daemon is running: "
                "dial unix /var/run/docker.sock: connect: no such file or directory"
            ),
            EngineUnreachableError,
        ),
        # An engine that goes away while it is asked.
        (
            (
                'error during connect: Get "http://%2Frun%2Fdocker.sock/v1.50/version": read unix @->/run/docker.sock: read: '
                "connection reset by peer"
            ),
            EngineUnreachableError,
        ),
        ("unexpected EOF", EngineUnreachableError),
        # A remote engine that is not there.
        (
            (
                'error during connect: Get "http://docker.example.com/v1.50/containers/json": command [ssh -o ConnectTimeout=30 '
                "-T -- nonsuch.invalid docker system dial-stdio] has exited with exit status 255, make sure the URL is valid, "
                "and Docker 18.09 or later is installed on the remote host: stderr=ssh: Could not resolve hostname"
            ),
            EngineUnreachableError,
        ),
        # A context or certificates that are not there.
        (
            (
                'Failed to initialize: unable to resolve docker endpoint: context "nonsuch": context not found: open '
                "/root/.docker/contexts/meta/0c19/meta.json: no such file or directory"
            ),
            EngineUnreachableError,
        ),
        # The socket of somebody else: up to client 24, 25 to 28, 29.
        (
            f"Got permission denied while trying to connect to the Docker daemon socket at {SOCKET}: {DENIED}",
            EnginePermissionError,
        ),
        (
            f"permission denied while trying to connect to the Docker daemon socket at {SOCKET}: {DENIED}",
            EnginePermissionError,
        ),
        (f"permission denied while trying to connect to the docker API at {SOCKET}", EnginePermissionError),
    ],
)
def test_what_stands_in_the_way_of_the_engine(stderr: str, error: type[VaultCubeError]) -> None:
    found = diagnose(failed(stderr + "\n"))
    assert type(found) is error
    assert found.exit_code == 3
    assert "\n" not in found.message


@pytest.mark.parametrize(
    "stderr",
    [
        # The engine answered: what it says is about the container.
        (
            "Error response from daemon: failed to create task for container: failed to create shim task: OCI runtime create "
            'failed: runc create failed: unable to start container process: exec: "/etc/passwd": permission denied: unknown'
        ),
        "Error response from daemon: error while creating mount source path '/sys/x': mkdir /sys/x: permission denied",
        "Error response from daemon: dial tcp 192.0.2.1:443: connect: connection refused",
    ],
)
def test_the_engines_own_words_are_not_about_reaching_it(stderr: str) -> None:
    assert known_error(stderr) is None
    assert type(start_error(failed(f" Container x  Starting\n{stderr}\n"))) is StartError


@pytest.mark.parametrize("stderr", ["", "no such container", "exit status 3", "Error response from daemon: conflict"])
def test_other_words_are_no_diagnosis(stderr: str) -> None:
    assert known_error(stderr) is None


@pytest.mark.parametrize(
    "stderr",
    [
        # Client 26.1, 28.2: without the plugin docker takes compose's options for its own.
        "unknown flag: --project-name\nSee 'docker --help'.\n\nUsage:  docker [OPTIONS] COMMAND\n",
        "unknown flag: --project-name\n\nUsage:  docker [OPTIONS] COMMAND [ARG...]\n\nRun 'docker --help' for more information\n",
        "docker: 'compose' is not a docker command.\nSee 'docker --help'\n",
        "docker: unknown command: docker compose\n\nRun 'docker --help' for more information\n",
    ],
)
def test_a_missing_compose_plugin_is_named(stderr: str) -> None:
    assert type(diagnose(failed(stderr, "compose", "--project-name", "x", "down", status=125))) is ComposeMissingError


def test_a_command_that_nobody_knows_how_to_explain_is_shown() -> None:
    found = diagnose(failed("warning: old\nError: it broke\n\n", "network", "ls", "--filter", "x", status=7))
    assert type(found) is RefusedError
    assert found.message == "docker network ls failed: Error: it broke"
    assert diagnose(failed("", "network", "ls", status=7)).message == "docker network ls failed: exit status 7"


def test_what_ended_well_is_passed_on() -> None:
    good = Finished(("docker", "ps"), 0, "out", "warning")
    assert checked(good) is good
    with pytest.raises(RefusedError):
        checked(failed("no"))


def test_only_a_lost_engine_is_gone() -> None:
    assert engine_is_gone(EngineUnreachableError("x"))
    assert not engine_is_gone(EnginePermissionError("x"))


def test_the_last_line_is_the_last_that_says_something() -> None:
    assert last_line("a\n b \n\n  \n") == "b"
    assert last_line("") == ""


@given(st.text(max_size=200))
def test_no_words_of_docker_raise(stderr: str) -> None:
    assert diagnose(failed(stderr)).next_step


# --- starting --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stderr", "error", "step"),
    [
        (
            'Error response from daemon: could not select device driver "nvidia" with capabilities: [[gpu]]',
            RefusedError,
            "NVIDIA Container Toolkit",
        ),
        (
            'Error response from daemon: could not select device driver "cdi" with capabilities: [[gpu]]',
            RefusedError,
            "NVIDIA Container Toolkit",
        ),
        (
            "Error response from daemon: CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=0",
            RefusedError,
            "nvidia-ctk cdi generate",
        ),
        ("Error response from daemon: No such image: vaultcube/nonsuch:1", RefusedError, "images build"),
        (
            'Error response from daemon: invalid mount config for type "bind": bind source path does not exist: /nonsuch/x',
            StartError,
            "engine",
        ),
        (
            (
                "Error response from daemon: failed to create task for container: failed to create shim task: OCI runtime "
                'create failed: runc create failed: unable to start container process: exec: "/nonsuch": stat /nonsuch: no '
                "such file or directory: unknown"
            ),
            StartError,
            "engine",
        ),
        (
            f"Cannot connect to the Docker daemon at {SOCKET}. Is the docker daemon running?",
            EngineUnreachableError,
            "Start it",
        ),
    ],
)
def test_what_stands_in_the_way_of_a_start(stderr: str, error: type[VaultCubeError], step: str) -> None:
    before = " Container ddp-1  Creating\n Container ddp-1  Created\n Container ddp-1  Starting\n"
    found = start_error(failed(before + stderr + "\n", "compose", "up"))
    assert type(found) is error
    assert step in found.next_step
    assert "\n" not in found.message
