"""The playbooks as they stand in this checkout: they parse for every inventory, and name what they use."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import yaml
from tests.host.machine import ROOT

ANSIBLE = ROOT / "ansible"
PLAYBOOKS = sorted(ANSIBLE.glob("playbooks/*.yml"))


def tool(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "scripts/ansible.sh"), *argv], capture_output=True, text=True, check=False, timeout=240
    )


@pytest.mark.parametrize("inventory", ["local", "box", "build"])
def test_every_playbook_parses(inventory: str) -> None:
    seen = tool(
        "ansible-playbook", "--syntax-check", "-i", str(ANSIBLE / "inventories" / inventory), *map(str, PLAYBOOKS)
    )
    assert seen.returncode == 0, seen.stdout + seen.stderr


def test_collections_are_those_of_the_bundle() -> None:
    pinned = {
        one["name"]: one["version"] for one in yaml.safe_load((ANSIBLE / "requirements.yml").read_text())["collections"]
    }
    listed = json.loads(tool("ansible-galaxy", "collection", "list", "--format", "json").stdout)
    bundled = {name: one["version"] for place in listed.values() for name, one in place.items()}
    assert {name: bundled[name] for name in pinned} == pinned
    tasks = [*PLAYBOOKS, *ANSIBLE.glob("roles/*/tasks/*.yml"), *ANSIBLE.glob("roles/*/handlers/*.yml")]
    text = "\n".join(path.read_text() for path in tasks)
    used = set(re.findall(r"^\s*(?:- )?([a-z]+\.[a-z]+)\.[a-z0-9_]+:", text, flags=re.MULTILINE)) - {"ansible.builtin"}
    assert used == set(pinned)


def test_every_role_has_a_tag_of_its_name() -> None:
    seen = tool(
        "ansible-playbook", "--list-tags", "-i", str(ANSIBLE / "inventories/local"), str(ANSIBLE / "playbooks/site.yml")
    )
    tags = {tag for line in re.findall(r"TASK TAGS: \[(.*)\]", seen.stdout) for tag in line.split(", ")}
    assert {"layer1", "layer2", "layer3"} <= tags
    # Called by other roles, or by playbooks of their own.
    assert {path.parent.parent.name for path in ANSIBLE.glob("roles/*/tasks/main.yml")} - tags <= {
        "nvidia_repository",
        "snapshot",
        "vaultcube",
    }


@pytest.mark.parametrize(
    ("inventory", "phase"), [("local", False), ("box", False), ("build", True)], ids=["local", "box", "build"]
)
def test_only_the_build_inventory_puts_off_what_needs_a_gpu(inventory: str, phase: object) -> None:
    seen = tool("ansible-inventory", "-i", str(ANSIBLE / "inventories" / inventory), "--list")
    (host,) = json.loads(seen.stdout)["_meta"]["hostvars"].values()
    assert host["image_build_phase"] is phase
