"""Layer 1 on a bare machine: what the roles promise, asked of the machine itself."""

from __future__ import annotations

import json
import re

import pytest
import testinfra
from testinfra.host import Host
from tests.host.conftest import Provisioned
from tests.host.machine import ADMIN, PASSWORD, Machine

# Of the first test, whose fixture converges the machine twice.
pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]


def looked_at(provisioned: Provisioned) -> Host:
    return testinfra.get_host(f"docker://{provisioned.machine.name}")


def test_check_mode_on_a_clean_machine_changes_nothing(bare: Machine) -> None:
    play = bare.play("site.yml", "--tags", "layer1", "--check").checked()
    assert play.counts["failed"] == 0
    assert play.counts["ignored"] == 0
    assert play.counts["changed"] > 10
    assert bare.code(f"id {ADMIN}") != 0
    assert bare.run("ls /etc/ssh/sshd_config.d /etc/apt/sources.list.d").split() == [
        "/etc/apt/sources.list.d:",
        "/etc/ssh/sshd_config.d:",
    ]


def test_a_second_run_changes_nothing(provisioned: Provisioned) -> None:
    first, second = provisioned.first, provisioned.second
    print(f"layer 1: first run {first.seconds:.0f} s, second {second.seconds:.0f} s")  # noqa: T201 - the figure is wanted
    assert second.changed_tasks == []
    assert second.counts["changed"] == 0
    assert first.counts["changed"] > 10


def test_no_unit_failed(provisioned: Provisioned) -> None:
    assert provisioned.machine.run("systemctl --failed --no-legend --plain") == ""


def test_base_system(provisioned: Provisioned) -> None:
    host = looked_at(provisioned)
    for name in (
        "build-essential",
        "git",
        "curl",
        "wget",
        "vim",
        "nano",
        "htop",
        "iotop",
        "net-tools",
        "gnupg",
        "sysstat",
    ):
        assert host.package(name).is_installed, name
    assert host.check_output("date +%Z") == "UTC"
    assert host.check_output("uname -n") == "vault-cube"
    assert host.check_output("getent hosts vault-cube").split()[0] == "127.0.1.1"
    assert "en_US.utf8" in host.check_output("locale -a").split()
    assert host.file("/etc/default/locale").contains("^LANG=en_US.UTF-8$")
    assert host.run("python -c 'import sys, venv, pip; assert sys.version_info >= (3, 11)'").rc == 0


def test_administrator(provisioned: Provisioned) -> None:
    host = looked_at(provisioned)
    user = host.user(ADMIN)
    assert (user.uid, user.shell, user.home) == (1000, "/bin/bash", "/home/vaultadmin")
    assert {"sudo", "docker"} <= set(user.groups)
    assert host.file("/home/vaultadmin/.ssh/authorized_keys").content_string.strip() == provisioned.machine.public_key
    assert host.file("/etc/shadow").content_string.split("root:")[1][0] in "!*"


def test_sudo_asks_for_the_password(provisioned: Provisioned) -> None:
    machine = provisioned.machine
    # use_pty: sudo wants a terminal, as a person has one.
    assert machine.ssh("sudo --non-interactive true", options=["-tt"]).returncode != 0
    told = f"echo '{PASSWORD}' | sudo --stdin --prompt= id --user --name"
    assert machine.ssh(told).stdout.split() == ["root"]


def test_only_the_key_logs_in(provisioned: Provisioned) -> None:
    machine = provisioned.machine
    assert machine.ssh("id --user --name").stdout.strip() == ADMIN
    root = machine.ssh("true", user="root")
    assert root.returncode == 255
    assert "Permission denied (publickey)" in root.stderr
    password = machine.ssh("true", options=["-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password"])
    assert "Permission denied (publickey)" in password.stderr


def test_ssh_settings_in_force(provisioned: Provisioned) -> None:
    effective = provisioned.machine.run(f"sshd -T -C user={ADMIN},host=h,addr=192.0.2.1").splitlines()
    for line in (
        "port 22",
        "permitrootlogin no",
        "passwordauthentication no",
        "kbdinteractiveauthentication no",
        "pubkeyauthentication yes",
        f"allowusers {ADMIN}",
        "clientaliveinterval 300",
        "clientalivecountmax 2",
        "x11forwarding no",
        "hostkey /etc/ssh/ssh_host_ed25519_key",
    ):
        assert line in effective
    offered = " ".join(line for line in effective if re.match("(ciphers|macs|kexalgorithms|hostkeyalgorithms) ", line))
    assert not re.search(r"cbc|3des|md5|sha1\b|nistp|ssh-rsa|ssh-dss", offered)


def test_a_weaker_file_read_later_changes_nothing(provisioned: Provisioned) -> None:
    machine = provisioned.machine
    later = "/etc/ssh/sshd_config.d/50-cloud-init.conf"
    machine.run(f"echo 'PasswordAuthentication yes' >{later}")
    try:
        assert "passwordauthentication no" in machine.run("sshd -T").splitlines()
    finally:
        machine.run(f"rm {later}")


def test_updates(provisioned: Provisioned) -> None:
    machine = provisioned.machine
    settings = machine.run("apt-config dump").splitlines()
    assert 'APT::Periodic::Unattended-Upgrade "1";' in settings
    assert 'Unattended-Upgrade::Automatic-Reboot "false";' in settings
    assert 'Unattended-Upgrade::Package-Blacklist:: "^nvidia-";' in settings
    assert any(re.match("Unattended-Upgrade::(Allowed-Origins|Origins-Pattern):: .*ecurity", line) for line in settings)
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer", "sysstat-collect.timer"):
        assert machine.run(f"systemctl is-enabled {timer}; systemctl is-active {timer}").split() == [
            "enabled",
            "active",
        ]


def test_fail2ban_bans_who_guesses(provisioned: Provisioned) -> None:
    machine = provisioned.machine
    assert json.loads(machine.run("fail2ban-client get sshd maxretry")) == 5
    assert json.loads(machine.run("fail2ban-client get sshd bantime")) == 600
    machine.run("fail2ban-client set sshd banip 203.0.113.7")
    assert "203.0.113.7" in machine.run("nft list ruleset")
    machine.run("fail2ban-client set sshd unbanip 203.0.113.7")
    assert "203.0.113.7" not in machine.run("nft list ruleset")
