"""scripts/ansible.sh: an environment of its own, made once, and the command that runs in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .test_venv import PYTHON, installs, python

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Machine


def prepared(machine: Machine, checkout: Path) -> None:
    (checkout / "requirements/ansible.txt").write_text("ansible==1\n")
    python(machine, "python3", "3.11")


def test_it_installs_once_and_again_when_the_lock_changed(machine: Machine, checkout: Path) -> None:
    prepared(machine, checkout)
    assert machine.run(checkout / "scripts/ansible.sh").returncode == 0
    # The interpreter of .venv makes it, so that one is made as well.
    assert installs(machine) == ["lock", "package", "lock"]
    for content, installed in (("ansible==1\n", []), ("ansible==2\n", ["lock"])):
        machine.calls.write_text("")
        (checkout / "requirements/ansible.txt").write_text(content)
        assert machine.run(checkout / "scripts/ansible.sh").returncode == 0
        assert installs(machine) == installed


def test_the_command_runs_with_its_settings_and_its_code(machine: Machine, checkout: Path) -> None:
    prepared(machine, checkout)
    done = machine.run(checkout / "scripts/ansible.sh", "bash", "-c", 'echo "$ANSIBLE_CONFIG"; exit 7')
    assert done.returncode == 7
    assert done.stdout.strip() == f"{checkout}/ansible/ansible.cfg"


def test_a_failed_installation_says_what_to_do(machine: Machine, checkout: Path) -> None:
    (checkout / "requirements/ansible.txt").write_text("ansible==1\n")
    broken = PYTHON.format(version="3.11", ensurepip=0).replace("esac", "*requirements/ansible.txt*) exit 1 ;; esac")
    machine.command("python3", broken)
    for _ in range(2):
        done = machine.run(checkout / "scripts/ansible.sh")
        assert done.returncode == 1
        assert "error: pip could not install requirements/ansible.txt" in done.stderr
        assert "PIP_CERT" in done.stderr
