"""Tests on a simulated machine: a box of its own for every test, and engines that put it into containers.

The engines start once a session, each with the stand-in image; a test gets its engine empty, with its own box in it.
What is missing on this machine fails the tests: skipped is not tested.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.docker.conftest import Vaultcube
from tests.rig import images
from tests.rig.box import Box
from tests.rig.engine import Mode, RigEngine, RigError
from tests.rig.inside import Inside, enter, still_box
from tests.rig.serving import Serving, neighbour

Engines = Callable[[Mode], RigEngine]


@pytest.fixture
def box(tmp_path: Path, request: pytest.FixtureRequest) -> Box:
    """Return a simulated machine: 4x5090, or `@pytest.mark.parametrize("box", ["2x4090"], indirect=True)`."""
    return Box(tmp_path / "box", getattr(request, "param", "4x5090"))


@pytest.fixture
def inside(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Inside]:
    """Return a process that reads NVML in a box without jitter; its profile is chosen as that of `box` is."""
    with enter(still_box(tmp_path / "still", getattr(request, "param", "4x5090"))) as found:
        yield found


@pytest.fixture
def vaultcube(tmp_path: Path, box: Box) -> Iterator[Vaultcube]:
    """Return the command in the box, and check after the test that it left nothing running."""
    cube = Vaultcube(tmp_path / "runs", env=box.env())
    yield cube
    cube.close()
    left = cube.left_behind()
    assert not left, f"left behind: {left}"


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    """Return a function that starts the engine of a mode, the first time it is asked for."""
    started: dict[Mode, RigEngine] = {}
    with contextlib.ExitStack() as stack:

        def get(mode: Mode) -> RigEngine:
            if mode not in started:
                try:
                    engine = stack.enter_context(RigEngine(mode))
                    images.pytorch().load(engine)
                except RigError as error:
                    pytest.fail(str(error))
                started[mode] = engine
            return started[mode]

        yield get


@pytest.fixture(scope="session")
def load_servers() -> Callable[[RigEngine], None]:
    """Return a function that puts the stand-in for vLLM, and the proxy, into an engine that has them not yet."""
    loaded: set[str] = set()

    def load(engine: RigEngine) -> None:
        if engine.host in loaded:
            return
        try:
            images.vllm().load(engine)
            proxied = images.load_proxy(engine)
        except RigError as error:
            pytest.fail(str(error))
        assert proxied, f"these tests need {images.PROXY} (make setup)"
        loaded.add(engine.host)

    return load


@pytest.fixture
def serving(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    box: Box,
    vaultcube: Vaultcube,
    load_servers: Callable[[RigEngine], None],
) -> Iterator[Serving]:
    """Return a machine for services, its engine with CDI, or with the way to GPUs that the parameter says."""
    engine: RigEngine = request.getfixturevalue(f"rig_{getattr(request, 'param', 'cdi')}")
    load_servers(engine)
    yield Serving(neighbour(vaultcube, engine, tmp_path / "home"), engine, box)
    # What a test leaves running has been looked at.
    vaultcube.close()
    engine.clear()


@pytest.fixture(scope="session")
def recorder_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the recorder's image, built from this checkout, as a file to load."""
    argv = [sys.executable, "-m", "vaultcube", "images", "build", "recorder"]
    seen = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert seen.returncode == 0, seen.stderr
    path = tmp_path_factory.mktemp("image") / "recorder.tar"
    save = ["docker", "save", "--output", str(path), images.RECORDER]
    subprocess.run(save, capture_output=True, timeout=60, check=True)
    return path


def _with(box: Box, vaultcube: Vaultcube, engine: RigEngine) -> RigEngine:
    engine.use(box)
    vaultcube.env["DOCKER_HOST"] = engine.host
    return engine


@pytest.fixture
def rig_hook(engines: Engines, box: Box, vaultcube: Vaultcube) -> RigEngine:
    """Return an engine with the classic driver; `vaultcube` uses it."""
    return _with(box, vaultcube, engines(Mode.HOOK))


@pytest.fixture
def rig_cdi(engines: Engines, box: Box, vaultcube: Vaultcube) -> RigEngine:
    """Return an engine with CDI and no hook; `vaultcube` uses it."""
    return _with(box, vaultcube, engines(Mode.CDI))


@pytest.fixture
def rig_both(engines: Engines, box: Box, vaultcube: Vaultcube) -> RigEngine:
    """Return an engine with both ways to GPUs; `vaultcube` uses it."""
    return _with(box, vaultcube, engines(Mode.BOTH))


@pytest.fixture
def rig_neither(engines: Engines, box: Box, vaultcube: Vaultcube) -> RigEngine:
    """Return an engine without the NVIDIA Container Toolkit; `vaultcube` uses it."""
    return _with(box, vaultcube, engines(Mode.NEITHER))
