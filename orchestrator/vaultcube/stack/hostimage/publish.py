"""Stage 5: the signed-off disk is compressed, described and summed, and appears in the output folder all at once."""

from __future__ import annotations

import json
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vaultcube.errors import HostBuildError, ResultsUnwritableError
from vaultcube.results.hostimage import (
    MANIFEST,
    SUMS,
    File,
    Manifest,
    Package,
    System,
    parse_os_release,
    parse_packages,
    sha256_of,
    sums,
    version_of,
)
from vaultcube.stack.hostimage.packer import INVENTORY, LOG, folder_of
from vaultcube.stack.hostimage.stages import Options, Stage, Watcher
from vaultcube.stack.hostimage.tools import checked
from vaultcube.stack.process import run
from vaultcube.stack.signals import Stop

SBOMS: Final = ("sbom.cdx.json", "sbom.spdx.json")
CONVERT_S: Final = 3600.0


@dataclass(frozen=True)
class Inventory:
    """What the guest said of itself before it was cleaned.

    Attributes:
        folder: where it was unpacked, with paths as in the guest.
        text: the list of packages, as dpkg gave it.
    """

    folder: Path
    system: System
    kernel: str
    packages: list[Package]
    text: str


def read_inventory(options: Options) -> Inventory:
    """Unpack and read what stage provision brought out of the guest.

    Raises:
        HostBuildError: it is not whole.
    """
    folder = options.work / "inventory"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with tarfile.open(folder_of(options, Stage.PROVISION) / INVENTORY) as tar:
            tar.extractall(folder, filter="data")
        text = (folder / "vaultcube/packages.txt").read_text(encoding="utf-8")
        kernels = (folder / "vaultcube/kernels.txt").read_text(encoding="utf-8").split()
        system = parse_os_release((folder / "etc/os-release").read_text(encoding="utf-8"))
        packages = parse_packages(text)
    except (OSError, tarfile.TarError, IndexError) as error:
        raise HostBuildError(f"the guest's inventory cannot be read: {error}") from error
    if not kernels or not packages:
        raise HostBuildError("the guest's inventory has no kernel or no package in it")
    return Inventory(folder, system, kernels[-1], packages, text)


class Publication:
    """A folder beside the output's final name that becomes it at the end, or vanishes.

    Args:
        root: the checkout.
        options: what was asked for.
        watcher: is told.
        stop: ends it.
    """

    def __init__(self, root: Path, options: Options, watcher: Watcher, stop: Stop) -> None:
        self._root, self._options, self._watcher, self._stop = root, options, watcher, stop
        self.final = options.output / options.title
        self._image = f"{options.title}.qcow2"

    def check_free(self) -> None:
        """Refuse to publish over something.

        Raises:
            ResultsUnwritableError: there is an image of that name, or the folder cannot be written.
        """
        if self.final.exists():
            raise ResultsUnwritableError(
                f"{self.final} is there already, and a published image is never written over",
                next_step="Give the new one another version: --image-version 1.0.1.",
            )
        try:
            self._options.output.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._options.output):
                pass
        except OSError as error:
            raise ResultsUnwritableError(
                f"{self._options.output} cannot be written: {error.strerror}", next_step="Choose another: --output DIR."
            ) from error

    def publish(self, disk: Path, inventory: Inventory, manifest: ManifestMaker) -> Manifest:
        """Write everything and publish it.

        Raises:
            HostBuildError: a step failed; nothing is published.
            InterruptedRunError: a stop was asked for; likewise.
        """
        folder = Path(tempfile.mkdtemp(prefix=f".{self._options.title}.", dir=self._options.output))
        try:
            folder.chmod(0o755)
            image = self._compress(disk, folder / self._image)
            self._materials(inventory, folder)
            shutil.copyfile(self._options.work / LOG, folder / LOG)
            (folder / "packages.txt").write_text(
                "".join(f"{one.name} {one.version} {one.architecture}\n" for one in inventory.packages),
                encoding="utf-8",
            )
            self._watcher.note("manifest and sums")
            made = manifest(image, [_file(folder / name) for name in (*SBOMS, "packages.txt", LOG)])
            (folder / MANIFEST).write_text(made.to_json(), encoding="utf-8")
            named = {one.name: one.sha256 for one in (made.image, *made.files)}
            named[MANIFEST] = sha256_of(folder / MANIFEST)
            (folder / SUMS).write_text(sums(named), encoding="utf-8")
            self._stop.check()
            folder.rename(self.final)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return made

    def _compress(self, disk: Path, target: Path) -> File:
        """Compress a disk, and prove that the compressed one is the same."""
        self._watcher.note("compressing, and comparing with what was signed off")
        convert = ["qemu-img", "convert", "-c", "-O", "qcow2"]
        # zstd is smaller and faster; a qemu-img without it says so at once.
        zstd = run(
            [*convert, "-o", "compression_type=zstd", str(disk), str(target)], timeout=CONVERT_S, stop=self._stop
        )
        if not zstd.ok:
            checked([*convert, str(disk), str(target)], "compressing the disk", timeout=CONVERT_S, stop=self._stop)
        compare = ["qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", str(disk), str(target)]
        checked(compare, "comparing the compressed disk", timeout=CONVERT_S, stop=self._stop)
        checked(["qemu-img", "check", "-q", str(target)], "checking the image", timeout=CONVERT_S, stop=self._stop)
        told = checked(["qemu-img", "info", "--output=json", str(target)], "image", timeout=60, stop=self._stop)
        size = int(json.loads(told.stdout)["virtual-size"])
        return _file(target).model_copy(update={"virtual_bytes": size})

    def _materials(self, inventory: Inventory, folder: Path) -> None:
        """Have debsbom list the materials, as CycloneDX and as SPDX."""
        self._watcher.note(f"list of materials: {len(inventory.packages)} packages, CycloneDX and SPDX")
        options = self._options
        argv = [str(self._root / "scripts/ansible.sh"), "debsbom", "generate", "-t", "cdx", "-t", "spdx"]
        argv += ["--root", str(inventory.folder), "--out", str(folder / "sbom"), "--distro-name", options.name]
        argv += ["--distro-version", options.version, "--distro-arch", "amd64"]
        if inventory.system.id in {"debian", "ubuntu"}:
            argv += ["--base-distro-vendor", inventory.system.id]
        checked(argv, "listing the materials", timeout=900, stop=self._stop)
        for name in SBOMS:
            count = len((folder / name).read_text(encoding="utf-8"))
            if count < 1000:  # noqa: PLR2004 - an empty list has a few hundred characters
                raise HostBuildError(f"{name} lists nothing")


class ManifestMaker:
    """Makes the manifest when the image and the other files are there. Called with them, as a function."""

    def __init__(self, **known: object) -> None:
        self._known = known

    def __call__(self, image: File, files: list[File]) -> Manifest:
        """Return the manifest."""
        return Manifest.model_validate({**self._known, "image": image, "files": files})


def _file(path: Path) -> File:
    return File(name=path.name, sha256=sha256_of(path), size_bytes=path.stat().st_size)


def driver_of(packages: list[Package]) -> str | None:
    """Return the version of the NVIDIA driver's userspace, None without one."""
    return version_of(packages, "nvidia-utils-", "nvidia-driver-cuda", "nvidia-driver-")


def cuda_of(packages: list[Package]) -> str | None:
    """Return the version of the CUDA toolkit, None without one."""
    return version_of(packages, "cuda-toolkit-1", "cuda-nvcc-", "cuda-compiler-")
