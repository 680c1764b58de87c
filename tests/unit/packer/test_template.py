"""The Packer template, read by an HCL parser: only what Packer 1.6.6 and current ones have in common."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import hcl2
import pytest

from vaultcube.stack.hostimage.stages import UBUNTU, UBUNTU_SHA256

PACKER = Path(__file__).parents[3] / "packer"
# Documented for the qemu builder of Packer 1.6.6 and of the plugin's 1.1, with the same meaning.
BUILDER = {
    *("iso_url", "iso_checksum", "disk_image", "disk_size", "format", "vm_name", "output_directory", "skip_compaction"),
    *("qemu_binary", "accelerator", "memory", "cpus", "headless", "net_device", "disk_interface", "disk_discard"),
    *("qemuargs", "cd_files", "cd_label", "communicator", "ssh_username", "ssh_private_key_file", "ssh_timeout"),
    *("ssh_handshake_attempts", "host_port_min", "host_port_max", "boot_wait", "shutdown_command", "shutdown_timeout"),
}


def read(name: str) -> dict[str, Any]:
    with (PACKER / name).open() as stream:
        found: dict[str, Any] = hcl2.load(stream)
    return found


def plain(value: object) -> str:
    """Return a text as it is: some versions of the parser leave its quotes."""
    return str(value).strip('"')


def sources() -> dict[str, dict[str, Any]]:
    found = {}
    for block in read("vaultcube.pkr.hcl")["source"]:
        ((kind, named),) = ((key, value) for key, value in block.items() if not key.startswith("__"))
        assert plain(kind) == "qemu"
        ((name, body),) = ((key, value) for key, value in named.items() if not key.startswith("__"))
        found[plain(name)] = {key: value for key, value in body.items() if not key.startswith("__")}
    return found


def variables() -> dict[str, dict[str, Any]]:
    return {plain(name): body for block in read("variables.pkr.hcl")["variable"] for name, body in block.items()}


def test_builders_use_what_both_have() -> None:
    assert set(sources()) == {"base", "image"}
    for body in sources().values():
        assert set(body) <= BUILDER


def test_both_builds_have_the_same_machine() -> None:
    base, image = sources().values()
    different = {key for key in base.keys() | image.keys() if base.get(key) != image.get(key)}
    assert different == {"shutdown_command"}


@pytest.mark.parametrize("name", ["vaultcube.pkr.hcl", "variables.pkr.hcl"])
def test_nothing_that_is_only_in_newer_ones(name: str) -> None:
    text = re.sub(r"//.*", "", (PACKER / name).read_text())
    for word in ("required_plugins", "required_version", "cd_content", "efi_boot", "use_backing_file", "data "):
        assert word not in text


def test_plugins_are_asked_for_in_a_folder_of_their_own() -> None:
    (block,) = read("plugins/plugins.pkr.hcl")["packer"]
    wanted = {plain(key) for plugins in block["required_plugins"] for key in plugins if not key.startswith("__")}
    assert wanted == {"qemu", "ansible"}


def test_every_variable_is_used_described_and_known() -> None:
    text = (PACKER / "vaultcube.pkr.hcl").read_text()
    for name, body in variables().items():
        assert f"var.{name}" in text
        assert body["description"]
    assert set(re.findall(r"var\.(\w+)", text)) == set(variables())


def test_the_pinned_image_is_the_one_that_the_command_pins() -> None:
    told = variables()
    assert plain(told["source_image"]["default"]) == UBUNTU
    assert plain(told["source_sha256"]["default"]) == UBUNTU_SHA256
    assert re.search(r"/release-\d{8}/", UBUNTU), "a dated image, not the current one"


def test_no_password_is_in_the_template() -> None:
    for path in PACKER.rglob("*.hcl"):
        assert "ssh_password" not in path.read_text()
