"""The seed for installations from a USB stick: the documents' partitions, no way in by default, a guard that works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
USER_DATA = ROOT / "packer/autoinstall/user-data"
CHECK = ROOT / "scripts/autoinstall_check.py"


@pytest.fixture(scope="module")
def seed() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(USER_DATA.read_text())["autoinstall"]
    return found


def test_cloud_init_takes_it_for_its_own() -> None:
    assert USER_DATA.read_text().startswith("#cloud-config\n")
    # NoCloud wants both files, and the second may be empty.
    assert (USER_DATA.parent / "meta-data").exists()


def test_the_partitions_are_those_of_the_documents(seed: dict[str, Any]) -> None:
    actions = {one["id"]: one for one in seed["storage"]["config"]}
    mounts = {one["path"]: actions[one["device"]] for one in actions.values() if one["type"] == "mount" and one["path"]}
    sizes = {path: actions[format_["volume"]]["size"] for path, format_ in mounts.items()}
    assert sizes == {"/": "40G", "/boot": "1G", "/boot/efi": "1G", "/home": -1}
    assert [(one["size"], one["flag"]) for one in actions.values() if one.get("flag") == "swap"] == [("8G", "swap")]
    assert {one["fstype"] for one in actions.values() if one["type"] == "format"} == {"ext4", "fat32", "swap"}
    # The one that takes the rest is the last on the disk; no swap file is made beside the partition.
    assert max(one["number"] for one in actions.values() if "number" in one) == actions["home"]["number"]
    assert seed["storage"]["swap"] == {"size": 0}


def test_every_action_names_one_before_it(seed: dict[str, Any]) -> None:
    seen: set[str] = set()
    for one in seed["storage"]["config"]:
        for key in ("device", "volume"):
            assert key not in one or one[key] in seen
        seen.add(one["id"])


def test_no_password_and_no_key_is_in_it(seed: dict[str, Any]) -> None:
    (user,) = seed["user-data"]["users"]
    assert "identity" not in seed
    assert seed["ssh"]["allow-pw"] is False
    assert seed["user-data"]["ssh_pwauth"] is False
    assert "NOPASSWD" not in USER_DATA.read_text()
    assert user["passwd"] == "REPLACE-WITH-A-PASSWORD-HASH"  # noqa: S105 - that none is there
    assert user["ssh_authorized_keys"] == ["REPLACE-WITH-A-PUBLIC-KEY"]


def guard(seed: dict[str, Any], file: Path) -> int:
    (command,) = seed["early-commands"]
    return subprocess.run(["sh", "-c", command.replace("/autoinstall.yaml", str(file))], check=False).returncode


def test_the_installer_stops_while_something_is_to_be_replaced(seed: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "autoinstall.yaml"
    text = USER_DATA.read_text()
    # The installer's copy is written from what it read: comments are gone, the guard is in it.
    told = yaml.safe_load(text)["autoinstall"]
    file.write_text(yaml.safe_dump(told))
    assert guard(seed, file) != 0
    file.write_text(yaml.safe_dump(told).replace("REPLACE-WITH-A-PUBLIC-KEY", "ssh-ed25519 AAAA"))
    assert guard(seed, file) != 0
    whole = yaml.safe_dump(told).replace("REPLACE-WITH-A-PUBLIC-KEY", "ssh-ed25519 AAAA")
    file.write_text(whole.replace("REPLACE-WITH-A-PASSWORD-HASH", "$y$j9T$x"))
    assert guard(seed, file) == 0


def check(schema: object, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema))
    return subprocess.run([sys.executable, str(CHECK), str(path)], capture_output=True, text=True, check=False)


def test_the_check_tells_what_a_schema_does_not_allow(tmp_path: Path) -> None:
    allows = {"type": "object", "properties": {"version": {"type": "integer"}, "locale": {"type": "string"}}}
    assert check(allows, tmp_path).stdout == "valid\n"
    done = check({"type": "object", "properties": {"locale": {"type": "integer"}}}, tmp_path)
    assert (done.returncode, done.stdout) == (1, "$.locale: 'en_US.UTF-8' is not of type 'integer'\n")
