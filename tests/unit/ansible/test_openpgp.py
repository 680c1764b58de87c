"""The keys that are vendored, and the reader that holds them to their fingerprints."""

from __future__ import annotations

import base64
import importlib.util
from types import ModuleType

import pytest
from tests.unit.support import ROOT

ROLE = ROOT / "ansible/roles/nvidia_repository"


def plugin() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ansible_openpgp", ROLE / "filter_plugins/openpgp.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


openpgp = plugin()
BEGIN, END = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"


@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [
        ("nvidia-cuda.asc", "EB693B3035CD5710E231E123A4B469963BF863CC"),
        ("nvidia-container-toolkit.asc", "C95B321B61E88C1809C4F759DDCAE044F796ECB0"),
    ],
)
def test_the_vendored_keys_are_nvidias(name: str, fingerprint: str) -> None:
    text = (ROLE / "files" / name).read_text()
    assert openpgp.openpgp_fingerprints(text) == [fingerprint]
    # The roles name the same ones.
    defaults = "".join(path.read_text() for path in ROLE.parent.glob("*/defaults/main.yml"))
    assert f"fingerprint: {fingerprint}" in defaults


def test_two_keys_in_one_file_are_two() -> None:
    text = "".join(path.read_text() for path in sorted((ROLE / "files").glob("*.asc")))
    assert len(openpgp.openpgp_fingerprints(text)) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no armoured OpenPGP public key"),
        ("a page of HTML", "no armoured OpenPGP public key"),
        (f"{BEGIN}\n\nnot base64!\n{END}", "cannot be read"),
        (f"{BEGIN}\n\n{base64.b64encode(b'plain text').decode()}\n{END}", "not an OpenPGP packet"),
        (f"{BEGIN}\n\n{base64.b64encode(bytes([0xC6, 100, 4])).decode()}\n{END}", "cut off"),
        (f"{BEGIN}\n\n{base64.b64encode(bytes([0xC6, 2, 6, 0])).decode()}\n{END}", "not of version 4"),
        (f"{BEGIN}\n\n{base64.b64encode(bytes([0xC6, 224, 4])).decode()}\n{END}", "unknown length"),
        (f"{BEGIN}\n\n{base64.b64encode(bytes([0x9B, 4])).decode()}\n{END}", "unknown length"),
    ],
)
def test_what_is_no_key_is_said(text: str, words: str) -> None:
    with pytest.raises(openpgp.AnsibleFilterError, match=words):
        openpgp.openpgp_fingerprints(text)


def test_a_changed_byte_is_another_fingerprint() -> None:
    text = (ROLE / "files/nvidia-cuda.asc").read_text()
    body = text.split("\n\n", 1)[1]
    at = text.index(body) + 100
    changed = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
    assert openpgp.openpgp_fingerprints(changed) != openpgp.openpgp_fingerprints(text)
