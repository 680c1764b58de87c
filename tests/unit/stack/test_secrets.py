from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultcube.errors import ResultsUnwritableError, UsageError
from vaultcube.stack.secrets import (
    API_KEY,
    HF_TOKEN,
    forget_secrets,
    hub_token,
    keep_secrets,
    read_secret,
    secrets_folder,
)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def test_a_file_comes_before_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("  from-file\n")
    assert read_secret("--key", file, "from-environment") == "from-file"
    assert read_secret("--key", None, " from-environment ") == "from-environment"
    assert read_secret("--key", None, None) is None
    assert read_secret("--key", None, "") is None


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"a\nb", b"caf\xc3\xa9", b"\xff\xfe", b"x" * 5000])
def test_a_file_that_holds_no_secret_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(UsageError) as seen:
        read_secret("--key", file, None)
    assert "two words" not in str(seen.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--key .*No such file"):
        read_secret("--key", tmp_path / "nonsuch", None)


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_any_word_of_ascii_is_a_secret(word: str) -> None:
    assert read_secret("--key", None, word) == word


def test_kept_for_their_user_alone_and_forgotten() -> None:
    keep_secrets("run-1", {HF_TOKEN: "hf_x", API_KEY: "sk-y"}, (os.getuid(), os.getgid()))
    folder = secrets_folder("run-1")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {(one.name, one.stat().st_mode & 0o777, one.read_text()) for one in folder.iterdir()} == {
        (HF_TOKEN, 0o600, "hf_x\n"),
        (API_KEY, 0o600, "sk-y\n"),
    }
    forget_secrets("run-1")
    forget_secrets("run-1")
    assert not folder.exists()


def test_without_secrets_nothing_is_made() -> None:
    keep_secrets("run-1", {}, (0, 0))
    assert not secrets_folder("run-1").parent.exists()


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(blocked))
    with pytest.raises(ResultsUnwritableError, match="cannot write") as seen:
        keep_secrets("run-1", {API_KEY: "sk-y"}, (0, 0))
    assert "XDG_DATA_HOME" in seen.value.next_step
    assert "sk-y" not in str(seen.value)


def test_the_token_that_the_hubs_command_line_keeps(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_kept\n")
    assert hub_token({"HF_HOME": str(tmp_path)}) == "hf_kept"
    assert hub_token({"HF_TOKEN_PATH": str(tmp_path / "token")}) == "hf_kept"
    assert hub_token({"HF_HOME": str(tmp_path / "nonsuch")}) is None
