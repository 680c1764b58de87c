"""Reading what a host's tools were recorded to print; and any other text, without ever raising."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.host.conftest import recorded

from vaultcube.gpu.versions import parse_module, parse_toolkit_version, version_of
from vaultcube.host import parse
from vaultcube.host.parse import UfwRule


def test_sshd() -> None:
    found = parse.sshd_settings(recorded("sshd-T.txt"))
    assert found["port"] == ("22",)
    assert found["permitrootlogin"] == ("without-password",)
    assert found["passwordauthentication"] == ("yes",)
    assert found["listenaddress"] == ("[::]:22", "0.0.0.0:22")
    assert "allowusers" not in found


def test_several_users_stand_on_several_lines() -> None:
    assert parse.sshd_settings("allowusers ada\nallowusers ben\n")["allowusers"] == ("ada", "ben")


def test_what_a_server_offers() -> None:
    assert parse.ssh_methods(recorded("ssh-none.txt")) == ("publickey", "password")
    assert parse.ssh_methods("x@127.0.0.1: Permission denied (publickey).") == ("publickey",)
    assert parse.ssh_methods("ssh: connect to host 127.0.0.1 port 22: Connection refused") is None


def test_ufw() -> None:
    found = parse.ufw_status(recorded("ufw-status.txt"))
    assert found.active
    assert found.policies == {"incoming": "deny", "outgoing": "allow", "routed": "deny"}
    assert found.rules == (
        UfwRule("22/tcp", "ALLOW IN", "Anywhere"),
        UfwRule("22/tcp", "ALLOW IN", "Anywhere", v6=True),
    )
    assert parse.ufw_status(recorded("ufw-inactive.txt")) == (False, {}, ())


def test_ufw_rules_of_every_kind() -> None:
    rules = parse.ufw_status(recorded("ufw-rules.txt")).rules
    assert [(rule.to, rule.action, rule.source) for rule in rules if not rule.v6] == [
        ("22/tcp", "ALLOW IN", "Anywhere"),
        ("8000", "ALLOW IN", "Anywhere"),
        ("9100/tcp", "ALLOW IN", "10.0.0.0/8"),
        ("22/tcp", "LIMIT IN", "Anywhere"),
        ("25/tcp", "DENY OUT", "Anywhere"),
    ]
    assert {rule.to for rule in rules if rule.v6} == {"22/tcp", "8000", "25/tcp"}


def test_iptables() -> None:
    found = parse.iptables_rules(recorded("iptables-docker.txt"))
    assert found.policies == {"INPUT": "DROP", "FORWARD": "DROP", "OUTPUT": "ACCEPT"}
    assert found.chains["DOCKER-USER"] == (("-j", "RETURN"),)
    assert parse.target(found.chains["FORWARD"][0]) == "DOCKER-USER"
    assert not parse.closes(found, "DOCKER-USER")
    assert parse.closes(found, "DOCKER-ISOLATION-STAGE-1")
    assert any(parse.target(rule) == "ufw-before-input" for rule in found.chains["INPUT"])
    assert parse.iptables_rules(recorded("ip6tables.txt")).policies["INPUT"] == "DROP"


def test_a_chain_that_leads_to_itself_ends() -> None:
    found = parse.iptables_rules("-N A\n-N B\n-A A -j B\n-A B -g A\n")
    assert not parse.closes(found, "A")


def test_fail2ban() -> None:
    found = parse.jail_counts(recorded("fail2ban-sshd.txt"))
    assert found == {"Currently failed": 0, "Total failed": 0, "Currently banned": 1, "Total banned": 1}


def test_apt() -> None:
    found = parse.apt_settings(recorded("apt-config.txt"))
    assert parse.apt_true(found["APT::Periodic::Unattended-Upgrade"])
    assert len(found["Unattended-Upgrade::Origins-Pattern"]) == 3
    assert "Unattended-Upgrade::Automatic-Reboot" not in found


@pytest.mark.parametrize(
    ("value", "on"), [("1", True), ("true", True), ("7", True), ("0", False), ("false", False), ("", False)]
)
def test_what_apt_takes_for_on(value: str, on: bool) -> None:  # noqa: FBT001
    assert parse.apt_true((value,)) is on
    assert not parse.apt_true(())


def test_names_and_values() -> None:
    assert parse.assignments(recorded("timedatectl.txt"))["Timezone"] == "Etc/UTC"
    assert parse.assignments(recorded("os-release.txt"))["VERSION_ID"] == "12"


def test_nvidia_tools() -> None:
    assert parse.fields_of(recorded("modinfo-open.txt"))["license"] == "Dual MIT/GPL"
    assert parse.fields_of(recorded("modinfo-open.txt"))["version"] == "580.95.05"
    assert parse.cuda_release(recorded("nvcc-12.4.txt")) == "12.4"
    assert parse.cudnn_majors("\tlibcudnn.so.9 (libc6,x86-64) => /x\n\tlibcudnn_ops.so.9 (libc6) => /y\n") == {"9"}
    assert parse.gpu_uuids("GPU 0: NVIDIA GeForce RTX 5090 (UUID: GPU-0a-1b)\n  MIG 1g (UUID: MIG-1)\n") == (
        "GPU-0a-1b",
    )
    assert parse.csv_rows("0, Enabled\n\n1, Disabled\n") == [["0", "Enabled"], ["1", "Disabled"]]


def test_json() -> None:
    assert parse.mapping(recorded("docker-info.json"))["LiveRestoreEnabled"] is True
    assert parse.document(recorded("docker-bridge.json"))[0]["Name"] == "bridge"
    assert (parse.mapping("[1]"), parse.document("{"), parse.mapping("[" * 99999)) == ({}, None, {})


READERS: tuple[Callable[[str], Any], ...] = (
    parse.assignments,
    parse.sshd_settings,
    parse.ssh_methods,
    parse.ufw_status,
    lambda text: [parse.closes(parse.iptables_rules(text), name) for name in parse.iptables_rules(text).chains],
    parse.jail_counts,
    lambda text: [parse.apt_true(values) for values in parse.apt_settings(text).values()],
    parse.document,
    parse.mapping,
    parse.fields_of,
    parse.cuda_release,
    parse.cudnn_majors,
    parse.gpu_uuids,
    parse.csv_rows,
    parse_module,
    parse_toolkit_version,
    version_of,
)
WORDS = st.sampled_from(
    [
        "-P",
        "-A",
        "-N",
        "-j",
        "INPUT",
        "DROP",
        "A",
        "ALLOW IN",
        "Anywhere",
        "(v6)",
        "  ",
        "\n",
        "Status:",
        "Default:",
        '"',
        "::",
        "Permission denied (",
        ")",
        "UUID: GPU-",
        "release ",
        "libcudnn.so.",
        "NVRM version:",
        "Kernel Module",
        "1.2",
        "{",
        "[",
    ]
)
TEXTS = st.one_of(
    st.text(),
    st.text(alphabet=string.printable),
    st.lists(WORDS).map(" ".join),
    st.sampled_from(
        ["sshd-T.txt", "ufw-rules.txt", "iptables-docker.txt", "fail2ban-sshd.txt", "apt-config.txt"]
    ).flatmap(lambda name: st.integers(0, len(recorded(name))).map(lambda end: recorded(name)[end // 2 : end])),
)


@given(TEXTS)
def test_any_text_is_read(text: str) -> None:
    for read in READERS:
        read(text)
