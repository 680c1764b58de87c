"""The images that are here: as they are listed, and what the PyTorch image is made of."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tests.docker.conftest import Vaultcube, docker
from tests.docker.engines import Call

from vaultcube import __version__

pytestmark = [pytest.mark.docker, pytest.mark.image]
# As the compose file runs it, but without a workload.
CONFINED = ["run", "--rm", "--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
CONFINED += ["--tmpfs=/tmp"]


@pytest.fixture(scope="module")
def inspected(image: str) -> dict[str, Any]:
    """Return what the engine says of the image."""
    found: dict[str, Any] = json.loads(docker("image", "inspect", image))[0]
    return found


def test_a_list_of_images(vaultcube: Vaultcube, inspected: dict[str, Any]) -> None:
    seen = Call(vaultcube).run("images", "list", "--json")
    assert (seen.returncode, seen.stderr) == (0, "")
    rows = {row["name"]: row for row in json.loads(seen.stdout)}
    both, one = ["cu124", "cu128"], ["any"]
    flavours = {"pytorch": both, "tensorflow": both, "vllm": [*both, "cpu"], "proxy": one, "recorder": one}
    assert set(rows) == {f"vaultcube/{image}:{flavour}" for image, found in flavours.items() for flavour in found}
    here = rows["vaultcube/pytorch:cu124"]
    assert (here["image"], here["flavour"]) == ("pytorch", "cu124")
    assert here["local"]["id"] == inspected["Id"]
    assert here["local"]["size_bytes"] == inspected["Size"]
    assert here["local"]["labels"] == inspected["Config"]["Labels"]


def test_a_list_for_people(vaultcube: Vaultcube, inspected: dict[str, Any]) -> None:
    seen = Call(vaultcube).run("images", "list")
    (line,) = [line for line in seen.stdout.splitlines() if line.startswith("vaultcube/pytorch:cu124 ")]
    assert inspected["Id"][7:19] in line
    assert __version__ in line


def test_its_labels_say_what_it_is(inspected: dict[str, Any]) -> None:
    labels = inspected["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["io.vaultcube.flavour"] == "cu124"
    assert labels["io.vaultcube.torch"] == "2.6.0"
    assert labels["io.vaultcube.cuda"] == "12.4"
    assert labels["org.opencontainers.image.base.name"]
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", labels["org.opencontainers.image.revision"])


def test_it_runs_as_nobody_and_carries_no_installer(image: str) -> None:
    script = "id -u; id -g; command -v pip pip3 gcc; python3 -c 'import pip' 2>&1 | tail -1; ls /run/secrets 2>&1; true"
    said = docker(*CONFINED, image, "sh", "-c", script).splitlines()
    assert said[:2] == ["10001", "10001"]
    assert said[2] == "ModuleNotFoundError: No module named 'pip'"
    assert "No such file" in said[3]
    assert len(said) == 4


def test_nothing_of_the_build_machine_is_in_it(image: str, inspected: dict[str, Any]) -> None:
    """Proxies and a CA bundle reach a build, and stay out of what it makes."""
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
    kept = history + json.dumps(inspected["Config"])
    assert not re.search(r"(?i)(https?|no)_proxy=|BEGIN CERTIFICATE", kept)
    names = {word.partition("=")[0] for word in inspected["Config"]["Env"]}
    assert not names & {"PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_INDEX_URL"}


def test_every_cuda_library_is_the_pinned_one(image: str) -> None:
    told = json.loads(docker(*CONFINED, image, "python3", "-m", "selfcheck", "--json", timeout=180))
    assert told["ok"] is True
    assert [finding for finding in told["findings"] if finding["problem"]] == []
    found = {finding["library"] for finding in told["findings"]}
    assert {"libcublas", "libcudart", "libcudnn", "libnccl"} <= found
    assert told["framework"]["cuda"] == "12.4"
