"""A machine that was booted from the image, for the first time and with a seed of its own."""

from __future__ import annotations

from typing import Any

import pytest
from testinfra.host import Host


def test_every_package_of_the_manifest_is_there_and_no_other(host: Host, expected: dict[str, Any]) -> None:
    seen = host.check_output(r"dpkg-query -W -f '${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\n'")
    assert sorted(seen.split("\n")) == sorted(expected["packages"].strip("\n").split("\n"))


def test_the_kernel_of_the_manifest_runs(host: Host, expected: dict[str, Any]) -> None:
    assert host.check_output("uname -r") == expected["kernel"]


def test_the_root_file_system_fills_the_disk(host: Host) -> None:
    disk = int(host.check_output("lsblk --bytes --nodeps --noheadings --output SIZE /dev/vda"))
    root = int(host.check_output("df --block-size=1 --output=size / | tail -n 1"))
    assert root > 0.85 * disk - 2**30


def test_the_administrator_is_there_and_the_build_user_is_not(host: Host, expected: dict[str, Any]) -> None:
    assert host.user(expected["admin"]).exists
    assert "sudo" in host.user(expected["admin"]).groups
    assert not host.user(expected["build_user"]).exists
    assert not host.file(f"/home/{expected['build_user']}").exists


def test_nobody_but_the_administrator_has_a_password(host: Host, expected: dict[str, Any]) -> None:
    rows = [line.split(":") for line in host.file("/etc/shadow").content_string.splitlines()]
    assert [row[0] for row in rows if row[1][:1] not in {"!", "*"}] == [expected["admin"]]


def test_the_boot_made_nobody_of_its_own(host: Host, expected: dict[str, Any]) -> None:
    """cloud-init would make its default user, with sudo and without a password."""
    rows = [line.split(":") for line in host.file("/etc/passwd").content_string.splitlines()]
    assert [row[0] for row in rows if 1000 <= int(row[2]) < 60000] == [expected["admin"]]


def test_only_keys_open_ssh(host: Host, expected: dict[str, Any]) -> None:
    told = host.check_output(f"sshd -T -C user={expected['admin']},host=outside,addr=192.0.2.1").lower().splitlines()
    for line in ("passwordauthentication no", "kbdinteractiveauthentication no", "permitrootlogin no"):
        assert line in told
    assert f"allowusers {expected['admin']}" in told


def test_the_host_key_is_roots_alone(host: Host) -> None:
    key = host.file("/etc/ssh/ssh_host_ed25519_key")
    assert (key.user, key.mode) == ("root", 0o600)


@pytest.mark.parametrize("unit", ["docker", "fail2ban", "ufw"])
def test_services_run_and_start_at_boot(host: Host, unit: str) -> None:
    assert host.service(unit).is_enabled
    assert host.service(unit).is_running


def test_the_kernel_forwards_for_containers(host: Host) -> None:
    """A container cannot show this one: its kernel is not its own."""
    assert host.sysctl("net.ipv4.ip_forward") == 1


def test_the_network_is_for_any_card(host: Host) -> None:
    assert not host.file("/etc/netplan/50-cloud-init.yaml").exists
    text = host.file("/etc/netplan/60-vaultcube.yaml").content_string
    assert "macaddress" not in text
    assert "dhcp4: true" in text


def test_no_unit_failed(host: Host) -> None:
    assert host.check_output("systemctl --failed --plain --no-legend") == ""


def test_the_first_boot_waits_for_a_gpu(host: Host, expected: dict[str, Any]) -> None:
    if 3 not in expected["layers"]:
        assert not host.file("/etc/systemd/system/vaultcube-firstboot.service").exists
        return
    assert host.service("vaultcube-firstboot").is_enabled
    assert '"status": "waiting"' in host.file("/var/lib/vaultcube/firstboot.json").content_string
