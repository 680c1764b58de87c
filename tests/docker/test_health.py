"""The health checks on the real engine: images and orchestrator, and the installed program in a bare Debian."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.docker.conftest import ROOT, Vaultcube

pytestmark = [pytest.mark.docker]


def checks(seen: subprocess.CompletedProcess[str], exit_code: int) -> dict[str, dict[str, Any]]:
    """Check how it ended, and that it printed one document that follows the schema; return its checks by code."""
    assert "Traceback" not in seen.stderr
    assert seen.returncode == exit_code, seen.stdout + seen.stderr
    found: dict[str, Any] = json.loads(seen.stdout)
    jsonschema.Draft202012Validator(json.loads((ROOT / "docs/schema/health.schema.json").read_text())).validate(found)
    return {one["code"]: one for one in found["checks"]}


@pytest.fixture
def expecting(tmp_path: Path, vaultcube: Vaultcube, image: str) -> Vaultcube:
    """Return the command on a host of which only the PyTorch image is expected."""
    (tmp_path / "host/etc/vaultcube").mkdir(parents=True)
    (tmp_path / "host/etc/vaultcube/host.json").write_text(json.dumps({"images": [image]}))
    vaultcube.env["VAULTCUBE_HOST_ROOT"] = str(tmp_path / "host")
    return vaultcube


def test_an_image_and_its_self_check(expecting: Vaultcube, image: str) -> None:
    found = checks(expecting("health", "4", "--json", timeout=400), 0)
    assert (found["images"]["verdict"], image in found["images"]["seen"]) == ("PASS", True)
    assert (found["self-checks"]["verdict"], found["self-checks"]["seen"]) == ("PASS", image)


def test_an_image_that_is_missing(expecting: Vaultcube, tmp_path: Path) -> None:
    (tmp_path / "host/etc/vaultcube/host.json").write_text('{"images": ["vaultcube/pytorch:cu999"]}')
    found = checks(expecting("health", "--check", "images", "--json"), 1)
    assert found["images"]["seen"] == "not here: vaultcube/pytorch:cu999"


def test_the_orchestrator_itself(vaultcube: Vaultcube) -> None:
    seen = vaultcube("health", "5", "--no-probes", "--json")
    found = checks(seen, seen.returncode)
    assert found["orchestrator"]["verdict"] == "PASS"
    assert found["results"]["verdict"] == "PASS"
    assert str(vaultcube.runs.name) in found["results"]["seen"]
    assert "checks" in found["doctor"]["seen"]


def test_the_program_in_a_bare_debian(image: str, tmp_path: Path) -> None:
    """Debian's own Python, nothing that was installed beside it, no network, a read-only root."""
    program = tmp_path / "vaultcube-health"
    subprocess.run([sys.executable, str(ROOT / "scripts/health_zipapp.py"), str(program)], check=True)
    start = ["docker", "run", "--rm", "--read-only", "--network", "none", "--user", "0:0", "--cap-drop", "ALL"]
    mount = ["--volume", f"{program}:/usr/local/bin/vaultcube-health:ro", "--env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    argv = [*start, *mount, "--entrypoint", "/usr/local/bin/vaultcube-health", image, "1", "2", "3", "--json"]
    found = checks(subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False), 1)
    assert found["system"]["verdict"] == "PASS"
    for code in ("sshd", "fail2ban", "firewall", "docker"):
        assert found[code]["verdict"] == "FAIL", found[code]
    assert found["docker"]["seen"] == "docker is not installed"
    for code in ("module", "versions", "gpu-container"):
        assert (found[code]["verdict"], found[code]["seen"]) == ("UNAVAILABLE", "no NVIDIA GPU on this machine")
