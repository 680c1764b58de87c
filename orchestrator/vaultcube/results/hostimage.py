"""The manifest of a host image (`vaultcube.hostimage/1`), and whether files are what it says. Pure but for reading."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import ConfigDict, Field, ValidationError

from vaultcube.errors import NotFoundError, TamperedImageError
from vaultcube.results.schema import Model

SCHEMA: Final = "vaultcube.hostimage/1"
MANIFEST: Final = "manifest.json"
SUMS: Final = "SHA256SUMS"
SHA256 = Field(pattern="^[0-9a-f]{64}$")


class Package(Model):
    """A package of the distribution that is installed."""

    name: str
    version: str
    architecture: str


class System(Model):
    """The operating system of the image, as its os-release says."""

    id: str
    version: str
    name: str


class Source(Model):
    """What the image was built from."""

    image: str
    sha256: str = SHA256


class Revision(Model):
    """The checkout that built it. `dirty`: something was changed and not committed."""

    commit: str | None
    dirty: bool


class File(Model):
    """A file that was published. `virtual_bytes` is what a disk image takes on a disk."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    sha256: str = SHA256
    size_bytes: int = Field(ge=0)
    virtual_bytes: int | None = None


class StageTime(Model):
    """A stage of the build and how long it took. `resumed`: the time is that of an earlier call."""

    name: str
    seconds: float = Field(ge=0)
    resumed: bool = False


class SignOff(Model):
    """What was seen when the finished image was booted.

    Attributes:
        boots: how many times, each from a fresh copy.
        hygiene: the last line of the hygiene test.
        health: verdict of each health check, by code.
        tests: how many tests passed over SSH.
    """

    boots: int = Field(ge=2)
    hygiene: str
    health: dict[str, str]
    tests: int = Field(ge=1)


class Manifest(Model):
    """What a host image is: enough to know it, to check it, and to build it again.

    Attributes:
        kernel: the newest kernel in it, which the boot loader takes.
        driver: version of the NVIDIA driver, None where layer 2 is not in it.
        cuda: version of the CUDA toolkit, likewise.
        login_keys: SHA-256 fingerprints of the public keys that can log in.
        emulated: whether it was built without hardware virtualisation.
    """

    schema_: Literal["vaultcube.hostimage/1"] = Field(default=SCHEMA, alias="schema")
    name: str
    version: str
    built: datetime
    vaultcube: str
    revision: Revision
    source: Source
    layers: list[int]
    os: System
    kernel: str
    driver: str | None
    cuda: str | None
    login_keys: list[str]
    emulated: bool
    tools: dict[str, str]
    stages: list[StageTime]
    sign_off: SignOff
    image: File
    files: list[File]
    packages: list[Package] = Field(min_length=1)

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True, defer_build=True)

    def to_json(self) -> str:
        """Return the document as indented JSON with a newline at its end."""
        return self.model_dump_json(indent=2, by_alias=True) + "\n"


class Verified(Model):
    """What `vaultcube host verify` found to be whole."""

    manifest: Manifest
    image: str
    checked: list[str]


def parse_packages(text: str) -> list[Package]:
    """Return the installed packages, from lines `status TAB name TAB version TAB architecture`."""
    rows = (line.split("\t") for line in text.splitlines() if line.strip())
    return [Package(name=row[1], version=row[2], architecture=row[3]) for row in rows if row[0].strip() == "ii"]


def parse_os_release(text: str) -> System:
    """Return the system that an os-release file names."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    found = {key: value.strip().strip('"') for key, _, value in pairs}
    return System(
        id=found.get("ID", "unknown"), version=found.get("VERSION_ID", ""), name=found.get("PRETTY_NAME", "unknown")
    )


def version_of(packages: Iterable[Package], *prefixes: str) -> str | None:
    """Return the version of the first package whose name begins with a prefix, without epoch and packaging revision."""
    for prefix in prefixes:
        for package in packages:
            if package.name.startswith(prefix):
                return package.version.rpartition(":")[2].partition("-")[0]
    return None


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sums(files: Mapping[str, str]) -> str:
    """Return what `sha256sum --check` reads: a line for each name."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items()))


def read_sums(text: str) -> dict[str, str]:
    """Return the sums by name, from the lines of `sha256sum`."""
    rows = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    return {row[1].lstrip("*"): row[0] for row in rows if len(row) > 1}


def verify(path: Path) -> Verified:
    """Check a published image against its sums and its manifest.

    Args:
        path: the image, or the folder that it was published in.

    Raises:
        NotFoundError: there is no such file.
        TamperedImageError: a file is missing, or is not what was published.
    """
    folder = path if path.is_dir() else path.parent
    if not path.exists():
        raise NotFoundError(f"there is no {path}", next_step="Name the image, or the folder that holds it.")
    manifest = _read_manifest(folder)
    if path.is_file() and path.name != manifest.image.name:
        raise TamperedImageError(
            f"{path.name} is not the image of {folder / MANIFEST}: that is {manifest.image.name}",
            next_step="Keep the name that it was published under, and its files beside it.",
        )
    expected = _read_sums(folder)
    checked = []
    for file in (manifest.image, *manifest.files):
        _check(folder, file)
        checked.append(file.name)
    wanted = {file.name: file.sha256 for file in (manifest.image, *manifest.files)}
    wanted[MANIFEST] = sha256_of(folder / MANIFEST)
    for name in sorted(expected.keys() | wanted.keys()):
        if expected.get(name) != wanted.get(name):
            raise TamperedImageError(f"{SUMS} and {MANIFEST} do not agree about {name}")
    return Verified(manifest=manifest, image=str(folder / manifest.image.name), checked=[*checked, MANIFEST])


def _read_manifest(folder: Path) -> Manifest:
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise TamperedImageError(
            f"there is no {MANIFEST} in {folder}, so nothing says what the image should be"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise TamperedImageError(f"{folder / MANIFEST} is no manifest: {where}: {first['msg']}") from error


def _read_sums(folder: Path) -> dict[str, str]:
    try:
        return read_sums((folder / SUMS).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TamperedImageError(f"there is no {SUMS} in {folder}") from error
    except UnicodeDecodeError as error:
        raise TamperedImageError(f"{folder / SUMS} is no list of sums") from error


def _check(folder: Path, file: File) -> None:
    path = folder / file.name
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise TamperedImageError(f"{file.name} is missing in {folder}") from error
    if size != file.size_bytes:
        raise TamperedImageError(f"{file.name} has {size} bytes, and was published with {file.size_bytes}")
    digest = sha256_of(path)
    if digest != file.sha256:
        raise TamperedImageError(f"{file.name} has the SHA-256 {digest}, and was published with {file.sha256}")
