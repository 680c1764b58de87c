"""scripts/engine.sh on machines where it has nothing to do, or must say what is missing."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from .conftest import NO_ENGINE

if TYPE_CHECKING:
    from .conftest import Machine

WORKING = """
case "$1 $2" in
"version --format") echo 26.1.5 ;;
"compose version") echo 2.26.1-4 ;;
"buildx version") echo github.com/docker/buildx 0.13.1 ;;
*) exit 1 ;;
esac"""


def test_nothing_happens_where_everything_is_there(machine: Machine) -> None:
    machine.command("docker", WORKING)
    machine.command("apt-get", "exit 1")
    done = machine.script("engine.sh")
    assert done.returncode == 0
    assert "Docker engine 26.1.5, compose 2.26.1-4: there" in done.stderr
    assert machine.called("apt-get") == []


def test_without_root_debian_12_is_told_the_exact_packages(machine: Machine) -> None:
    machine.user(1000)
    done = machine.script("engine.sh")
    assert done.returncode == 3
    assert "neither root nor allowed to sudo" in done.stderr
    assert (
        "sudo apt-get install docker.io/trixie docker-cli/trixie docker-compose/trixie docker-buildx/trixie"
        in done.stderr
    )


def test_without_root_ubuntu_is_told_the_exact_packages(machine: Machine) -> None:
    machine.system('ID=ubuntu\nVERSION_ID="24.04"')
    machine.user(1000)
    machine.command("sudo", "exit 1")
    done = machine.script("engine.sh")
    assert done.returncode == 3
    assert "sudo apt-get install docker.io docker-compose-v2 docker-buildx" in done.stderr


@pytest.mark.parametrize("os_release", ['ID=fedora\nPRETTY_NAME="Fedora Linux 41"', 'ID=ubuntu\nVERSION_ID="22.04"'])
def test_another_system_is_told_what_to_install(machine: Machine, os_release: str) -> None:
    machine.system(os_release)
    machine.command("apt-get", "exit 1")
    done = machine.script("engine.sh")
    assert done.returncode == 3
    assert "not a system this script installs on" in done.stderr
    assert "compose v2 >= 2.24.4 and buildx" in done.stderr
    assert machine.called("apt-get") == []


def test_only_what_is_missing_is_installed(machine: Machine) -> None:
    machine.system('ID=debian\nVERSION_ID="13"')
    machine.user(0)
    machine.command("docker", WORKING.replace("2.26.1-4", "2.20.0"))
    machine.command("dpkg-query", "exit 1")
    machine.command("apt-get", "exit 0")
    done = machine.script("engine.sh")
    assert [call.split()[-1] for call in machine.called("apt-get")] == ["-q", "docker-compose"]
    assert done.returncode == 1
    assert "docker compose is '2.20.0', and 2.24.4 or newer is needed" in done.stderr


def test_packages_of_dockers_own_repository_are_not_mixed_with_the_distributions(machine: Machine) -> None:
    machine.user(0)
    machine.command("docker", WORKING.replace("compose version", "no compose"))
    machine.command("dpkg-query", 'echo "install ok installed"')
    machine.command("apt-get", "exit 0")
    machine.script("engine.sh")
    assert machine.called("apt-get")[-1].endswith(" docker-compose-plugin")


def test_apt_that_fails_is_named(machine: Machine) -> None:
    machine.system('ID=debian\nVERSION_ID="13"')
    machine.user(0)
    machine.command("dpkg-query", "exit 1")
    machine.command("apt-get", 'echo "E: no route to mirror" >&2; exit 100')
    done = machine.script("engine.sh")
    assert done.returncode == 1
    assert "E: no route to mirror" in done.stderr
    assert "error: apt could not install docker.io docker-cli docker-compose docker-buildx" in done.stderr


def test_debian_12_without_debian_sources_is_told_so_before_anything_changes(machine: Machine) -> None:
    machine.user(0)
    machine.command("dpkg-query", "exit 1")
    machine.command("apt-get", "exit 0")
    machine.command("tee", "exit 1")
    done = machine.script("engine.sh")
    assert done.returncode == 3
    assert "no Debian source in /etc/apt to derive trixie from" in done.stderr
    assert machine.called("apt-get") + machine.called("tee") == []


def test_a_dead_docker_host_is_not_answered_with_an_installation(machine: Machine) -> None:
    machine.command("docker", NO_ENGINE)
    machine.command("apt-get", "exit 1")
    done = machine.script("engine.sh", DOCKER_HOST="tcp://192.0.2.1:2375")
    assert done.returncode == 3
    assert "no engine answers at DOCKER_HOST=tcp://192.0.2.1:2375" in done.stderr
    assert machine.called("apt-get") == []


def test_a_refused_socket_names_the_group(machine: Machine) -> None:
    machine.user(1000)
    machine.command(
        "docker", 'echo "permission denied while trying to connect to the Docker daemon socket" >&2; exit 1'
    )
    done = machine.script("engine.sh")
    assert done.returncode == 3
    assert "user alice may not use its socket" in done.stderr
    assert "sudo usermod -aG docker alice" in done.stderr


def test_a_group_joined_after_login_is_used_at_once(machine: Machine) -> None:
    machine.command("id", 'case "$*" in -un) echo alice ;; "-nG alice") echo "alice docker" ;; *) echo alice ;; esac')
    machine.command("docker", 'echo "permission denied" >&2; exit 1')
    machine.command("sg", "exit 0")
    assert machine.script("engine.sh").returncode == 0
    assert machine.called("sg")[0].startswith("sg docker -c ")
    assert machine.called("sg")[0].rstrip().endswith("engine.sh")


def test_stop_leaves_an_engine_alone_that_it_did_not_start(machine: Machine) -> None:
    done = machine.script("engine.sh", "stop")
    assert done.returncode == 0
    assert "left alone" in done.stderr


def test_stop_does_not_kill_whoever_inherited_the_pid(machine: Machine) -> None:
    machine.user(0)
    marker = machine.home / "engine.pid"
    with subprocess.Popen(["sleep", "60"]) as bystander:
        marker.write_text(f"{bystander.pid}\n")
        assert machine.script("engine.sh", "stop").returncode == 0
        assert bystander.poll() is None
        bystander.kill()
    assert not marker.exists()


def test_an_unknown_verb_is_a_usage_error(machine: Machine) -> None:
    assert machine.script("engine.sh", "restart").returncode == 2
