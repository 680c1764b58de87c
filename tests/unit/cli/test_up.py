from __future__ import annotations

import json
import shlex
import socket
from typing import Any

import pytest
from tests.unit.cli.conftest import Command

from vaultcube import workloads
from vaultcube.stack.plan import Plan
from vaultcube.workloads import Service


def dry(vaultcube: Command, *words: str) -> dict[str, Any]:
    seen = vaultcube("up", "vllm", "--dry-run", "--json", *words)
    assert (seen.returncode, seen.stderr) == (0, "")
    document: dict[str, Any] = json.loads(seen.stdout)
    return document


def test_a_dry_run_needs_no_docker_and_leaves_nothing(vaultcube: Command) -> None:
    vaultcube.env["PATH"] = "/nonsuch"
    document = dry(vaultcube, "--gpus", "none", "--name", "chat", "--memory", "8g", "--", "--enable-lora")
    found = Plan.model_validate(document["plan"])
    assert (found.purpose, found.instance, found.params["model"]) == ("up", "chat", "tiny")
    assert found.servers[0].command[-2:] == ("--", "--enable-lora")
    assert found.address is not None
    assert found.address.host == "127.0.0.1"
    assert list(vaultcube.home.iterdir()) == []


def test_the_last_line_for_people_is_a_command_to_paste(vaultcube: Command) -> None:
    seen = vaultcube("up", "vllm", "--gpus", "none", "--dry-run")
    argv = shlex.split(seen.stdout.splitlines()[-1])
    assert argv[:2] == ["docker", "compose"]
    assert argv[-1] == "vllm"


def test_every_parameter_of_the_server_is_an_option(vaultcube: Command) -> None:
    service = workloads.load("vllm")
    assert isinstance(service, Service)
    page = vaultcube("up", "vllm", "--help").stdout
    for name in service.serve_type.model_fields:
        assert name == "flags" or f"--{name.replace('_', '-')} " in page
    assert "[-- FLAG...]" in page
    assert "Example: vaultcube up vllm" in page


def test_only_services_can_be_left_running(vaultcube: Command) -> None:
    page = vaultcube("up", "--help").stdout
    assert "vllm" in page
    assert "ddp" not in page
    assert vaultcube("up", "ddp").returncode == 2


def test_a_models_directory_is_made_absolute_and_a_hub_id_is_left_alone(vaultcube: Command) -> None:
    (vaultcube.home / "my model").mkdir()
    (vaultcube.home / "my model" / "config.json").write_text("{}")
    vaultcube.home.chmod(0o755)
    assert dry(vaultcube, "--model", "my model")["plan"]["params"]["model"] == str(vaultcube.home / "my model")
    assert dry(vaultcube, "--model", "org/name")["plan"]["params"]["model"] == "org/name"


SECRET = "sk-very-secret"  # noqa: S105 - it is none


def test_secrets_are_named_in_a_plan_and_never_shown(vaultcube: Command) -> None:
    vaultcube.env |= {"HF_TOKEN": SECRET, "VLLM_API_KEY": SECRET}
    seen = vaultcube("up", "vllm", "--gpus", "none", "--dry-run", "--host", "0.0.0.0")  # noqa: S104
    assert seen.returncode == 0
    assert SECRET not in seen.stdout + seen.stderr
    assert json.loads(seen.stdout.split("\n# ")[0].removeprefix("# plan\n"))["secrets"] == ["api_key", "hf_token"]


@pytest.mark.parametrize(
    ("words", "exit_code", "code", "said"),
    [
        (("--model", "./nonsuch"), 2, "model-not-found", "there is no folder"),
        (("--model", "."), 2, "model-not-found", "no config.json"),
        (("--host", "0.0.0.0"), 3, "key-needed", "can be reached from outside this machine"),  # noqa: S104
        (("--host", "localhost"), 2, "usage", "no IP address"),
        (("--name", "Chat"), 2, "instance-name", "is no name"),
        (("--replicas", "0"), 2, "bad-parameter", "replicas"),
        (("--port", "70000"), 2, "usage", "65535"),
        (("chat",), 2, "usage", "unexpected argument 'chat'"),
        (("--", "--api-key", SECRET), 2, "bad-parameter", "would show a secret"),
        (("--", "--port=9"), 2, "bad-parameter", "before the --"),
        (("--api-key-file", "/nonsuch"), 2, "usage", "--api-key-file /nonsuch: No such file"),
        (("--flavour", "cu124"), 3, "flavour-unsupported", "needs a GPU"),
        (("--memory", "1"), 2, "usage", "--memory"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_asked(
    vaultcube: Command, words: tuple[str, ...], exit_code: int, code: str, said: str
) -> None:
    vaultcube.home.chmod(0o755)
    (vaultcube.home / "docker").write_text("#!/bin/sh\nexec sleep 60\n")
    (vaultcube.home / "docker").chmod(0o755)
    vaultcube.env["PATH"] = f"{vaultcube.home}:/usr/bin:/bin"
    seen = vaultcube("up", "vllm", "--gpus", "none", *words)
    assert (seen.returncode, seen.stdout) == (exit_code, "")
    assert said in seen.stderr
    assert f"[{code}]" in seen.stderr
    assert SECRET not in seen.stderr
    assert len(seen.stderr.splitlines()) == 2


def test_a_port_that_somebody_has(vaultcube: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        seen = vaultcube("up", "vllm", "--gpus", "none", "--port", str(port))
    assert seen.returncode == 3
    assert f"port {port} of 127.0.0.1 is taken" in seen.stderr
    assert "[port-taken]" in seen.stderr
