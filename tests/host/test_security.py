"""What outside judges say of the provisioned machine. docs/security.md has the figures, before and after."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.host.audit import lynis, parse_lynis, parse_ssh_audit, replace, ssh_audit
from tests.host.conftest import Provisioned
from tests.host.machine import ROOT

pytestmark = [pytest.mark.docker, pytest.mark.timeout(3000)]


def test_ssh_audit_fails_nothing(provisioned: Provisioned) -> None:
    found = ssh_audit(provisioned.machine)
    assert found.fail == []


@pytest.mark.long
def test_lynis_gives_more_than_75(provisioned: Provisioned) -> None:
    found = lynis(provisioned.machine)
    assert found.index > 75, found.suggestions
    assert found.warnings == []


def test_containers_and_gpus_keep_what_they_need(provisioned: Provisioned) -> None:
    machine = provisioned.machine
    assert machine.run("cat /proc/sys/net/ipv4/ip_forward").strip() == "1"
    # Read from the files: the kernel is not the machine's.
    written = machine.run("cat /etc/sysctl.d/*.conf /usr/lib/sysctl.d/*.conf")
    assert not re.search(r"ptrace_scope *= *[23]|ip_forward *= *0|user\.max_user_namespaces *= *0", written)
    assert "99999" in machine.run("grep '^PASS_MAX_DAYS' /etc/login.defs")
    assert machine.run("chage --list vaultadmin | grep '^Password expires'").split(":")[1].strip() == "never"


def test_the_document_has_figures() -> None:
    text = (ROOT / "docs/security.md").read_text()
    row = re.search(r"\| Lynis [\d.]+: hardening index \| (\d+) \| (\d+) \|", text)
    assert row, "run: make security"
    assert int(row[1]) < int(row[2])
    assert int(row[2]) > 75


REPORT = """\
# Lynis Report
lynis_version=3.0.8
hardening_index=59
lynis_tests_done=250
warning[]=NETW-2705|Couldn't find 2 responsive nameservers|-|-|
suggestion[]=SSH-7408|Consider hardening SSH configuration|AllowTcpForwarding (set YES to NO)|-|
suggestion[]=SSH-7408|Consider hardening SSH configuration|MaxAuthTries (set 6 to 3)|-|
"""


def test_a_report_of_lynis_is_read() -> None:
    found = parse_lynis(REPORT)
    assert (found.version, found.index, found.tests) == ("3.0.8", 59, 250)
    assert found.warnings == ["NETW-2705 Couldn't find 2 responsive nameservers"]
    assert found.suggestions == ["SSH-7408 Consider hardening SSH configuration"]


def test_a_document_of_ssh_audit_is_read() -> None:
    notes = '{"notes": {"fail": ["broken"], "warn": ["weak"], "info": ["old"]}, "algorithm": "a"}'
    text = f'{{"banner": {{"software": "OpenSSH_9.2p1"}}, "kex": [{notes}], "key": [], "enc": [], "mac": [{notes}]}}'
    found = parse_ssh_audit(text, "3.9.0")
    assert (found.fail, found.warn) == (["kex a: broken", "mac a: broken"], ["kex a: weak", "mac a: weak"])


def test_figures_go_between_their_marks(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- a -->\nold\n<!-- /a -->\nafter\n")
    replace(path, "a", ["new"])
    assert path.read_text() == "before\n<!-- a -->\nnew\n<!-- /a -->\nafter\n"
    with pytest.raises(ValueError, match="no <!-- b -->"):
        replace(path, "b", [])
