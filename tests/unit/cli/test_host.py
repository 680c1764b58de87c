"""vaultcube host: what is refused before anything is looked at, and what a verified image is told as."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.results.test_hostimage import published  # noqa: F401 - a fixture

from vaultcube.cli.main import dispatch
from vaultcube.errors import CheckoutNeededError, LoginKeyError, ResultsUnwritableError, TamperedImageError, UsageError
from vaultcube.report.hostimage import BuildProgress, duration
from vaultcube.stack import assets
from vaultcube.stack.hostimage import build
from vaultcube.stack.hostimage.stages import Stage

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGFkbWluaXN0cmF0b3JzIG93biBrZXkgb2YgdGhlIGltYWdl ada"


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    return [word for name in ("output", "work-dir", "cache-dir") for word in (f"--{name}", str(tmp_path / name))]


def test_a_base_must_be_known(folders: list[str]) -> None:
    with pytest.raises(UsageError, match="--base without --base-sha256"):
        dispatch(["host", "build", "--base", "x.img", *folders])


@pytest.mark.parametrize("version", ["", "../1", "1 0", "x" * 62])
def test_a_version_is_a_name(folders: list[str], version: str) -> None:
    with pytest.raises(UsageError, match="--image-version"):
        dispatch(["host", "build", "--image-version", version or "-", *folders])


def test_no_key_no_image(folders: list[str], tmp_path: Path) -> None:
    with pytest.raises(LoginKeyError, match="no public key was given"):
        dispatch(["host", "build", *folders])
    with pytest.raises(LoginKeyError, match="cannot be read"):
        dispatch(["host", "build", "--authorized-key", str(tmp_path / "none.pub"), *folders])
    (tmp_path / "empty.pub").write_text("# nobody\n\n")
    with pytest.raises(LoginKeyError, match="no public key was given"):
        dispatch(["host", "build", "--authorized-key", str(tmp_path / "empty.pub"), *folders])
    assert not (tmp_path / "output").exists()


def test_a_published_image_is_not_built_again(folders: list[str], tmp_path: Path) -> None:
    (tmp_path / "output/vault-cube-1.0.0").mkdir(parents=True)
    (tmp_path / "key.pub").write_text(KEY + "\n")
    with pytest.raises(ResultsUnwritableError, match="is there already") as caught:
        dispatch(["host", "build", "--authorized-key", str(tmp_path / "key.pub"), "--image-version", "1.0.0", *folders])
    assert "--image-version" in caught.value.next_step


def test_without_a_checkout_there_is_nothing_to_build_from(
    folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an installed wheel finds itself."""
    monkeypatch.setattr(assets, "CHECKOUT", tmp_path)
    monkeypatch.setattr(build, "checkout", assets.checkout)
    (tmp_path / "key.pub").write_text(KEY + "\n")
    with pytest.raises(CheckoutNeededError):
        dispatch(["host", "build", "--authorized-key", str(tmp_path / "key.pub"), *folders])


def test_an_image_that_is_whole_is_told_with_its_sign_off(
    published: Path,  # noqa: F811 - the fixture
    capsys: pytest.CaptureFixture[str],
) -> None:
    dispatch(["host", "verify", str(published)])
    told = capsys.readouterr().out
    assert "whole; 4 files are as they were published" in told
    assert "signed off: 2 boots, hygiene clean: 14 checks, health 1 of 1 PASS, 3 tests" in told
    dispatch(["host", "verify", str(published), "--json"])
    assert json.loads(capsys.readouterr().out)["schema"] == "vaultcube.hostimage/1"


def test_an_image_that_was_changed_is_not(published: Path) -> None:  # noqa: F811 - the fixture
    with (published / "vault-cube-1.0.0.qcow2").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(TamperedImageError):
        dispatch(["host", "verify", str(published)])


def test_progress_tells_stages_and_times(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as stream:
        shown = BuildProgress(stream)
        shown.begins(Stage.BUILD, "the cloud image boots once")
        shown.note("booting\nit answers")
        shown.done(Stage.BUILD, 75.4)
    assert log.read_text() == (
        "[2/5] build: the cloud image boots once\n      booting\n      it answers\n[2/5] build: passed after 1 min 15 s\n"
    )
    assert [duration(seconds) for seconds in (0.4, 59.6, 3599.6)] == ["0 s", "1 min 00 s", "60 min 00 s"]
