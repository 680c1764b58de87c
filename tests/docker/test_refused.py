"""What is refused because the engine, its plugins or the disk cannot do it: told clearly, and nothing is left behind."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.docker.conftest import Vaultcube
from tests.docker.engines import Call, after, listening, plugin_folder, told, unused_port

BENCH = ("bench", "ddp", "--gpus", "none", "--preset", "smoke", "--json")
VERBS = [BENCH, ("ps", "--json"), ("images", "list", "--json"), ("images", "build"), ("down", "--all")]
every_verb = pytest.mark.parametrize("verb", VERBS, ids=" ".join)
pytestmark = [pytest.mark.docker]


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Return a folder whose path is short enough for a socket in it."""
    with tempfile.TemporaryDirectory(prefix="vc-", dir="/tmp") as folder:
        yield Path(folder)


# --- the engine does not answer ---------------------------------------------------------------------------


@every_verb
def test_a_socket_that_is_not_there(vaultcube: Vaultcube, short_path: Path, verb: tuple[str, ...]) -> None:
    call = Call(vaultcube, env={"DOCKER_HOST": f"unix://{short_path}/none.sock"})
    assert "no Docker engine answers" in call.refused("engine-unreachable", 3, *verb)


@pytest.mark.parametrize("verb", [BENCH, ("ps", "--json")], ids=" ".join)
def test_a_port_where_nothing_listens(vaultcube: Vaultcube, verb: tuple[str, ...]) -> None:
    call = Call(vaultcube, env={"DOCKER_HOST": f"tcp://127.0.0.1:{unused_port()}"})
    assert "127.0.0.1" in call.refused("engine-unreachable", 3, *verb)


def test_a_stale_socket_file(vaultcube: Vaultcube, short_path: Path) -> None:
    path = short_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    Call(vaultcube, env={"DOCKER_HOST": f"unix://{path}"}).refused("engine-unreachable", 3, *BENCH)


@pytest.mark.parametrize("host", ["nonsense://nowhere", "tcp://[::1"])
def test_an_address_that_is_none(vaultcube: Vaultcube, host: str) -> None:
    Call(vaultcube, env={"DOCKER_HOST": host}).refused("engine-unreachable", 3, *BENCH)


def test_a_docker_context_that_is_not_there(vaultcube: Vaultcube) -> None:
    call = Call(vaultcube, env={"DOCKER_CONTEXT": "nowhere"})
    assert "nowhere" in call.refused("engine-unreachable", 3, *BENCH)


def test_an_engine_that_accepts_and_never_answers(vaultcube: Vaultcube, short_path: Path) -> None:
    with listening(short_path / "deaf.sock") as host, ThreadPoolExecutor() as side_by_side:
        calls = [
            side_by_side.submit(Call(vaultcube, env={"DOCKER_HOST": host}).refused, "engine-unreachable", 3, *verb)
            for verb in (BENCH, ("ps", "--json"), ("images", "build"))
        ]
        messages = [call.result() for call in calls]
    assert all("did not answer within" in message for message in messages), messages


@every_verb
def test_a_socket_that_this_user_may_not_use(vaultcube: Vaultcube, short_path: Path, verb: tuple[str, ...]) -> None:
    before: list[str] = []
    with listening(short_path / "closed.sock") as host:
        path = short_path / "closed.sock"
        if os.getuid() == 0:
            # Root passes every mode but for one capability: without it root is like anybody else.
            os.chown(path, 12345, 12345)
            path.chmod(0o600)
            before = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-all"]
        else:
            path.chmod(0)
        message = Call(vaultcube, before, {"DOCKER_HOST": host}).refused("engine-permission", 3, *verb)
    assert "permission denied" in message


# --- the docker command and its plugins ---------------------------------------------------------------------


@every_verb
def test_no_docker_command(vaultcube: Vaultcube, tmp_path: Path, verb: tuple[str, ...]) -> None:
    Call(vaultcube, env={"PATH": str(tmp_path)}).refused("docker-missing", 3, *verb)


@pytest.mark.parametrize("mode", [0o644, 0o755], ids=["not executable", "not a program"])
def test_a_docker_command_that_cannot_run(vaultcube: Vaultcube, tmp_path: Path, mode: int) -> None:
    broken = tmp_path / "docker"
    broken.write_bytes(b"\x7fELF, or rather not")
    broken.chmod(mode)
    Call(vaultcube, env={"PATH": str(tmp_path)}).refused("docker-missing", 3, *BENCH)


@pytest.mark.parametrize("verb", [BENCH, ("images", "build")], ids=" ".join)
def test_no_compose(vaultcube: Vaultcube, verb: tuple[str, ...]) -> None:
    call = Call(vaultcube, after(f"mount -t tmpfs none {plugin_folder('compose')}"))
    assert call.refused("compose-missing", 3, *verb).strip() == "docker has no compose v2 plugin"


def test_no_buildx(vaultcube: Vaultcube, tmp_path: Path) -> None:
    """The compose plugin stays, so that only buildx is missed."""
    folder = plugin_folder("buildx")
    shutil.copy(plugin_folder("compose") / "docker-compose", tmp_path)
    script = f"mount -t tmpfs none {folder}\ncp {tmp_path}/docker-compose {folder}"
    call = Call(vaultcube, after(script))
    assert call.refused("buildx-missing", 3, "images", "build").strip() == "docker has no buildx plugin"


def fake_plugin(config: Path, name: str, version: str) -> None:
    """Write a plugin that says it is of some version, where docker looks first."""
    plugin = config / "cli-plugins" / f"docker-{name}"
    plugin.parent.mkdir(parents=True)
    metadata = '{"SchemaVersion":"0.1.0","Vendor":"test","Version":"0"}'
    plugin.write_text(
        f"#!/bin/sh\nif [ \"$1\" = docker-cli-plugin-metadata ]; then echo '{metadata}'; else echo '{version}'; fi\n"
    )
    plugin.chmod(0o755)


@pytest.mark.parametrize("version", ["2.20.0", "v2.24.3", "1.29.2", "what?"])
def test_a_compose_that_is_too_old(vaultcube: Vaultcube, tmp_path: Path, version: str) -> None:
    fake_plugin(tmp_path / "config", "compose", version)
    call = Call(vaultcube, env={"DOCKER_CONFIG": str(tmp_path / "config")})
    message = call.refused("compose-missing", 3, *BENCH)
    assert version.removeprefix("v") in message or version == "what?"


def test_a_buildx_that_is_too_old(vaultcube: Vaultcube, tmp_path: Path) -> None:
    fake_plugin(tmp_path / "config", "buildx", "github.com/docker/buildx v0.12.1 deadbeef")
    call = Call(vaultcube, env={"DOCKER_CONFIG": str(tmp_path / "config")})
    assert "0.12.1 is older than 0.13" in call.refused("buildx-missing", 3, "images", "build")


# --- the results directory ------------------------------------------------------------------------------------


def test_results_where_a_file_is(vaultcube: Vaultcube) -> None:
    vaultcube.runs.write_text("a file")
    assert str(vaultcube.runs) in Call(vaultcube).refused("results-unwritable", 3, *BENCH)


def test_results_below_a_file(vaultcube: Vaultcube, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    Call(vaultcube).refused("results-unwritable", 3, *BENCH, "--results-dir", str(tmp_path / "file/runs"))


@pytest.mark.parametrize("place", ["/proc", "/proc/runs", "/proc/self/mem/runs", "/dev/null", "/" + "long" * 65])
def test_results_where_nothing_can_be_made(vaultcube: Vaultcube, place: str) -> None:
    Call(vaultcube).refused("results-unwritable", 3, *BENCH, "--results-dir", place)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("ro", "results-unwritable"),
        # Too small for what a run keeps in reserve; too few inodes for its folders.
        ("size=64k", "disk-too-small"),
        # Room for that, and for not a byte more.
        ("size=256k", "disk-too-small"),
        ("nr_inodes=2", "disk-too-small"),
    ],
)
def test_results_on_a_disk_that_takes_none(vaultcube: Vaultcube, options: str, code: str) -> None:
    vaultcube.runs.mkdir()
    listing = vaultcube.runs.parent / "listing"
    before = after(
        f"mount -t tmpfs -o mode=1777,{options} none '{vaultcube.runs}'\n"
        # What is on this disk dies with the command: list it before.
        f"\"$@\" || code=$?\nls -A '{vaultcube.runs}' >'{listing}'\nexit ${{code:-0}}"
    )
    Call(vaultcube, before).refused(code, 3, *BENCH)
    assert listing.read_text() == ""


def test_results_that_another_user_owns(vaultcube: Vaultcube) -> None:
    vaultcube.runs.mkdir(mode=0o555)
    before = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-all"] if os.getuid() == 0 else []
    Call(vaultcube, before).refused("results-unwritable", 3, *BENCH)


def test_results_that_cannot_be_listed(vaultcube: Vaultcube) -> None:
    vaultcube.runs.mkdir(mode=0)
    lost = "--bounding-set=-dac_override,-dac_read_search"
    before = ["setpriv", lost, "--inh-caps=-all"] if os.getuid() == 0 else []
    told(Call(vaultcube, before).run("runs", "list", "--json"), "usage", 2, as_json=True)
    vaultcube.runs.chmod(0o755)
