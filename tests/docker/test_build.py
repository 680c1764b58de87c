"""Image builds that cannot be: no base, a step that fails, a disk that is too small, and Ctrl-C half-way."""

from __future__ import annotations

import io
import re
import secrets
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.docker.conftest import Vaultcube, docker, until
from tests.docker.engines import Call, Engine, after, told

from vaultcube.stack.docker import Docker
from vaultcube.stack.images import choose_base

BENCH = ("bench", "ddp", "--gpus", "none", "--preset", "smoke", "--json")
NOWHERE = "registry.invalid/none:1"
pytestmark = [pytest.mark.docker]
sees_the_engine = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the engine's processes are in a virtual machine"
)

MakeBase = Callable[[str], str]


@pytest.fixture
def make_base() -> Iterator[MakeBase]:
    """Return a function that makes a base image in which apt-get is the given shell script; removed afterwards."""
    made: list[str] = []

    def make(apt_get: str) -> str:
        name = f"vaultcube-test/base-{len(made)}:{secrets.token_hex(4)}"
        script = apt_get.replace("\n", "\\n").replace("'", '"')
        text = f"FROM {choose_base(Docker(), None)}\nRUN printf '#!/bin/sh\\n{script}\\n' >/usr/bin/apt-get\n"
        argv = ["docker", "build", "--quiet", "--tag", name, "-"]
        subprocess.run(argv, input=text, text=True, timeout=120, check=True, capture_output=True)
        made.append(name)
        return name

    yield make
    for name in made:
        docker("image", "rm", name)


def test_a_base_image_that_cannot_be_pulled(vaultcube: Vaultcube) -> None:
    message = Call(vaultcube).refused("base-image", 3, "images", "build", "pytorch", "--base-image", NOWHERE)
    assert NOWHERE in message


def test_a_base_image_with_an_impossible_name(vaultcube: Vaultcube) -> None:
    message = Call(vaultcube).refused("base-image", 3, "images", "build", "--base-image", "Not A Name")
    assert "Not A Name" in message


def test_a_step_that_fails(vaultcube: Vaultcube, make_base: MakeBase) -> None:
    base = make_base("echo fetching\necho E: the mirror is on fire >&2\nexit 100")
    message = Call(vaultcube).refused("image-build", 1, "images", "build", "--base-image", base)
    first, *tail = message.splitlines()
    assert re.search(r"failed at: \[python \d/\d\] RUN set -eu; ", first)
    assert [line.strip() for line in tail if "mirror" in line] == ["E: the mirror is on fire"]
    assert any("fetching" in line for line in tail)


def test_a_base_image_without_a_shell(vaultcube: Vaultcube) -> None:
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("empty"), io.BytesIO())
        argv = ["docker", "import", "-", "vaultcube-test/no-shell:1"]
        subprocess.run(argv, input=file.getvalue(), timeout=60, check=True, capture_output=True)
    try:
        call = Call(vaultcube)
        message = call.refused("image-build", 1, "images", "build", "--base-image", "vaultcube-test/no-shell:1")
    finally:
        docker("image", "rm", "vaultcube-test/no-shell:1")
    assert "/bin/sh" in message


def a_number() -> str:
    """Return a number of seconds that nothing else here sleeps."""
    return str(10**6 + secrets.randbelow(10**7))


def sleeping(number: str) -> list[Path]:
    """Return the processes that sleep so many seconds, in a build or elsewhere."""
    words = f"sleep\0{number}\0".encode()
    return [entry.parent for entry in Path("/proc").glob("[0-9]*/cmdline") if _read(entry) == words]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def interrupt(call: Call, verb: tuple[str, ...], number: str, how: signal.Signals, folder: Path) -> str:
    """Stop a command while a build step sleeps; check how it ends and that the step is gone; return its stderr."""
    stderr = folder / "stderr"
    running = call.start(*verb, stderr=stderr)
    try:
        until(lambda: sleeping(number) or running.poll() is not None, 60, "the build comes to its step")
        assert running.poll() is None, stderr.read_text()
        running.send_signal(how)
        running.wait(20)
    finally:
        running.kill()
        running.wait(5)
    seen = subprocess.CompletedProcess(verb, running.returncode, "", stderr.read_text())
    message = told(seen, "interrupted", 130, as_json=False)
    assert how.name in message
    assert call.processes() == []
    until(lambda: not sleeping(number), 15, "the engine stops the step")
    return seen.stderr


@sees_the_engine
@pytest.mark.image
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
@pytest.mark.usefixtures("image")
def test_stopped_in_the_middle(vaultcube: Vaultcube, make_base: MakeBase, tmp_path: Path, how: signal.Signals) -> None:
    number = a_number()
    base = make_base(f"exec sleep {number}")
    before = docker("image", "inspect", "--format", "{{.Id}}", "vaultcube/pytorch:cu124")
    call = Call(vaultcube)
    interrupt(call, ("images", "build", "--base-image", base), number, how, tmp_path)
    assert docker("image", "inspect", "--format", "{{.Id}}", "vaultcube/pytorch:cu124") == before


@pytest.mark.image
@pytest.mark.usefixtures("image")
def test_a_build_after_the_bad_ones(vaultcube: Vaultcube) -> None:
    """What others left in the builder does no harm, and what did not change comes from the cache."""
    seen = Call(vaultcube).run("images", "build", timeout=240)
    assert seen.returncode == 0, seen.stderr
    assert seen.stdout.startswith("vaultcube/pytorch:cu124  ")


# --- a second engine, on which the image is not there ---------------------------------------------------------


@pytest.fixture(scope="module")
def small_engine() -> Iterator[Engine]:
    """Return a second engine with 64 MB."""
    with Engine("64m") as engine:
        yield engine


@pytest.mark.parametrize("verb", [BENCH, ("images", "build")], ids=" ".join)
def test_a_disk_too_small_for_the_image(vaultcube: Vaultcube, small_engine: Engine, verb: tuple[str, ...]) -> None:
    small_engine.resize("64m")
    call = Call(vaultcube, small_engine.inside, {"DOCKER_HOST": small_engine.host})
    message = call.refused("disk-too-small", 3, *verb)
    assert "GB in" in message
    assert small_engine.folder.name in message


@pytest.mark.parametrize("verb", [BENCH, ("images", "build")], ids=" ".join)
def test_an_image_that_cannot_be_built_here(vaultcube: Vaultcube, small_engine: Engine, verb: tuple[str, ...]) -> None:
    """The disk would do (a tmpfs takes no memory before it is used), and no base image can be pulled."""
    small_engine.resize("100g")
    env = {"DOCKER_HOST": small_engine.host, "VAULTCUBE_BASE_IMAGE": NOWHERE}
    call = Call(vaultcube, small_engine.inside, env)
    assert NOWHERE in call.refused("base-image", 3, *verb)


def test_a_bench_stopped_while_it_builds(
    vaultcube: Vaultcube, small_engine: Engine, make_base: MakeBase, tmp_path: Path
) -> None:
    small_engine.resize("100g")
    number = a_number()
    base = make_base(f"exec sleep {number}")
    with (tmp_path / "base.tar").open("w+b") as file:
        subprocess.run(["docker", "save", base], stdout=file, timeout=120, check=True)
        file.seek(0)
        subprocess.run(
            ["docker", "--host", small_engine.host, "load"], stdin=file, timeout=120, check=True, capture_output=True
        )
    call = Call(vaultcube, env={"DOCKER_HOST": small_engine.host, "VAULTCUBE_BASE_IMAGE": base})
    shown = interrupt(call, BENCH, number, signal.SIGTERM, tmp_path)
    assert "building vaultcube/pytorch:cu124" in shown
    assert list(vaultcube.runs.iterdir()) == []


def test_a_read_only_home_does_not_keep_an_image_from_being_built(
    vaultcube: Vaultcube, image: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    read_only = after(f"mount --bind '{home}' '{home}'; mount -o remount,bind,ro '{home}'")
    seen = Call(vaultcube, read_only, {"HOME": str(home)}).run("images", "build", timeout=200)
    assert seen.returncode == 0, seen.stderr
    assert image in seen.stdout
