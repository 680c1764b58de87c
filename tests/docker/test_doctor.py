"""`vaultcube doctor` on the real engine: what it says of a machine without GPU, and of engines that do not serve."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.docker.conftest import ROOT, Vaultcube, docker
from tests.docker.engines import Call, after, listening, plugin_folder

pytestmark = [pytest.mark.docker]
NO_GPU = "no NVIDIA GPU on this machine"


@pytest.fixture
def call(vaultcube: Vaultcube, tmp_path: Path) -> Call:
    """Return a call on a machine without GPU, whatever this one has: neither NVML nor a card is found."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libnvidia-ml.so.1").write_text("no library")
    (tmp_path / "host/sys/bus/pci/devices").mkdir(parents=True)
    env = {"LD_LIBRARY_PATH": str(tmp_path / "lib"), "VAULTCUBE_HOST_ROOT": str(tmp_path / "host")}
    return Call(vaultcube, env=env)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Return a folder whose path is short enough for a socket in it."""
    with tempfile.TemporaryDirectory(prefix="vc-", dir="/tmp") as folder:
        yield Path(folder)


def document(seen: subprocess.CompletedProcess[str], exit_code: int) -> dict[str, Any]:
    """Check how it ended, and that it printed one document that follows the schema; return it."""
    assert "Traceback" not in seen.stderr
    assert seen.returncode == exit_code, seen.stdout + seen.stderr
    found: dict[str, Any] = json.loads(seen.stdout)
    jsonschema.Draft202012Validator(json.loads((ROOT / "docs/schema/doctor.schema.json").read_text())).validate(found)
    return found


def checks(seen: subprocess.CompletedProcess[str], exit_code: int) -> dict[str, dict[str, Any]]:
    return {one["code"]: one for one in document(seen, exit_code)["checks"]}


def test_this_machine_as_it_is(vaultcube: Vaultcube, engine: str) -> None:
    seen = vaultcube("doctor", "--json", "--gpus", "none")
    found = document(seen, 0)
    assert not found["simulated"]
    assert found["engine"] == engine
    by_code = {one["code"]: one for one in found["checks"]}
    for code in ("docker", "socket-permission", "compose", "buildx"):
        assert by_code[code]["status"] == "PASS", by_code[code]
    assert by_code["access"] == {
        "code": "access",
        "status": "UNAVAILABLE",
        "seen": "no GPU is asked for",
        "next_step": None,
    }


def test_a_machine_without_gpu_is_fit(call: Call) -> None:
    found = checks(call.run("doctor", "--json"), 0)
    reasons = {one["seen"] for one in found.values() if one["status"] == "UNAVAILABLE"}
    assert NO_GPU in reasons
    for code in ("toolkit", "pinning", "driver", "flavour", "gpu-count", "temperature", "xid", "access"):
        assert (found[code]["status"], found[code]["seen"]) == ("UNAVAILABLE", NO_GPU)
    assert not [one for one in found.values() if one["status"] == "FAIL"]


def test_the_table_fits_80_columns_and_has_no_colour(call: Call) -> None:
    call.env["COLUMNS"] = "80"
    seen = call.run("doctor")
    assert seen.returncode == 0
    assert seen.stderr == ""
    assert f"UNAVAILABLE: {NO_GPU}\n" in seen.stdout
    assert "\x1b" not in seen.stdout
    # A path is not broken.
    assert all(len(line) <= 80 for line in seen.stdout.splitlines() if "/" not in line)


def test_named_checks_only(call: Call) -> None:
    found = checks(call.run("doctor", "--json", "--check", "clock", "--check", "compose"), 0)
    assert list(found) == ["compose", "clock"]


def test_gpus_that_are_not_there_fail(call: Call) -> None:
    found = checks(call.run("doctor", "--json", "--gpus", "all"), 3)
    assert found["gpu-count"]["status"] == "FAIL"
    assert "none is here" in found["gpu-count"]["seen"]


def test_words_that_make_no_sense(call: Call) -> None:
    assert "no check 'nothing'" in call.refused("usage", 2, "doctor", "--json", "--check", "nothing")
    call.refused("gpu-selection", 2, "doctor", "--gpus", "0")
    call.refused("profile", 2, "doctor", "--profile", "/nowhere/mine.toml")
    call.refused("usage", 2, "doctor", "--flavour", "cu999")


def test_an_engine_that_accepts_and_never_answers(call: Call, short_path: Path) -> None:
    with listening(short_path / "deaf.sock") as host:
        call.env["DOCKER_HOST"] = host
        found = checks(call.run("doctor", "--json"), 3)
    assert call.processes() == []
    assert found["docker"]["status"] == "FAIL"
    assert "did not answer within" in found["docker"]["seen"]
    # It is not asked for these.
    assert found["compose"]["status"] == found["buildx"]["status"] == "PASS"
    assert found["driver"]["seen"] == NO_GPU
    assert found["disk-results"]["status"] == "PASS"


def test_no_engine(call: Call, short_path: Path) -> None:
    call.env["DOCKER_HOST"] = f"unix://{short_path}/none.sock"
    found = checks(call.run("doctor", "--json"), 3)
    assert [code for code, one in found.items() if one["status"] == "FAIL"] == ["docker"]
    assert "no Docker engine answers" in found["docker"]["seen"]
    assert found["disk-images"]["status"] == "UNAVAILABLE"


def test_no_docker_command(call: Call, tmp_path: Path) -> None:
    call.env["PATH"] = str(tmp_path)
    found = checks(call.run("doctor", "--json"), 3)
    assert found["docker"]["seen"] == "there is no docker command on the PATH"
    assert found["compose"]["status"] == "UNAVAILABLE"


def test_a_socket_that_this_user_may_not_use(call: Call, short_path: Path) -> None:
    with listening(short_path / "closed.sock") as host:
        path = short_path / "closed.sock"
        if os.getuid() == 0:
            # Root passes every mode but for one capability.
            os.chown(path, 12345, 12345)
            path.chmod(0o600)
            call.before = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-all"]
        else:
            path.chmod(0)
        call.env["DOCKER_HOST"] = host
        found = checks(call.run("doctor", "--json"), 3)
    assert found["socket-permission"]["status"] == "FAIL"
    assert "docker group" in found["socket-permission"]["next_step"]
    assert found["docker"]["status"] == "UNAVAILABLE"


def test_no_compose_and_no_buildx(call: Call) -> None:
    folders = {plugin_folder(name) for name in ("compose", "buildx")}
    call.before = after("\n".join(f"mount -t tmpfs none {folder}" for folder in folders))
    found = checks(call.run("doctor", "--json"), 3)
    assert found["compose"]["status"] == "FAIL"
    missing = not docker("image", "ls", "--quiet", "vaultcube/pytorch:cu124")
    assert found["buildx"]["status"] == ("FAIL" if missing else "WARN")


@pytest.mark.parametrize(("options", "status"), [("ro", "FAIL"), ("size=64k", "FAIL"), ("size=32m", "WARN")])
def test_a_disk_that_takes_no_runs(call: Call, options: str, status: str) -> None:
    call.cube.runs.mkdir()
    call.before = after(f"mount -t tmpfs -o mode=1777,{options} none '{call.cube.runs}'")
    found = checks(call.run("doctor", "--json", "--check", "disk-results"), 3 if status == "FAIL" else 0)
    assert found["disk-results"]["status"] == status
    assert "--results-dir" in found["disk-results"]["next_step"]


def test_a_port_that_is_in_use(call: Call) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", 8000))
            listener.listen()
        except OSError:
            # Then somebody else has it, which serves as well.
            listener.close()
        found = checks(call.run("doctor", "--json", "--check", "ports"), 0)
    assert found["ports"]["status"] == "WARN"
    assert "8000 (vllm)" in found["ports"]["seen"]


def test_it_leaves_no_container(call: Call) -> None:
    call.run("doctor")
    assert docker("ps", "--all", "--quiet", "--filter", "name=vaultcube-doctor") == ""
