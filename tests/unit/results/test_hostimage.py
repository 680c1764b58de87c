"""The manifest of a host image, and the check that finds every change of what was published."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from vaultcube.errors import NotFoundError, TamperedImageError
from vaultcube.results.hostimage import (
    File,
    Manifest,
    Package,
    Revision,
    SignOff,
    Source,
    StageTime,
    System,
    parse_os_release,
    parse_packages,
    read_sums,
    sha256_of,
    sums,
    verify,
    version_of,
)

PACKAGES = "ii \tbash\t5.2.15-2+b7\tamd64\nrc \told\t1\tamd64\nii \tlibc6\t2:2.36-9\tamd64\n"


def file(path: Path) -> File:
    return File(name=path.name, sha256=sha256_of(path), size_bytes=path.stat().st_size)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Return a folder with everything that a build publishes; the image is a few bytes."""
    folder = tmp_path / "vault-cube-1.0.0"
    folder.mkdir()
    for name, text in (("vault-cube-1.0.0.qcow2", "QFI\xfb disk"), ("sbom.cdx.json", "{}"), ("packer.log", "log\n")):
        (folder / name).write_text(text)
    manifest = Manifest(
        name="vault-cube",
        version="1.0.0",
        built=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        vaultcube="0.1.0",
        revision=Revision(commit="abc", dirty=False),
        source=Source(image="noble.img", sha256="0" * 64),
        layers=[1],
        os=System(id="ubuntu", version="24.04", name="Ubuntu 24.04.3 LTS"),
        kernel="6.8.0-45-generic",
        driver=None,
        cuda=None,
        login_keys=["SHA256:x"],
        emulated=False,
        tools={"packer": "1.11.2"},
        stages=[StageTime(name="build", seconds=12.5)],
        sign_off=SignOff(boots=2, hygiene="clean: 14 checks", health={"sshd": "PASS"}, tests=3),
        image=file(folder / "vault-cube-1.0.0.qcow2"),
        files=[file(folder / "sbom.cdx.json"), file(folder / "packer.log")],
        packages=parse_packages(PACKAGES),
    )
    (folder / "manifest.json").write_text(manifest.to_json())
    rewrite_sums(folder)
    return folder


def rewrite_sums(folder: Path) -> None:
    names = {one.name: sha256_of(one) for one in folder.iterdir() if one.name != "SHA256SUMS"}
    (folder / "SHA256SUMS").write_text(sums(names))


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    told = json.loads((folder / "manifest.json").read_text())
    edit(told)
    (folder / "manifest.json").write_text(json.dumps(told))


def test_what_was_published_is_whole_by_folder_and_by_file(published: Path) -> None:
    for path in (published, published / "vault-cube-1.0.0.qcow2"):
        found = verify(path)
        assert found.manifest.kernel == "6.8.0-45-generic"
        assert found.checked == ["vault-cube-1.0.0.qcow2", "sbom.cdx.json", "packer.log", "manifest.json"]


def test_sha256sum_reads_the_sums(published: Path) -> None:
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=published, capture_output=True, check=False
    )
    assert done.returncode == 0


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


TAMPERING: dict[str, tuple[Callable[[Path], object], str]] = {
    "one bit of the image": (lambda at: flip(at / "vault-cube-1.0.0.qcow2"), "vault-cube-1.0.0.qcow2 has the SHA-256"),
    "a truncated image": (
        lambda at: (at / "vault-cube-1.0.0.qcow2").write_text("QFI"),
        "vault-cube-1.0.0.qcow2 has 3 bytes, and was published with 10",
    ),
    "no image": (lambda at: (at / "vault-cube-1.0.0.qcow2").unlink(), "vault-cube-1.0.0.qcow2 is missing"),
    "a list of materials": (lambda at: (at / "sbom.cdx.json").write_text("[]"), "sbom.cdx.json has the SHA-256"),
    "no log": (lambda at: (at / "packer.log").unlink(), "packer.log is missing"),
    "no manifest": (lambda at: (at / "manifest.json").unlink(), "there is no manifest.json"),
    "a manifest that is none": (lambda at: (at / "manifest.json").write_text("{"), "is no manifest: the document"),
    "a manifest without packages": (
        lambda at: change(at, lambda told: told.update(packages=[])),
        "is no manifest: packages",
    ),
    "another version in the manifest": (
        lambda at: change(at, lambda told: told.update(version="2.0.0")),
        "SHA256SUMS and manifest.json do not agree about manifest.json",
    ),
    "a path in the manifest": (
        lambda at: change(at, lambda told: told["image"].update(name="../other.qcow2")),
        "is no manifest: image.name",
    ),
    "no sums": (lambda at: (at / "SHA256SUMS").unlink(), "there is no SHA256SUMS"),
    "a sum less": (
        lambda at: (at / "SHA256SUMS").write_text(
            "".join((at / "SHA256SUMS").read_text().splitlines(keepends=True)[1:])
        ),
        "do not agree about",
    ),
    "a sum more": (
        lambda at: (at / "SHA256SUMS").write_text((at / "SHA256SUMS").read_text() + f"{'0' * 64}  more\n"),
        "do not agree about more",
    ),
    "sums that are none": (lambda at: (at / "SHA256SUMS").write_bytes(b"\xff\xfe"), "is no list of sums"),
}


@pytest.mark.parametrize(("tamper", "words"), TAMPERING.values(), ids=TAMPERING)
def test_every_change_is_found(published: Path, tamper: Callable[[Path], object], words: str) -> None:
    tamper(published)
    with pytest.raises(TamperedImageError) as caught:
        verify(published)
    assert words in caught.value.message


def test_an_image_under_another_name_is_not_that_of_the_manifest(published: Path) -> None:
    (published / "other.qcow2").write_text("x")
    with pytest.raises(TamperedImageError, match=r"other.qcow2 is not the image of .*: that is vault-cube-1.0.0.qcow2"):
        verify(published / "other.qcow2")


def test_no_file_is_no_tampering(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        verify(tmp_path / "none.qcow2")


def test_installed_packages_are_read_and_removed_ones_are_not() -> None:
    assert parse_packages(PACKAGES) == [
        Package(name="bash", version="5.2.15-2+b7", architecture="amd64"),
        Package(name="libc6", version="2:2.36-9", architecture="amd64"),
    ]


def test_versions_lose_epoch_and_packaging() -> None:
    packages = [
        Package(name="nvidia-utils-580-server", version="580.173.02-0ubuntu0.24.04.1", architecture="amd64"),
        Package(name="libc6", version="2:2.36-9", architecture="amd64"),
    ]
    assert version_of(packages, "cuda-", "nvidia-utils-") == "580.173.02"
    assert version_of(packages, "libc6") == "2.36"
    assert version_of(packages, "cuda-toolkit-") is None


def test_the_system_is_read_from_its_own_file() -> None:
    text = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n# x\n'
    assert parse_os_release(text) == System(id="debian", version="12", name="Debian GNU/Linux 12 (bookworm)")
    assert parse_os_release("") == System(id="unknown", version="", name="unknown")


def test_sums_survive_being_written() -> None:
    assert read_sums(sums({"b": "2" * 64, "a": "1" * 64})) == {"a": "1" * 64, "b": "2" * 64}
    assert read_sums(f"{'1' * 64} *binary\n\nbroken\n") == {"binary": "1" * 64}
