"""Tests of the host image's roles on a bare machine. It is converged once a session; tests only look, or say they change.

A missing engine, or no way to install packages, fails these tests: skipped is not tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.host.machine import ADMIN, Machine, Play, base_variables, build_image
from tests.host.photograph import photograph

# They provision machines of their own. The one at layer 1 that the others share is there in two minutes.
LONG = ("test_demo_box.py", "test_first_boot.py", "test_gpu_layers.py", "test_rollback.py", "test_vendor_driver.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests last that take the shared machine back, and mark what `make test` leaves to `make test-host`."""
    items.sort(key=lambda item: "tests/host/test_rollback.py" in item.nodeid)
    for item in items:
        if item.path.parent.name == "host" and item.path.name in LONG:
            item.add_marker("long")


@dataclass(frozen=True)
class Provisioned:
    """A machine at layer 1, and how it came there.

    Attributes:
        machine: it, with the administrator as its user.
        before: what it was made of while it was bare.
        first: the first run, on the bare machine, as root.
        second: the run after it, as the administrator.
    """

    machine: Machine
    before: dict[str, str]
    first: Play
    second: Play


@pytest.fixture(scope="session")
def machine_image() -> str:
    """Return the name of the bare machine's image."""
    return build_image()


@pytest.fixture
def bare(tmp_path: Path, machine_image: str) -> Iterator[Machine]:  # noqa: ARG001 - a machine needs an image
    """Return a machine of the test's own that nothing was done to."""
    with Machine(tmp_path) as machine:
        machine.variables = base_variables(machine)
        yield machine


@pytest.fixture(scope="session")
def provisioned(tmp_path_factory: pytest.TempPathFactory, machine_image: str) -> Iterator[Provisioned]:  # noqa: ARG001
    """Return the machine at layer 1 that all tests share; they leave it as they found it."""
    with Machine(tmp_path_factory.mktemp("machine")) as machine:
        machine.variables = base_variables(machine)
        before = photograph(machine)
        first = machine.play("site.yml", "--tags", "layer1").checked()
        # Root may not log in any more: from here on as a real box is reached.
        machine.user = ADMIN
        second = machine.play("site.yml", "--tags", "layer1").checked()
        yield Provisioned(machine, before, first, second)
