"""scripts/rig.sh: what the simulated box is built with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .conftest import Machine


def test_nothing_is_done_where_everything_is_there(machine: Machine) -> None:
    for tool in ("cc", "ip", "apt-get"):
        machine.command(tool, "exit 1")
    header = machine.home / "stdlib.h"
    header.touch()
    assert machine.script("rig.sh", LIBC_HEADER=str(header)).returncode == 0
    assert machine.called("apt-get") == []


def test_what_is_missing_is_installed(machine: Machine) -> None:
    machine.user(0)
    machine.command("ip", "exit 0")
    machine.command("apt-get", "exit 0")
    assert machine.script("rig.sh", LIBC_HEADER="/nonsuch").returncode == 0
    (call,) = machine.called("apt-get")
    assert call.endswith(" gcc libc6-dev")


def test_without_root_it_says_what_is_needed(machine: Machine) -> None:
    machine.user(1000)
    machine.command("ip", "exit 0")
    machine.command("apt-get", "exit 1")
    done = machine.script("rig.sh", LIBC_HEADER="/nonsuch")
    assert done.returncode == 3
    assert "the simulated box of the tests needs: gcc libc6-dev" in done.stderr
    assert "next: sudo apt-get install gcc libc6-dev\n" in done.stderr
