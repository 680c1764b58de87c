"""Bad variables are refused before anything is changed. Asked of this machine, in check mode: nothing is ever written."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEY = "ssh-ed25519 " + "A" * 68
HASH = "$6$vaultcube$" + "a" * 86
GOOD = {"users_admin_authorized_keys": [KEY], "users_admin_password_hash": HASH, "ansible_become": False}
# Each is refused by itself, and they are told all at once: one run shows them.
VALUES = {
    "ssh_ciphers": (["3des-cbc"], "value of ssh_ciphers must be one or more of: aes256-gcm@openssh.com"),
    "ssh_macs": (["hmac-sha1"], "Got no match for: hmac-sha1"),
    "ssh_kex_algorithms": (["diffie-hellman-group1-sha1"], "Got no match for: diffie-hellman-group1-sha1"),
    "ssh_port": ("abc", "argument 'ssh_port' is of type str and we were unable to convert to int"),
    "nvidia_driver_branch": ("550", "value of nvidia_driver_branch must be one of: 580, 590, 595, 610, got: 550"),
    "nvidia_driver_modules": ("proprietary", "value of nvidia_driver_modules must be one of: open, closed"),
    "fail2ban_maxretry": ("often", "argument 'fail2ban_maxretry' is of type str and we were unable to convert to int"),
}
OTHERS: list[tuple[str, dict[str, Any], str]] = [
    ("no key", {"users_admin_authorized_keys": []}, "users_admin_authorized_keys is empty"),
    (
        "a private key",
        {"users_admin_authorized_keys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]},
        "users_admin_authorized_keys[0] is no public key",
    ),
    ("no password", {"users_admin_password_hash": ""}, "users_admin_password_hash is empty"),
    ("a password in words", {"users_admin_password_hash": "secret"}, "Never write the password itself"),
    ("an unknown name", {"ssh_prot": 22, "docker_deamon": {}}, "No role has a variable docker_deamon or ssh_prot"),
]


def play(folder: Path, variables: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run the checks of site.yml, and of its roles none: no role has this tag."""
    (folder / "variables.json").write_text(json.dumps({**GOOD, **variables}))
    argv = [str(ROOT / "scripts/ansible.sh"), "ansible-playbook", str(ROOT / "ansible/playbooks/site.yml")]
    argv += ["-i", str(ROOT / "ansible/inventories/local"), "-e", f"@{folder / 'variables.json'}", "--check"]
    # The pre-tasks of layer 1 carry its roles' tags; apt_cache is the one whose role does nothing by default.
    argv += ["--tags", "apt_cache", "--skip-tags", "snapshot,hardware_fact"]
    own = {"ANSIBLE_CACHE_PLUGIN_CONNECTION": str(folder / "facts"), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
    return subprocess.run(
        argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, **own}, check=False
    )


def refused(folder: Path, variables: dict[str, Any]) -> str:
    """Return the one line that says why; nothing was changed."""
    done = play(folder, variables)
    output = done.stdout + done.stderr
    assert done.returncode == 2, output
    assert "changed=0" in output
    (line,) = [line for line in output.splitlines() if line.startswith("[ERROR]: ")]
    return line


@pytest.mark.parametrize(("variables", "told"), [case[1:] for case in OTHERS], ids=[case[0] for case in OTHERS])
def test_a_bad_variable_is_refused_in_words(tmp_path: Path, variables: dict[str, Any], told: str) -> None:
    line = refused(tmp_path, variables)
    assert told in line
    assert "secret" not in line


def test_every_bad_value_is_told_at_once(tmp_path: Path) -> None:
    line = refused(tmp_path, {name: value for name, (value, _) in VALUES.items()})
    assert [told for _, told in VALUES.values() if told not in line] == []
    assert "Next: correct it in the inventory" in line


def test_good_variables_pass(tmp_path: Path) -> None:
    done = play(tmp_path, {"ssh_port": 2222, "nvidia_driver_branch": "590"})
    assert done.returncode == 0, done.stdout + done.stderr
