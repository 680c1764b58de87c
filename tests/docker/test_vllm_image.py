"""The vLLM image for the CPU, the proxy's, and their compose files as compose understands them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.docker.conftest import ROOT, docker

from vaultcube import __version__

pytestmark = [pytest.mark.docker]
VLLM, PROXY = "vaultcube/vllm:cpu", "vaultcube/proxy:any"
# As the compose files run them, but without a network or a volume.
CONFINED = ["run", "--rm", "--init", "--network=none", "--read-only", "--cap-drop=ALL"]
CONFINED += ["--security-opt=no-new-privileges", "--tmpfs=/tmp:mode=1777,exec", "--tmpfs=/cache:mode=1777"]
GPU, CPU = ["vllm.yml"], ["vllm.yml", "vllm.cpu.yml"]
BENCH = [*GPU, "vllm.bench.yml"]


@pytest.fixture(scope="module", params=[VLLM, PROXY])
def inspected(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return what the engine says of an image."""
    if not docker("image", "ls", "--quiet", request.param):
        pytest.fail(f"these tests need {request.param} (make setup)")
    found: dict[str, Any] = json.loads(docker("image", "inspect", request.param))[0]
    return found


@pytest.mark.image
def test_its_labels_say_what_it_is(inspected: dict[str, Any]) -> None:
    labels = inspected["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.title"].startswith("Vault Cube ")
    assert labels["org.opencontainers.image.base.name"]
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", labels["org.opencontainers.image.revision"])
    if labels["io.vaultcube.flavour"] == "cpu":
        assert (labels["io.vaultcube.vllm"], labels["io.vaultcube.torch"]) == ("0.32.0", "2.13.0")


@pytest.mark.image
def test_it_runs_as_nobody(inspected: dict[str, Any]) -> None:
    said = docker(
        *CONFINED, inspected["Id"], "sh", "-c", "id -u; id -g; command -v pip pip3; ls /run/secrets 2>&1; true"
    )
    uid, gid, secrets = said.splitlines()
    assert (uid, gid) == ("10001", "10001")
    assert "No such file" in secrets


@pytest.mark.image
def test_nothing_of_the_build_machine_is_in_it(inspected: dict[str, Any]) -> None:
    """Proxies and a CA bundle reach a build, and stay out of what it makes."""
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", inspected["Id"])
    kept = history + json.dumps(inspected["Config"])
    assert not re.search(r"(?i)(https?|no)_proxy=|BEGIN CERTIFICATE", kept)
    names = {word.partition("=")[0] for word in inspected["Config"]["Env"] or []}
    unwanted = {"PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_INDEX_URL", "HF_TOKEN", "VLLM_API_KEY"}
    assert not names & unwanted


@pytest.mark.image
def test_vllm_is_what_the_lock_says_and_all_of_it_loads() -> None:
    told = json.loads(docker(*CONFINED, VLLM, "python3", "-m", "selfcheck", "--json", timeout=400).splitlines()[-1])
    assert [finding for finding in told["findings"] if finding["problem"]] == []
    assert told["ok"] is True
    found = {finding["library"] for finding in told["findings"]}
    assert {"gcc", "g++", "vllm serve", "vllm bench", "application", "kernels"} <= found
    assert told["framework"]["vllm"] == "0.32.0+cpu"


@pytest.mark.image
def test_the_programs_of_the_image_are_there_for_anybody() -> None:
    said = docker(*CONFINED, "--user=4242:4242", VLLM, "python3", "-m", "serve", "--help")
    assert "usage: python3 -m serve" in said
    assert docker(*CONFINED, "--user=4242:4242", VLLM, "sh", "-c", "touch /cache/mine && ls /cache") == "mine"


@pytest.mark.image
def test_a_new_volume_takes_the_modes_that_let_everybody_in() -> None:
    volume = "vaultcube-test-vllm-cache"
    try:
        said = docker(
            "run", "--rm", "--read-only", "--network=none", f"--volume={volume}:/cache", VLLM, "stat", "-c%a", "/cache"
        )
        assert said == "1777"
        # What the build itself compiled would be root's.
        assert docker("run", "--rm", "--network=none", VLLM, "ls", "-A", "/cache") == ""
    finally:
        docker("volume", "rm", volume, check=False)


@pytest.mark.image
def test_a_proxy_without_a_configuration_turns_everybody_away() -> None:
    script = "haproxy -c -f /etc/haproxy/haproxy.cfg && grep -c 'status 503' /etc/haproxy/haproxy.cfg"
    assert docker(*CONFINED, PROXY, "sh", "-c", script).splitlines()[-1] == "1"


# --- compose ---------------------------------------------------------------------------------------------------


def resolved(*files: str, **settings: str) -> dict[str, Any]:
    """Return compose files as compose understands them."""
    named = [part for file in files for part in ("--file", str(ROOT / "compose" / file))]
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(Path.home()), **settings}
    found: dict[str, Any] = json.loads(docker("compose", *named, "config", "--format", "json", env=env))
    return found


def test_the_server_has_one_gpu_and_the_loopback_interface() -> None:
    service = resolved(*GPU, VLLM_GPU="2", VLLM_PORT="9000")["services"]["vllm"]
    (pin,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert pin == {"driver": "nvidia", "device_ids": ["2"], "capabilities": ["gpu"]}
    (port,) = service["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", "9000", 8000)
    assert service["image"] == "vaultcube/vllm:cu124"
    # What it is built FROM comes first.
    assert service["depends_on"]["results"]["condition"] == "service_completed_successfully"
    assert resolved(*GPU)["services"]["results"]["image"] == "vaultcube/pytorch:cu124-framework"


def test_settings_reach_the_server_as_one_word_each_or_not_at_all() -> None:
    command = resolved(*GPU)["services"]["vllm"]["command"]
    assert command[-1] == "--"
    assert command[command.index("--max-model-len") + 1] == ""
    settings = {"VLLM_MODEL": "/model", "VLLM_MAX_MODEL_LEN": "4096", "VLLM_FLAGS": "--max-num-seqs 8"}
    command = resolved(*GPU, **settings)["services"]["vllm"]["command"]
    assert command[command.index("--model") + 1] == "/model"
    assert command[command.index("--max-model-len") + 1] == "4096"
    assert command[-3:] == ["--", "--max-num-seqs", "8"]


def test_secrets_are_files_and_none_is_an_empty_one(tmp_path: Path) -> None:
    whole = resolved(*GPU, HF_TOKEN_FILE=str(tmp_path / "token"))
    assert whole["secrets"]["hf_token"]["file"] == str(tmp_path / "token")
    assert whole["secrets"]["api_key"]["file"] == "/dev/null"
    assert [secret["source"] for secret in whole["services"]["vllm"]["secrets"]] == ["hf_token", "api_key"]


def test_the_gpu_less_file_asks_for_no_gpu_and_no_pytorch_image() -> None:
    services = resolved(*CPU)["services"]
    assert not services["vllm"]["deploy"]["resources"].get("reservations", {}).get("devices")
    assert {service["image"] for service in services.values()} == {VLLM}
    assert {service["build"]["args"]["FLAVOUR"] for service in services.values()} == {"cpu"}
    assert not any(service["build"].get("target") for service in services.values())
    assert "tiny" in services["vllm"]["command"]


def test_the_client_waits_for_the_model_and_has_neither_gpu_nor_port() -> None:
    client = resolved(*BENCH)["services"]["client"]
    assert client["depends_on"]["vllm"]["condition"] == "service_healthy"
    assert not client.get("ports")
    assert "devices" not in client["deploy"]["resources"].get("reservations", {})
    assert [secret["source"] for secret in client["secrets"]] == ["api_key"]


@pytest.mark.parametrize("files", [GPU, CPU, BENCH, ["proxy.yml"]], ids="+".join)
def test_every_service_is_bounded_and_unprivileged(files: list[str]) -> None:
    for name, service in resolved(*files)["services"].items():
        assert service["init"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["stop_grace_period"], name
        assert service["restart"] == "no", name
        assert service["logging"]["options"]["max-size"], name
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert service["deploy"]["resources"]["limits"]["pids"], name
        assert not service.get("privileged"), name
        assert service.get("network_mode") == ("none" if name == "results" else None), name
