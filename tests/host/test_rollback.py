"""Layers are taken back: packages and files are as they were, nobody is locked out, and bad moments are refused.

Runs after all other tests of this folder (conftest.py): the shared machine is bare again afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.host.conftest import Provisioned
from tests.host.machine import ADMIN, Machine, Play, base_variables
from tests.host.photograph import differences, photograph

pytestmark = [pytest.mark.docker, pytest.mark.timeout(3000)]
RECORDS = "/var/lib/vaultcube/rollback"
PLAYS = Path(__file__).parent / "plays"
# A package of somebody's own that stands on one of the layer's.
NEEDS_UFW = """
mkdir -p /tmp/own/DEBIAN
printf '%s\\n' 'Package: own' 'Version: 1' 'Architecture: all' 'Maintainer: me <me@example.org>' 'Depends: ufw' \\
    'Description: own' >/tmp/own/DEBIAN/control
dpkg-deb --build /tmp/own /tmp/own.deb && dpkg --install /tmp/own.deb && rm -r /tmp/own /tmp/own.deb
"""
# No image has to be fetched: the machine's own programs are mounted into an empty one.
CONTAINER = """
mkdir /tmp/root && ln -s usr/lib usr/lib64 /tmp/root
tar -C /tmp/root -c . | docker import - own && rm -r /tmp/root
docker run --detach --name sleeper --volume /usr:/usr:ro --entrypoint /usr/bin/sleep own 600
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, machine_image: str) -> Iterator[Machine]:  # noqa: ARG001
    """Return a machine of which only the administrator was made; root can still log in."""
    with Machine(tmp_path_factory.mktemp("small")) as machine:
        machine.variables = base_variables(machine)
        yield machine


def refused(machine: Machine, *args: str) -> str:
    """Run a rollback that must be refused with nothing changed; return the one line that says why."""
    before = photograph(machine)
    play = machine.play("rollback.yml", *args)
    assert play.code != 0, play.output
    assert play.counts["changed"] == 0, play.output
    assert differences(before, photograph(machine)) == {}
    (line,) = [line for line in play.output.splitlines() if line.startswith("[ERROR]: ")]
    return line


def told(play: Play) -> str:
    """Return what a playbook printed, unfolded."""
    return " ".join(play.output.split())


def test_a_part_of_a_layer_is_taken_back_without_a_trace(small: Machine) -> None:
    before = photograph(small)
    small.play("site.yml", "--tags", "users").checked()
    assert "user vaultadmin" in differences(before, photograph(small))
    records = small.run(f"stat -c '%a %U %n' {RECORDS}/layer1 {RECORDS}/layer1/*").splitlines()
    assert [line.split()[:2] for line in records] == [["700", "root"], *[["600", "root"]] * (len(records) - 1)]

    assert "No layer is named" in refused(small)
    assert "there is no record of layer2" in refused(small, "--tags", "layer2")
    small.run(f"mkdir -p {RECORDS}/layer3; echo '{{}}' >{RECORDS}/layer3/record.json")
    assert "roll them back too: --tags layer3,layer1" in refused(small, "--tags", "layer1")
    small.run(f"rm -r {RECORDS}/layer3")

    small.play("rollback.yml", "--tags", "layer1", "-e", "snapshot_remove_admin=true").checked()
    assert differences(before, photograph(small)) == {}
    assert small.code(f"test -e /home/{ADMIN}") != 0
    assert "there is no record of layer1" in refused(small, "--tags", "layer1")


def test_settings_of_ssh_that_do_not_work_are_not_put_back(small: Machine) -> None:
    small.run("echo 'NoSuchKeyword yes' >>/etc/ssh/sshd_config")
    small.play(str(PLAYS / "mends_sshd.yml")).checked()
    small.run("sshd -t")
    play = small.play("rollback.yml", "--tags", "layer3")
    assert play.code != 0
    assert "The files of layer3 are back in place and SSH goes on as it was" in told(play)
    small.run("sshd -t")
    assert small.ssh("true").returncode == 0


def test_layer_1_is_taken_back(provisioned: Provisioned) -> None:
    machine, before = provisioned.machine, provisioned.before
    line = refused(machine, "--tags", "layer1", "-e", "snapshot_remove_admin=true")
    assert "This rollback is connected as vaultadmin and shall remove it" in line

    planned = machine.play("rollback.yml", "--tags", "layer1", "--check").checked()
    assert planned.counts["changed"] == 0
    assert "docker.io" in planned.output

    machine.run(NEEDS_UFW)
    assert "would also remove what was installed since: own." in refused(machine, "--tags", "layer1")
    machine.run("dpkg --purge own >/dev/null")
    machine.run(CONTAINER)
    assert "Containers are running (1), and this rollback removes the engine" in refused(machine, "--tags", "layer1")
    machine.run("docker rm --force sleeper; docker image rm own")

    # Somebody's own, of after the provisioning: it stays.
    machine.run("apt-get -qq -y install --no-install-recommends tree >/dev/null; echo a=1 >/etc/sysctl.d/90-own.conf")
    machine.play("rollback.yml", "--tags", "layer1").checked()
    found = differences(before, photograph(machine))
    own = {name for name in found if name.split()[-1] in {"tree", "/etc/sysctl.d/90-own.conf"}}
    assert len(own) == 3, found
    # Accounts that packages make are left by their packages, and the administrator stays: he is the way in.
    accounts = {name for name in found if name.split()[0] in {"user", "group", "password"}}
    assert {name for name in found if name not in own | accounts} == set()
    # They are only more than before: nobody lost an account, a group or a password.
    assert {name for name in accounts if found[name][0]} <= {"group sudo"}
    # Root, who could log in before, can again; the administrator still can.
    machine.user = "root"
    assert machine.ssh("id --user --name").stdout.strip() == "root"
    assert machine.ssh("true", user=ADMIN).returncode == 0
    assert machine.run("systemctl --failed --no-legend --plain") == ""
