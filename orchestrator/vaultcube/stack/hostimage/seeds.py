"""NoCloud seeds: what a virtual machine is told at its first boot, with a key that was made for it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from vaultcube.stack.hostimage.tools import checked, iso_maker
from vaultcube.stack.process import run
from vaultcube.stack.signals import Stop

BUILD_USER: Final = "builder"
# Not 1000: that is the administrator's, and the role users refuses to share it.
BUILD_UID: Final = 2000


def make_key(folder: Path, stop: Stop) -> Path:
    """Make an ed25519 key without a passphrase in a folder of ours, and return the path of its private half."""
    key = folder / "key"
    key.unlink(missing_ok=True)
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vaultcube-host-build", "-f", str(key)]
    checked(argv, "making a key", timeout=30, stop=stop)
    return key


def public_half(key: Path) -> str:
    """Return the public half of a key."""
    return key.with_name(key.name + ".pub").read_text(encoding="utf-8").strip()


def build_user_data(public_key: str) -> str:
    """Return the user-data of the machine that builds: one user, one key, no password."""
    user = {
        "name": BUILD_USER,
        "uid": BUILD_UID,
        "gecos": "removed at the end of the build",
        "shell": "/bin/bash",
        "lock_passwd": True,
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "ssh_authorized_keys": [public_key],
    }
    return _cloud_config({"users": [user], "ssh_pwauth": False, "disable_root": True})


def sign_off_user_data(admin: str, public_key: str, password_hash: str) -> str:
    """Return the user-data that somebody who starts a box from the image would write: a key and a password for sudo."""
    user = {
        "name": admin,
        "lock_passwd": False,
        "hashed_passwd": password_hash,
        "ssh_authorized_keys": [public_key],
    }
    return _cloud_config({"users": [user]})


def _cloud_config(content: Mapping[str, Any]) -> str:
    # JSON is YAML, and needs no library to be quoted right.
    return "#cloud-config\n" + json.dumps(content, indent=2) + "\n"


def write_seed(folder: Path, user_data: str, host: str) -> None:
    """Write a seed's files. Each has an instance-id of its own, so that cloud-init takes it for a first boot."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "user-data").write_text(user_data, encoding="utf-8")
    meta = f"instance-id: {host}-{secrets.token_hex(6)}\nlocal-hostname: {host}\n"
    (folder / "meta-data").write_text(meta, encoding="utf-8")


def make_iso(folder: Path, target: Path, stop: Stop) -> None:
    """Make the disk that cloud-init looks for, of a seed's files."""
    maker = iso_maker() or "xorriso"
    argv = {
        "xorriso": ["xorriso", "-as", "mkisofs"],
        "hdiutil": ["hdiutil", "makehybrid", "-iso", "-joliet", "-default-volume-name", "cidata", "-o", str(target)],
    }.get(maker, [maker])
    if maker == "hdiutil":
        argv = [*argv, str(folder)]
    else:
        argv = [*argv, "-quiet", "-output", str(target), "-volid", "cidata", "-joliet", "-rock", str(folder)]
    checked(argv, "making a seed", timeout=60, stop=stop)


def write_private(path: Path, text: str) -> None:
    """Write a file that only we may read, from its first byte on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)


def fingerprint(public_key: str, folder: Path, stop: Stop) -> str | None:
    """Return the SHA-256 fingerprint of a public key, as ssh-keygen says it; None when it is no public key."""
    path = folder / "asked.pub"
    path.write_text(public_key + "\n", encoding="utf-8")
    done = run(["ssh-keygen", "-l", "-f", str(path)], timeout=30, stop=stop)
    path.unlink()
    words = done.stdout.split()
    return words[1] if done.ok and len(words) > 1 else None
