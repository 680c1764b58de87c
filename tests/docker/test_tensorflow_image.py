"""The TensorFlow image, and what its self-check finds when something is missing."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tests.docker.conftest import docker

from vaultcube import __version__

pytestmark = [pytest.mark.docker, pytest.mark.image]
IMAGE = "vaultcube/tensorflow:cu124"
# As the compose file runs it, but without a workload.
CONFINED = ["run", "--rm", "--init", "--network=none", "--read-only", "--cap-drop=ALL"]
CONFINED += ["--security-opt=no-new-privileges", "--tmpfs=/tmp:mode=1777"]


@pytest.fixture(scope="module")
def inspected() -> dict[str, Any]:
    """Return what the engine says of the image."""
    if not docker("image", "ls", "--quiet", IMAGE):
        pytest.fail(f"these tests need {IMAGE} (make setup)")
    found: dict[str, Any] = json.loads(docker("image", "inspect", IMAGE))[0]
    return found


def test_its_labels_say_what_it_is(inspected: dict[str, Any]) -> None:
    labels = inspected["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.title"] == "Vault Cube TensorFlow"
    assert labels["org.opencontainers.image.base.name"]
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", labels["org.opencontainers.image.revision"])
    told = {name: labels[f"io.vaultcube.{name}"] for name in ("flavour", "tensorflow", "cuda")}
    assert told == {"flavour": "cu124", "tensorflow": "2.17.1", "cuda": "12.4"}


def test_it_runs_as_nobody_and_carries_nothing_to_build_with(inspected: dict[str, Any]) -> None:
    script = "id -u; id -g; command -v pip pip3 gcc; find / -xdev -name '*.a' -o -xdev -type d -name tests; "
    said = docker(*CONFINED, inspected["Id"], "sh", "-c", script + "ls /run/secrets 2>&1; ls -A /tmp; true")
    uid, gid, secrets = said.splitlines()
    assert (uid, gid) == ("10001", "10001")
    assert "No such file" in secrets


def test_nothing_of_the_build_machine_is_in_it(inspected: dict[str, Any]) -> None:
    """Proxies and a CA bundle reach a build, and stay out of what it makes."""
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", inspected["Id"])
    kept = history + json.dumps(inspected["Config"])
    assert not re.search(r"(?i)(https?|no)_proxy=|BEGIN CERTIFICATE", kept)
    names = {word.partition("=")[0] for word in inspected["Config"]["Env"]}
    assert not names & {"PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_INDEX_URL", "PIP_FIND_LINKS"}


def test_below_it_is_what_is_below_the_pytorch_image(inspected: dict[str, Any], image: str) -> None:
    """Base and Python are on the disk once. Not so where one of the two was built before the distribution moved on."""
    theirs = json.loads(docker("image", "inspect", image))[0]
    assert inspected["RootFS"]["Layers"][0] == theirs["RootFS"]["Layers"][0]


def checked(*options: str, ok: bool) -> dict[str, dict[str, Any]]:
    """Run the self-check in a container; return its findings by library."""
    seen = docker(*CONFINED, *options, IMAGE, "python3", "-m", "selfcheck", "--json", check=ok, timeout=180)
    told = json.loads(seen)
    assert told["ok"] is ok
    return {finding["library"]: finding for finding in told["findings"]}


def wrong(findings: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {library: finding["problem"] for library, finding in findings.items() if finding["problem"]}


def test_tensorflow_finds_all_it_opens_in_the_pinned_version(inspected: dict[str, Any]) -> None:
    assert inspected["Config"]["User"] == "10001:10001"
    findings = checked(ok=True)
    assert wrong(findings) == {}
    versions = {name: findings[name]["version"] for name in ("libcudart", "libcudnn", "libnvrtc", "nccl", "ptxas")}
    assert versions == {
        "libcudart": "12.4",
        "libcudnn": "8.9.7",
        "libnvrtc": "12.4",
        "nccl": "2.19.3",
        "ptxas": "12.4.131",
    }
    opened = {"libcublas", "libcublasLt", "libcufft", "libcusolver", "libcusparse", "libcupti", "libdevice", "keras"}
    assert opened <= findings.keys()


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("cusparse/lib", {"libcusparse", "libcusolver"}),
        ("cuda_cupti/lib", {"libcupti"}),
        ("cudnn/lib", {"libcudnn"}),
        ("cuda_nvrtc/lib", {"loader"}),
        ("cuda_nvcc/bin", {"ptxas", "libdevice"}),
        ("cuda_nvcc/nvvm", {"libdevice"}),
    ],
)
@pytest.mark.usefixtures("inspected")
def test_what_is_missing_is_named(missing: str, named: set[str]) -> None:
    site = docker(*CONFINED, IMAGE, "sh", "-c", "readlink -f /opt/venv/nvidia")
    problems = wrong(checked(f"--tmpfs={site}/{missing}", ok=False))
    assert problems.keys() == named
    if named == {"loader"}:
        assert "libnvrtc.so.12" in problems["loader"]


@pytest.mark.usefixtures("inspected")
def test_another_cuda_on_the_paths_is_not_taken() -> None:
    """XLA looks on PATH and in /usr/local/cuda first, unless it is told otherwise."""
    fake = "mkdir -p /tmp/bin && printf '#!/bin/sh\\necho release 11.0, V11.0.1\\n' >/tmp/bin/ptxas && chmod +x /tmp/bin/ptxas"
    script = f"{fake} && PATH=/tmp/bin:$PATH python3 -m selfcheck --json"
    told = json.loads(docker(*CONFINED, "--tmpfs=/tmp:mode=1777,exec", IMAGE, "sh", "-c", script, timeout=180))
    (found,) = [finding for finding in told["findings"] if finding["library"] == "ptxas"]
    assert (found["version"], found["problem"]) == ("12.4.131", None)
