"""The locks and the entry points as they stand in this checkout."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest

from .conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Machine

LOCKS = sorted([*ROOT.glob("requirements/*.txt"), *ROOT.glob("images/*/requirements/*.txt")])


def entries(lock: Path) -> dict[str, str]:
    """The requirement (with its marker) -> its whole block."""
    text = re.sub(r"^\s*#.*\n", "", lock.read_text(), flags=re.MULTILINE)
    blocks = re.split(r"\n(?=\S)", text.strip())
    return {block.split(" \\", 1)[0]: block for block in blocks}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.relative_to(ROOT)))
def test_every_locked_package_is_pinned_and_hashed_and_no_address_is_named(lock: Path) -> None:
    for name, block in entries(lock).items():
        assert re.match(r"^[a-z0-9._-]+(\[[a-z0-9,_-]+\])?==\S+( ; .+)?$", name), name
        assert "--hash=sha256:" in block, name
    assert "://" not in lock.read_text()
    assert "-index-url" not in lock.read_text()


def test_the_tools_are_locked_on_the_versions_that_ship() -> None:
    assert entries(ROOT / "requirements/base.txt").keys() <= entries(ROOT / "requirements/dev.txt").keys()


def test_make_alone_lists_every_target_that_is_meant_to_be_called(machine: Machine) -> None:
    for tool in ("make", "column"):
        (machine.bin / tool).symlink_to(shutil.which(tool) or tool)
    done = machine.run("make", "-C", ROOT, "--no-print-directory")
    listed = re.findall(r"^  make ([a-z-]+) ", done.stdout, flags=re.MULTILINE)
    assert done.returncode == 0
    wanted = (
        "help setup demo test coverage test-unit test-host test-host-image rig lint format locks bench schemas"
        " role-docs security wheel provision host-image clean"
    )
    assert " ".join(listed) == wanted


def test_lint_knows_its_checks_and_needs_its_tools(machine: Machine, checkout: Path) -> None:
    done = machine.run(checkout / "scripts/lint.sh")
    assert (done.returncode, "run: make setup" in done.stderr) == (3, True)
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/ruff").symlink_to(machine.bin / "true")
    assert machine.run(checkout / "scripts/lint.sh", "spelling").returncode == 2
    assert machine.run(checkout / "scripts/lint.sh", "ruff", "format").returncode == 0
