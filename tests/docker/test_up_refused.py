"""Starts of real servers that come to nothing: each says in one line why, and leaves a result and no container."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.docker.conftest import ROOT, Vaultcube, docker
from tests.docker.engines import told
from tests.docker.hub import Hub, Repository
from tests.docker.services import START_S, cube_at

pytestmark = [
    pytest.mark.docker,
    pytest.mark.image,
    pytest.mark.usefixtures("serving_images"),
    pytest.mark.timeout(900),
]

Ended = tuple[Vaultcube, subprocess.CompletedProcess[str]]
UP = ["up", "vllm", "--gpus", "none"]
TOKEN = "hf_refusedTest55"  # noqa: S105 - a stand-in's


def tiny_files() -> dict[str, bytes]:
    """Return the files of the model that the image makes on the spot."""
    spec = importlib.util.spec_from_file_location("tiny", ROOT / "images/vllm/serve/tiny.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, bytes] = module.files()
    return found


FILES = tiny_files()


def make_model(folder: Path, **changed: Any) -> Path:
    """Write the tiny model into a folder that everybody may read, with some of its configuration changed."""
    folder.mkdir(parents=True)
    for parent in (folder, *folder.parents):
        if parent.is_relative_to("/tmp/pytest-of-root") or parent == folder:
            parent.chmod(parent.stat().st_mode | 0o055)
    config = json.loads(FILES["config.json"]) | changed
    for name, data in (FILES | {"config.json": json.dumps(config).encode()}).items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    """Return a hub that containers reach over the default bridge."""
    address = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
    with Hub(address) as found:
        found.models["acme/gated"] = Repository(FILES, gated=True, token="hf_right")  # noqa: S106 - a stand-in's
        yield found


def nothing_left(cube: Vaultcube) -> None:
    """Check that neither containers nor secrets are left, and clear them away."""
    left = cube.left_behind()
    for run in cube.run_ids():
        docker("compose", "--project-name", run, "down", "--timeout", "1", check=False)
    assert not left, f"left behind: {left}"
    assert not [path for path in Path(cube.env["XDG_DATA_HOME"]).rglob("*") if path.is_file()]


@pytest.fixture
def cube(tmp_path: Path) -> Iterator[Vaultcube]:
    """Return the command, and check after the test that it left nothing."""
    one = cube_at(tmp_path)
    yield one
    one.close()
    nothing_left(one)


def refused(cube: Vaultcube, code: str, exit_code: int, *words: str, **env: str) -> str:
    """Check that `up` is refused, with one line and a next step, and return what it said."""
    return told(cube(*UP, *words, timeout=START_S, **env), code, exit_code, as_json=False)


# --- what the hub says, which the server asks --------------------------------------------------------------------


def test_a_model_that_the_hub_does_not_have(cube: Vaultcube, hub: Hub) -> None:
    said = refused(cube, "model-not-found", 2, "--model", "acme/none", HF_ENDPOINT=hub.url, HTTP_PROXY="")
    assert "acme/none" in said
    result = cube.result()
    assert (result["run"]["status"], result["run"]["error"]["code"]) == ("failed", "model-not-found")


@pytest.mark.parametrize("token", ["", TOKEN])
def test_a_gated_model(cube: Vaultcube, hub: Hub, token: str) -> None:
    hub.asked.clear()
    env = {"HF_ENDPOINT": hub.url, "HTTP_PROXY": "", "HF_TOKEN": token}
    said = refused(cube, "model-gated", 3, "--model", "acme/gated", **env)
    assert "acme/gated" in said
    assert {given for *_, given in hub.asked} == {token or None}
    # The hub has it, and nobody else.
    kept = [path for path in cube.runs.rglob("*") if path.is_file()]
    assert not token or not [path for path in kept if token.encode() in path.read_bytes()]
    assert not token or token not in said


def test_no_network(cube: Vaultcube) -> None:
    assert "acme/model" in refused(cube, "hub-unreachable", 3, "--model", "acme/model")


# --- directories -------------------------------------------------------------------------------------------------


def test_weights_that_are_cut_short(cube: Vaultcube, tmp_path: Path) -> None:
    model = make_model(tmp_path / "a model")
    os.truncate(model / "model.safetensors", len(FILES["model.safetensors"]) - 1)
    assert "cut short" in refused(cube, "model-unreadable", 3, "--model", str(model))


def test_a_configuration_that_is_no_json(cube: Vaultcube, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    (model / "config.json").write_bytes(FILES["config.json"][:-10])
    assert "config.json" in refused(cube, "model-unreadable", 3, "--model", str(model))


def test_a_memory_limit_below_what_it_takes(cube: Vaultcube) -> None:
    assert "GB can be used" in refused(cube, "model-too-large", 3, "--model", "tiny", "--memory", "700m")


def test_what_the_containers_user_may_not_read(cube: Vaultcube, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    (model / "model.safetensors").chmod(0o600)
    words = ["--model", str(model)]
    if os.getuid():
        # It runs as us, then.
        (model / "model.safetensors").chmod(0)
    refused(cube, "model-unreadable", 3, *words)
    model.chmod(0o700 if os.getuid() == 0 else 0)
    refused(cube, "model-unreadable", 3, *words)
    model.chmod(0o755)


# --- ports -------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_a_port_that_somebody_else_has(cube: Vaultcube) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        port = str(one.getsockname()[1])
        assert port in refused(cube, "port-taken", 3, "--model", "tiny", "--port", port)
    assert not cube.run_ids()


def test_a_port_that_is_taken_after_we_looked(cube: Vaultcube) -> None:
    port = free_port()
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def steal() -> None:
            while not cube.run_ids():
                time.sleep(0.002)
            thief.bind(("127.0.0.1", port))
            thief.listen()

        thread = threading.Thread(target=steal, daemon=True)
        thread.start()
        said = refused(cube, "port-taken", 3, "--model", "tiny", "--port", str(port))
        thread.join()
    assert str(port) in said


# --- vLLM's own refusals: it is started for each, so all at once ---------------------------------------------------

DOOMED: dict[str, tuple[list[str], str, int, str]] = {
    "longer than the model": (["--max-model-len", "100000"], "bad-parameter", 2, "max_model_len"),
    "unknown architecture": ([], "model-unsupported", 3, "nonsuch"),
    "no such flag": (["--", "--no-such-flag"], "bad-parameter", 2, "--no-such-flag"),
    "damaged tokenizer": ([], "model-unreadable", 3, "tokenizer"),
    "too little memory": (["--memory", "1700m"], "container-out-of-memory", 1, "memory"),
}


@pytest.fixture(scope="module")
def doomed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """Return how each ended."""
    children: dict[str, tuple[Vaultcube, subprocess.Popen[str]]] = {}
    for name, (words, *_) in DOOMED.items():
        folder = tmp_path_factory.mktemp("doomed")
        other = {"architectures": ["NonsuchForCausalLM"], "model_type": "nonsuch"} if "architecture" in name else {}
        cube = cube_at(folder)
        model = make_model(folder / "model", **other)
        if "tokenizer" in name:
            (model / "tokenizer.json").write_bytes(FILES["tokenizer.json"][:-10])
        children[name] = (
            cube,
            cube.start(*UP, "--model", str(model), "--name", f"test-{name.replace(' ', '-')}", *words),
        )
    ends = {}
    for name, (cube, child) in children.items():
        out, err = child.communicate(timeout=START_S)
        ends[name] = cube, subprocess.CompletedProcess(child.args, child.returncode, out, err)
    return ends


@pytest.mark.parametrize("name", DOOMED)
def test_what_vllm_refuses_is_named(doomed: dict[str, Ended], name: str) -> None:
    cube, seen = doomed[name]
    _, code, exit_code, word = DOOMED[name]
    nothing_left(cube)
    assert word in told(seen, code, exit_code, as_json=False)
    result = cube.result()
    assert (result["run"]["status"], result["run"]["error"]["code"]) == ("failed", code)
    assert result["verdict"] != "PASS"
