"""scripts/venv.sh: which Python, when it installs again, and what it says when it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Machine

# Stands in for an interpreter: knows its version, and makes a .venv whose python is itself.
PYTHON = """
case "$*" in
*version_info*) echo {version} ;;
*ensurepip*) exit {ensurepip} ;;
*"-m venv"*) mkdir -p "$3/bin" && cat "$0" >"$3/bin/python" && chmod +x "$3/bin/python" ;;
esac"""


def python(machine: Machine, name: str, version: str, *, ensurepip: bool = True) -> None:
    machine.command(name, PYTHON.format(version=version, ensurepip=0 if ensurepip else 1))


def installs(machine: Machine) -> list[str]:
    return [
        "lock" if "--require-hashes" in call else "package"
        for call in machine.calls.read_text().splitlines()
        if "pip install" in call
    ]


def test_a_python_too_old_is_refused_with_what_to_install(machine: Machine, checkout: Path) -> None:
    python(machine, "python3", "3.10")
    done = machine.run(checkout / "scripts/venv.sh")
    assert done.returncode == 3
    assert "Python 3.11 or newer is needed (python3 is 3.10; none in PATH is new enough)" in done.stderr
    assert "sudo apt-get install python3 python3-venv" in done.stderr
    assert not (checkout / ".venv").exists()


def test_no_python_at_all_is_the_same_refusal(machine: Machine, checkout: Path) -> None:
    assert machine.run(checkout / "scripts/venv.sh").returncode == 3


def test_a_newer_python_beside_an_old_one_is_found(machine: Machine, checkout: Path) -> None:
    python(machine, "python3", "3.9")
    machine.command("python3.11", "exit 127")  # a shim that selects nothing
    python(machine, "python3.12", "3.12")
    done = machine.run(checkout / "scripts/venv.sh")
    assert "making .venv with python3.12 (3.12)" in done.stderr
    assert done.returncode == 0


def test_a_python_named_by_the_user_comes_first(machine: Machine, checkout: Path) -> None:
    python(machine, "python3", "3.11")
    python(machine, "mine", "3.13")
    done = machine.run(checkout / "scripts/venv.sh", PYTHON="mine")
    assert "making .venv with mine (3.13)" in done.stderr


def test_a_missing_venv_package_is_named_without_root(machine: Machine, checkout: Path) -> None:
    python(machine, "python3", "3.12", ensurepip=False)
    machine.user(1000)
    done = machine.run(checkout / "scripts/venv.sh")
    assert done.returncode == 3
    assert "sudo apt-get install python3.12-venv" in done.stderr


def test_a_missing_venv_package_is_installed_as_root(machine: Machine, checkout: Path) -> None:
    python(machine, "python3", "3.12", ensurepip=False)
    machine.user(0)
    machine.command("apt-get", "exit 0")
    machine.run(checkout / "scripts/venv.sh")
    assert machine.called("apt-get")[-1].endswith(" python3.12-venv")


@pytest.mark.parametrize(
    ("changed", "installed"),
    [
        (None, []),
        ("requirements/dev.txt", ["lock"]),
        ("pyproject.toml", ["package"]),
        ("orchestrator/vaultcube/__init__.py", ["package"]),
    ],
)
def test_only_what_changed_is_installed_again(
    machine: Machine, checkout: Path, changed: str | None, installed: list[str]
) -> None:
    python(machine, "python3", "3.11")
    assert machine.run(checkout / "scripts/venv.sh").returncode == 0
    assert installs(machine) == ["lock", "package"]
    machine.calls.write_text("")
    if changed:
        (checkout / changed).write_text("changed\n")
    assert machine.run(checkout / "scripts/venv.sh").returncode == 0
    assert installs(machine) == installed


def test_a_failed_installation_is_tried_again_the_next_time(machine: Machine, checkout: Path) -> None:
    machine.command(
        "python3", PYTHON.format(version="3.11", ensurepip=0).replace("esac", "*require-hashes*) exit 1 ;; esac")
    )
    for _ in range(2):
        machine.calls.write_text("")
        done = machine.run(checkout / "scripts/venv.sh")
        assert done.returncode == 1
        assert "error: pip could not install requirements/dev.txt" in done.stderr
        assert installs(machine) == ["lock"]
