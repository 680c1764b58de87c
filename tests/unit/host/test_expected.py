from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultcube.errors import UsageError
from vaultcube.host.expected import Expected, User, load_expected, parse_expected


def test_without_the_file_the_documents_values_count(tmp_path: Path) -> None:
    assert load_expected(tmp_path / "host.json") == (Expected(), False)


def test_what_the_file_leaves_out_has_its_default(tmp_path: Path) -> None:
    path = tmp_path / "host.json"
    path.write_text(
        json.dumps({"schema": "vaultcube.host/1", "user": {"name": "ada"}, "ssh": {"settings": {"a": "b"}}})
    )
    found, told = load_expected(path)
    assert told
    assert found.user == User(name="ada")
    assert (found.ssh.port, found.ssh.settings) == (22, {"a": "b"})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Expecting property name"),
        ("[]", "it is no document of vaultcube.host/1"),
        ('{"schema": "vaultcube.host/2"}', "it is no document of vaultcube.host/1"),
        ('{"sshd": {}}', "there is no entry 'sshd'"),
        ('{"ssh": {"prot": 22}}', "there is no entry ssh.'prot'"),
        ('{"ssh": {"port": "22"}}', "ssh.port is not of the right kind: '22'"),
        ('{"ssh": {"port": true}}', "ssh.port is not of the right kind: 'True'"),
        ('{"ssh": 22}', "ssh is no object"),
        ('{"layers": "1"}', "layers is not of the right kind: '1'"),
        ('{"layers": ["1"]}', "layers is not of the right kind: '1'"),
        ('{"ssh": {"settings": {"a": 1}}}', "ssh.settings is not of the right kind: '1'"),
    ],
)
def test_a_slip_in_the_file_is_told_by_name(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "host.json"
    path.write_text(text)
    with pytest.raises(UsageError) as seen:
        load_expected(path)
    assert seen.value.message.startswith(f"{path}: {why}")
    assert "--tags health" in seen.value.next_step


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "host.json").mkdir()
    with pytest.raises(UsageError, match="Is a directory"):
        load_expected(tmp_path / "host.json")
    (tmp_path / "latin.json").write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"latin\.json: 'utf-8'"):
        load_expected(tmp_path / "latin.json")


KEYS = st.sampled_from(["schema", "ssh", "port", "layers", "user", "settings", "docker", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.text() | JSON.map(json.dumps))
def test_any_text_is_a_document_or_told_as_none(text: str) -> None:
    try:
        assert isinstance(parse_expected(text), Expected)
    except (ValueError, RecursionError):
        return
