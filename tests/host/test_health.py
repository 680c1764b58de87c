"""`vaultcube-health` on a provisioned machine: everything is in order, and each thing broken by hand is reported."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from jsonschema import Draft202012Validator
from tests.host.conftest import Provisioned
from tests.host.machine import ADMIN, ROOT, Machine

PROGRAM = "/usr/local/bin/vaultcube-health"
# What a container cannot show.
UNSEEN = {"clock"}


def look(machine: Machine, *words: str, prefix: str = "") -> dict[str, dict[str, Any]]:
    """Run the program; check its document, and return the checks by code."""
    text = machine.run(f"{prefix}{PROGRAM} {' '.join(words)} --json", check=False)
    found: dict[str, Any] = json.loads(text)
    Draft202012Validator(json.loads((ROOT / "docs/schema/health.schema.json").read_text())).validate(found)
    return {one["code"]: one for one in found["checks"]}


def test_the_provisioned_machine_is_in_order(provisioned: Provisioned) -> None:
    found = look(provisioned.machine, "1")
    verdicts = {code: one["verdict"] for code, one in found.items()}
    assert {code: verdict for code, verdict in verdicts.items() if verdict != "PASS" and code not in UNSEEN} == {}, (
        found
    )
    assert provisioned.machine.code(f"{PROGRAM} 1") == 0


def test_the_probe_leaves_nothing_behind(provisioned: Provisioned) -> None:
    machine = provisioned.machine
    assert look(machine, "--check", "published-port")["published-port"]["verdict"] == "PASS"
    assert machine.run("docker ps --all --quiet; docker image ls --quiet vaultcube-health*; ip netns list") == ""
    assert "vch" not in machine.run("ip -brief link")


class Fault(NamedTuple):
    """Something broken by hand: in what check it shows, with which words, and how it is made good again."""

    code: str
    words: str
    broken: str
    mended: str


FIRST = "/etc/ssh/sshd_config.d/00-first.conf"
LAST = "/etc/ssh/sshd_config.d/99-last.conf"
ZONE = "ln -sfn /usr/share/zoneinfo/{} /etc/localtime; systemctl stop systemd-timedated"
FAULTS = (
    Fault("ssh-config", "passwordauthentication is yes", f"echo PasswordAuthentication yes >{FIRST}", f"rm {FIRST}"),
    Fault(
        "ssh-config",
        "permitrootlogin is yes",
        f"printf 'Match User root\\n PermitRootLogin yes\\n' >{FIRST}",
        f"rm {FIRST}",
    ),
    Fault(
        "ssh-offers",
        "it offers password",
        f"printf 'PasswordAuthentication yes\\nAuthenticationMethods any\\n' >{FIRST}; systemctl restart ssh; rm {FIRST}",
        "systemctl restart ssh",
    ),
    Fault("sshd", "neither", "systemctl stop ssh", "systemctl start ssh"),
    Fault("firewall", "UFW is not active", "ufw disable", "ufw --force enable"),
    Fault("firewall", "8000/tcp is open to everybody", "ufw allow 8000/tcp", "ufw delete allow 8000/tcp"),
    Fault("firewall-rules", "IPv4: INPUT ends with ACCEPT", "iptables -P INPUT ACCEPT", "iptables -P INPUT DROP"),
    Fault("firewall-rules", "IPv6: INPUT ends with ACCEPT", "ip6tables -P INPUT ACCEPT", "ip6tables -P INPUT DROP"),
    Fault("docker-rules", "drops nothing", "iptables -I DOCKER-USER -j RETURN", "iptables -D DOCKER-USER 1"),
    Fault(
        "published-port", "is reached from outside", "iptables -I DOCKER-USER -j RETURN", "iptables -D DOCKER-USER 1"
    ),
    Fault("fail2ban", "fail2ban does not run", "systemctl stop fail2ban", "systemctl start fail2ban"),
    Fault(
        "fail2ban",
        "bantime is 60 instead",
        "fail2ban-client set sshd bantime 60",
        "fail2ban-client set sshd bantime 600",
    ),
    Fault(
        "updates",
        "APT::Periodic::Unattended-Upgrade is not on",
        "echo 'APT::Periodic::Unattended-Upgrade \"0\";' >/etc/apt/apt.conf.d/99-hand",
        "rm /etc/apt/apt.conf.d/99-hand",
    ),
    Fault(
        "updates", "apt-daily.timer is not active", "systemctl stop apt-daily.timer", "systemctl start apt-daily.timer"
    ),
    Fault(
        "sudo",
        "needs no password",
        f"echo '{ADMIN} ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/99-hand",
        "rm /etc/sudoers.d/99-hand",
    ),
    Fault("user", "its shell is /bin/sh", f"usermod --shell /bin/sh {ADMIN}", f"usermod --shell /bin/bash {ADMIN}"),
    Fault(
        "ssh-keys",
        "may be written by others",
        f"chmod o+w /home/{ADMIN}/.ssh/authorized_keys",
        f"chmod o-w /home/{ADMIN}/.ssh/authorized_keys",
    ),
    # Not by timedatectl: the first zone that it tells the kernel moves the kernel's clock, which is this machine's too.
    Fault("timezone", "Europe/Berlin", ZONE.format("Europe/Berlin"), ZONE.format("Etc/UTC")),
    Fault(
        "failed-units", "hand.service", "systemd-run --quiet --unit=hand false; sleep 1", "systemctl reset-failed hand"
    ),
    Fault(
        "docker-boot",
        "disabled",
        "systemctl disable docker.service docker.socket",
        "systemctl enable docker.service docker.socket",
    ),
    Fault(
        "docker",
        "no engine answers",
        "systemctl stop docker.socket docker.service",
        "systemctl start docker.socket docker.service",
    ),
    Fault(
        "docker-settings",
        "live-restore is off",
        'cp /etc/docker/daemon.json /root/; sed -i \'s/"live-restore": true/"live-restore": false/\' /etc/docker/daemon.json; '
        "systemctl restart docker",
        "mv /root/daemon.json /etc/docker/; systemctl restart docker",
    ),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.code}-{fault.words.split(' ')[0]}")
def test_what_is_broken_by_hand_is_reported(provisioned: Provisioned, fault: Fault) -> None:
    machine = provisioned.machine
    try:
        machine.run(fault.broken)
        found = look(machine, "--check", fault.code)[fault.code]
        assert (found["verdict"], fault.words in found["seen"]) == ("FAIL", True), found
        assert found["next_step"]
    finally:
        machine.run(fault.mended)
    assert look(machine, "--check", fault.code)[fault.code]["verdict"] == "PASS"


def test_a_setting_that_does_not_win_is_no_finding(provisioned: Provisioned) -> None:
    """sshd takes the first value: what a later file says is without effect."""
    machine = provisioned.machine
    try:
        machine.run(f"echo PasswordAuthentication yes >{LAST}")
        assert look(machine, "--check", "ssh-config")["ssh-config"]["verdict"] == "PASS"
    finally:
        machine.run(f"rm {LAST}")


def test_without_root_it_says_what_it_cannot_see(provisioned: Provisioned) -> None:
    found = look(provisioned.machine, "1", prefix=f"runuser -u {ADMIN} -- ")
    for code in ("ssh-config", "firewall", "firewall-rules", "docker-rules", "published-port", "sudo", "fail2ban"):
        assert found[code]["verdict"] == "UNAVAILABLE", found[code]
        assert found[code]["next_step"] == "Run it as root: sudo vaultcube-health"
    assert {one["verdict"] for one in found.values()} == {"PASS", "UNAVAILABLE"}


def test_layers_without_a_card(provisioned: Provisioned) -> None:
    found = look(provisioned.machine, "2", "3")
    for code in ("gpu-count", "module", "versions", "xid", "gpu-container"):
        assert (found[code]["verdict"], found[code]["seen"]) == ("UNAVAILABLE", "no NVIDIA GPU on this machine")
    # What needs no card is missed: host.json says that these layers should be here.
    for code in ("cuda", "toolkit-version"):
        assert (found[code]["verdict"], "is not installed" in found[code]["seen"]) == ("FAIL", True)


def test_a_file_of_expectations_that_makes_no_sense(provisioned: Provisioned) -> None:
    machine = provisioned.machine
    path = "/etc/vaultcube/host.json"
    before = machine.run(f"cat {path}")
    assert json.loads(before)["schema"] == "vaultcube.host/1"
    try:
        machine.run(f'sed -i \'s/"ssh"/"shs"/\' {path}')
        assert machine.code(f"{PROGRAM} 1") == 2
    finally:
        machine.run(f'sed -i \'s/"shs"/"ssh"/\' {path}')
    assert machine.run(f"cat {path}") == before
