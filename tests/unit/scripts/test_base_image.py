"""scripts/base-image.sh: which base image is used, and what is said when there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .conftest import Machine


def engine(machine: Machine, *images: str, pulls: bool = False) -> None:
    """A docker that answers, has these images, and can or cannot pull."""
    pull = "exit 0" if pulls else 'echo "Error response from daemon: no such host" >&2; exit 1'
    known = " | ".join(f'"image inspect {name}"' for name in images) or '"no image"'
    machine.command("docker", f'case "$*" in version*) echo 26.1.5 ;; {known}) ;; pull*) {pull} ;; *) exit 1 ;; esac')


def test_an_image_that_is_there_is_used_as_it_is(machine: Machine) -> None:
    engine(machine, "debian:bookworm-slim", "vaultcube/base:bookworm")
    done = machine.script("base-image.sh")
    assert (done.returncode, done.stdout) == (0, "debian:bookworm-slim\n")
    assert not [call for call in machine.called("docker") if "pull" in call]


def test_the_default_is_pulled_where_a_registry_answers(machine: Machine) -> None:
    engine(machine, pulls=True)
    assert machine.script("base-image.sh").stdout == "debian:bookworm-slim\n"


def test_one_made_earlier_is_used_without_asking_a_registry_again(machine: Machine) -> None:
    engine(machine, "vaultcube/base:bookworm", pulls=True)
    assert machine.script("base-image.sh").stdout == "vaultcube/base:bookworm\n"
    assert not [call for call in machine.called("docker") if "pull" in call]


def test_both_names_of_the_setting_are_heard(machine: Machine) -> None:
    engine(machine, "ubuntu:24.04", "ubuntu:22.04")
    assert machine.script("base-image.sh", BASE_IMAGE="ubuntu:24.04").stdout == "ubuntu:24.04\n"
    assert machine.script("base-image.sh", VAULTCUBE_BASE_IMAGE="ubuntu:22.04").stdout == "ubuntu:22.04\n"


def test_an_image_asked_for_by_name_is_never_replaced_by_another(machine: Machine) -> None:
    engine(machine, "vaultcube/base:bookworm")
    done = machine.script("base-image.sh", BASE_IMAGE="example/base:1")
    assert (done.returncode, done.stdout) == (3, "")
    assert "cannot pull it: Error response from daemon: no such host" in done.stderr
    assert "the base image example/base:1 is not here and cannot be pulled" in done.stderr


def test_without_root_it_says_what_making_one_needs(machine: Machine) -> None:
    engine(machine)
    machine.user(1000)
    machine.command("apt-get", "exit 1")
    done = machine.script("base-image.sh")
    assert done.returncode == 3
    assert "sudo apt-get install mmdebstrap" in done.stderr


def test_without_an_engine_it_names_the_script_that_brings_one(machine: Machine) -> None:
    machine.command("docker", "exit 1")
    done = machine.script("base-image.sh")
    assert done.returncode == 3
    assert "no Docker engine answers" in done.stderr
    assert "scripts/engine.sh" in done.stderr


def test_a_base_is_made_from_the_machines_own_mirrors(machine: Machine) -> None:
    engine(machine)
    machine.command("docker", 'case "$1" in version) echo 26.1.5 ;; import) [ -s "${@: -2:1}" ] ;; *) exit 1 ;; esac')
    machine.user(0)
    machine.command(
        "mmdebstrap", f'cat >"{machine.home}/lines"; for a; do case $a in *.tar) echo tar >"$a" ;; esac; done'
    )
    (machine.apt / "sources.list").write_text("deb http://mirror.example/debian bookworm main\n")
    done = machine.script("base-image.sh")
    assert (done.returncode, done.stdout) == (0, "vaultcube/base:bookworm\n")
    assert (machine.home / "lines").read_text() == "deb http://mirror.example/debian bookworm main\n"
    assert machine.called("mmdebstrap")[0].split()[-1] == "-"


def test_a_failed_mmdebstrap_leaves_no_image_and_no_file(machine: Machine) -> None:
    engine(machine)
    machine.user(0)
    machine.command("mmdebstrap", 'echo "E: mirror unreachable" >&2; exit 1')
    temporary = machine.home / "tmp"
    temporary.mkdir()
    done = machine.script("base-image.sh", TMPDIR=str(temporary))
    assert done.returncode == 1
    assert "E: mirror unreachable" in done.stderr
    assert list(temporary.iterdir()) == []
    assert not [call for call in machine.called("docker") if "import" in call]
