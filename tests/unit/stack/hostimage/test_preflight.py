"""What is refused before a machine is booted."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from vaultcube.errors import BaseChecksumError, LoginKeyError, UsageError
from vaultcube.stack.hostimage import preflight
from vaultcube.stack.hostimage.guest import Hardware, console_end
from vaultcube.stack.hostimage.packer import Packer, boot_limit, read_variables
from vaultcube.stack.hostimage.stages import Options, Stage
from vaultcube.stack.signals import Stop

ROOT = Path(__file__).parents[4]


def options(folder: Path) -> Options:
    return Options(
        name="vault-cube",
        version="1.0.0",
        source="https://example.org/image.img",
        source_sha256="a" * 64,
        output=folder / "out",
        work=folder,
        cache=folder / "cache",
        accelerator="tcg",
        disk_gb=10,
        memory_mb=2048,
        cpus=2,
        layers=(1,),
        keys=(),
    )


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ada", "-f", str(path)], check=True)
    return path


def test_public_keys_are_taken_by_their_fingerprints(tmp_path: Path, key: Path) -> None:
    public = key.with_suffix(".pub").read_text().strip()
    told = subprocess.run(["ssh-keygen", "-l", "-f", str(key)], capture_output=True, text=True, check=True).stdout
    with Stop() as stop:
        assert preflight.check_keys(replace(options(tmp_path), keys=(public,)), stop) == [told.split()[1]]


def test_without_a_key_nobody_could_log_in(tmp_path: Path) -> None:
    with pytest.raises(LoginKeyError) as caught:
        preflight.check_given(options(tmp_path))
    assert "--authorized-key" in caught.value.next_step


def test_a_private_key_is_no_public_one_and_is_not_told(tmp_path: Path, key: Path) -> None:
    for text in (key.read_text(), key.read_text().splitlines()[1], "ssh-ed25519 nonsense"):
        with Stop() as stop, pytest.raises(LoginKeyError) as caught:
            preflight.check_keys(replace(options(tmp_path), keys=(text,)), stop)
        assert len(caught.value.message) < 120
    assert not (tmp_path / "asked.pub").exists()


def test_a_cloud_image_must_be_the_one_that_is_pinned(tmp_path: Path) -> None:
    image = tmp_path / "image.img"
    image.write_bytes(b"disk")
    digest = hashlib.sha256(b"disk").hexdigest()
    asked = replace(options(tmp_path), keys=("key",))
    preflight.check_given(replace(asked, source=str(image), source_sha256=digest))
    with pytest.raises(BaseChecksumError, match=digest):
        preflight.check_given(replace(asked, source=str(image)))
    with pytest.raises(UsageError, match="there is no such file"):
        preflight.check_given(replace(asked, source=str(tmp_path / "none")))
    for wrong in ("", "A" * 64, "a" * 63, "sha256:" + "a" * 57):
        with pytest.raises(UsageError, match="is no SHA-256"):
            preflight.check_given(replace(asked, source_sha256=wrong))
    # One on the network is Packer's to fetch and to check.
    preflight.check_given(asked)


def test_every_variable_of_the_template_is_given(tmp_path: Path) -> None:
    hardware = Hardware("tcg", 2048, 2)
    with Stop() as stop:
        argv = Packer(ROOT, options(tmp_path), hardware, stop).argv(["validate"], Stage.BUILD, "x", "a" * 64)
    given = {argv[at + 1].partition("=")[0] for at, word in enumerate(argv) if word == "-var"}
    text = (ROOT / "packer/variables.pkr.hcl").read_text()
    declared = {line.split('"')[1] for line in text.splitlines() if line.startswith("variable ")}
    assert given | {"qemu_binary"} == declared


def test_the_roles_are_told_who_logs_in_and_no_password_unless_one_is_given(tmp_path: Path) -> None:
    asked = replace(options(tmp_path), keys=("ssh-ed25519 AAAA ada",))
    hardware = Hardware("kvm", 2048, 2)
    with Stop() as stop:
        told = Packer(ROOT, asked, hardware, stop).variables(tmp_path)
        assert told["users_admin_authorized_keys"] == ["ssh-ed25519 AAAA ada"]
        assert (told["image_build_phase"], told["users_admin_without_password"]) == (True, True)
        file = tmp_path / "variables.json"
        file.write_text('{"users_admin_password_hash": "$y$x", "common_timezone": "Europe/Berlin"}')
        told = Packer(ROOT, replace(asked, variables=file), hardware, stop).variables(tmp_path)
        assert "users_admin_without_password" not in told
        assert told["common_timezone"] == "Europe/Berlin"


@pytest.mark.parametrize("text", ["{", "[]", "3", "\xff"])
def test_variables_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "variables.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match="--variables"):
        read_variables(file)


def test_emulated_machines_get_more_time(tmp_path: Path) -> None:
    asked = options(tmp_path)
    assert boot_limit(asked, Hardware("tcg", 1, 1)) > boot_limit(asked, Hardware("kvm", 1, 1))
    assert boot_limit(replace(asked, boot_limit_s=7), Hardware("tcg", 1, 1)) == 7


def test_a_console_is_told_by_its_last_lines_without_what_moves_a_cursor(tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    assert console_end(console) == "  (its console said nothing)"
    console.write_bytes(b"first\r\n" + b"line\n" * 30 + b"\x1b[0;32m  OK  \x1b[0m Started\xff it.\r\n\n")
    lines = console_end(console).splitlines()
    assert len(lines) == 15
    assert "\x1b" not in lines[-1]
    assert lines[-1].endswith("it.")
