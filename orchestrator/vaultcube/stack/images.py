"""Building and listing the images."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vaultcube import __version__
from vaultcube.errors import (
    BaseImageError,
    DiskTooSmallError,
    ImageBuildError,
    UsageError,
    VaultCubeError,
)
from vaultcube.gpu.flavours import ANY, Flavour
from vaultcube.stack.assets import PACKAGE, asset
from vaultcube.stack.buildlog import BuildLog
from vaultcube.stack.docker import Docker, ImageInfo
from vaultcube.stack.dockerwords import known_error
from vaultcube.stack.environment import git_revision
from vaultcube.stack.process import Child
from vaultcube.stack.signals import Stop

DEFAULT_BASE = "debian:bookworm-slim"
# Made from the distribution's packages where no registry answers (scripts/base-image.sh).
LOCAL_BASE = "vaultcube/base:bookworm"
# What a build needs free at its worst: two copies of PyTorch's layers (venv stage, image) and the cached wheels.
# Measured for pytorch:cu124 (docs/performance.md); cu128's wheels are a quarter larger.
BUILD_SPACE_BYTES = 18 * 10**9
# An image that is the same for every CUDA has no framework in it.
SMALL_SPACE_BYTES = 10**9
# Where an image needs more or less, its Dockerfile says so: `# Room for a build: cu124 24 GB, cpu 12 GB`.
ROOM = re.compile(r"^# Room for a build: (.+)$", re.MULTILINE)
# Another image of ours that it is built FROM.
PARENT = re.compile(r"^FROM (vaultcube/(\S+):\$\{FLAVOUR\}\S*)", re.MULTILINE)
PULLED = re.compile(r"failed to resolve source metadata for (\S+?):? ")
CA_VARIABLES = ("VAULTCUBE_CA_BUNDLE", "PIP_CERT", "SSL_CERT_FILE")
# pip's own setting; where it names a folder, its wheels are for our builds too.
WHEELHOUSE_VARIABLE = "PIP_FIND_LINKS"
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")

BuildWatcher = Callable[[BuildLog, list[str]], None]


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What a build may be told; None leaves the default."""

    base_image: str | None = None
    wheelhouse: Path | None = None
    ca_bundle: Path | None = None


@dataclass(frozen=True)
class ImageRow:
    """One image that can be built, and the local one if there is one."""

    name: str
    image: str
    flavour: str
    local: ImageInfo | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "local": self.local._asdict() if self.local else None}


def image_names() -> list[str]:
    """Return the images that have a Dockerfile."""
    return sorted(file.parent.name for file in asset("images").glob("*/Dockerfile"))


def flavours_of(image: str) -> list[str]:
    """Return the flavours an image has a lock for, the CPU's last; `any` where nothing is locked.

    Raises:
        UsageError: there is no such image.
    """
    if image not in image_names():
        raise UsageError(f"there is no image {image!r}", next_step=f"Images: {', '.join(image_names())}.")
    locked = [file.stem for file in (asset("images") / image / "requirements").glob("*.txt")]
    return sorted(locked, key=lambda flavour: (flavour == Flavour.CPU, flavour)) or [ANY]


def image_flavour(image: str, flavour: str) -> str:
    """Return the flavour of an image that stands for `flavour`: the first one's image for a CPU without one of its own.

    Raises:
        UsageError: there is no such image.
    """
    if flavour == Flavour.CPU and Flavour.CPU not in flavours_of(image):
        return str(Flavour.CU124)
    return str(flavour)


def default_flavour(image: str) -> str:
    """Return the flavour that is built when none is named: the oldest CUDA, as `--flavour auto` prefers it.

    Raises:
        UsageError: there is no such image.
    """
    return flavours_of(image)[0]


def list_images(docker: Docker) -> list[ImageRow]:
    """Return all images and flavours with their local state."""
    return [
        ImageRow(f"vaultcube/{image}:{flavour}", image, flavour, docker.image(f"vaultcube/{image}:{flavour}"))
        for image in image_names()
        for flavour in flavours_of(image)
    ]


def build(docker: Docker, stop: Stop, image: str, flavour: str, options: BuildOptions, watch: BuildWatcher) -> str:
    """Build an image with `docker buildx bake`; finished steps come from the cache.

    Returns:
        The image's name.

    Raises:
        BuildxMissingError, DiskTooSmallError, BaseImageError, ImageBuildError, InterruptedRunError: as named.
    """
    target = image_flavour(image, flavour)
    if target not in flavours_of(image):
        raise UsageError(
            f"there is no flavour {flavour!r} of {image}", next_step=f"Flavours: {', '.join(flavours_of(image))}."
        )
    docker.probe_buildx()
    base = choose_base(docker, options.base_image)
    name = f"vaultcube/{image}:{target}"
    before = {each: docker.image(each) for each in (name, *parents(image, target))}
    if before[name] is None:
        check_space(docker, build_space(image, target))
    environment = build_environment(options, base, os.environ)
    environment |= {"VAULTCUBE_IMAGE": image, "VAULTCUBE_FLAVOUR": target}
    bakefile = asset("images") / "docker-bake.hcl"
    args = ["buildx", "bake", "--file", str(bakefile), "--progress", "rawjson", bake_target(image, target)]
    with _buildx_config(os.environ) as config:
        child = docker.start(args, env={**environment, **config}, merged=True)
        log = _follow(child, stop, watch)
        seen = child.result()
    if not seen.ok:
        raise _build_error(log, base, name)
    for each, old in before.items():
        _remove_replaced(docker, old, docker.image(each))
    return name


def bake_target(image: str, flavour: str) -> str:
    """Return the target of docker-bake.hcl that builds an image: its own where it has one, else the one for all others."""
    own = f"{image}-{flavour}"
    text = (asset("images") / "docker-bake.hcl").read_text(encoding="utf-8")
    return own if f'target "{own}"' in text else "image"


def parents(image: str, flavour: str) -> list[str]:
    """Return the images of ours that this one is built FROM: those that there are in its flavour."""
    return [
        name.replace("${FLAVOUR}", flavour)
        for name, parent in PARENT.findall(_dockerfile(image))
        if flavour in flavours_of(parent)
    ]


def build_space(image: str, flavour: str) -> int:
    """Return how many bytes a build needs free at its worst."""
    told = ROOM.search(_dockerfile(image))
    rooms = re.findall(r"(\S+) (\d+) GB", told[1]) if told else []
    usual = SMALL_SPACE_BYTES if flavour == ANY else BUILD_SPACE_BYTES
    return next((int(gigabytes) * 10**9 for which, gigabytes in rooms if which == flavour), usual)


def _dockerfile(image: str) -> str:
    return (asset("images") / image / "Dockerfile").read_text(encoding="utf-8")


def _remove_replaced(docker: Docker, old: ImageInfo | None, new: ImageInfo | None) -> None:
    if old is None or new is None or old.id == new.id:
        return
    left = docker.image(old.id)
    # It stays where a container still uses it, and where somebody gave it another name.
    if left is not None and not left.tags:
        docker.call(["image", "rm", old.id])


@contextmanager
def _buildx_config(ours: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Give buildx a folder for its state where it cannot make its own: a home may be read-only."""
    own = Path(ours.get("BUILDX_CONFIG") or Path(ours.get("DOCKER_CONFIG") or Path.home() / ".docker") / "buildx")
    there = next((folder for folder in (own, *own.parents) if folder.exists()), own)
    if os.access(there, os.W_OK):
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="vaultcube-buildx-") as folder:
        yield {"BUILDX_CONFIG": folder}


def _follow(child: Child, stop: Stop, watch: BuildWatcher) -> BuildLog:
    log = BuildLog()
    try:
        for line in child.lines(stop):
            watch(log, log.feed(line))
    except BaseException:
        child.end()
        raise
    return log


def choose_base(docker: Docker, asked: str | None) -> str:
    """Return the base image: the one asked for, the default when it is here, else one made on this machine, if any."""
    asked = asked or os.environ.get("VAULTCUBE_BASE_IMAGE") or os.environ.get("BASE_IMAGE")
    if asked:
        return asked
    if docker.image(DEFAULT_BASE) is None and docker.image(LOCAL_BASE) is not None:
        return LOCAL_BASE
    return DEFAULT_BASE


def build_environment(options: BuildOptions, base: str, ours: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that images/docker-bake.hcl reads.

    Args:
        options: what the user said.
        base: the base image.
        ours: our environment, for the CA bundle, the wheelhouse and proxies.

    Raises:
        UsageError: a file or folder named on the command line is not there.
    """
    found = {
        "IMAGES_DIR": str(asset("images")),
        "PACKAGE_DIR": str(PACKAGE),
        "BASE_IMAGE": base,
        "VAULTCUBE_VERSION": __version__,
        "VAULTCUBE_REVISION": git_revision() or "",
        # Newer buildx asks before it reads outside the working directory, and nobody could answer.
        "BUILDX_BAKE_ENTITLEMENTS_FS": "0",
    }
    bundle = options.ca_bundle or next((Path(ours[name]) for name in CA_VARIABLES if ours.get(name)), None)
    if options.ca_bundle is not None and not options.ca_bundle.is_file():
        raise UsageError(f"there is no CA bundle at {options.ca_bundle}")
    if bundle is not None and bundle.is_file():
        found["CA_BUNDLE"] = str(bundle.resolve())
    if options.wheelhouse is not None and not options.wheelhouse.is_dir():
        raise UsageError(f"there is no folder of wheels at {options.wheelhouse}")
    # pip takes several, and addresses; a build takes one folder.
    links = (Path(word) for word in ours.get(WHEELHOUSE_VARIABLE, "").split())
    wheelhouse = options.wheelhouse or next((link for link in links if link.is_dir()), None)
    if wheelhouse is not None:
        found["WHEELHOUSE"] = str(wheelhouse.resolve())
    return found | {name: ours[name] for name in PROXY_VARIABLES if ours.get(name)}


def check_space(docker: Docker, needed: int) -> None:
    """Refuse when the engine's disk has less than `needed` bytes free. A remote engine's disk cannot be seen.

    Raises:
        DiskTooSmallError: it has.
    """
    root = Path(docker.info()["DockerRootDir"])
    try:
        free = shutil.disk_usage(root).free
    except OSError:
        return
    if free < needed:
        raise DiskTooSmallError(
            f"building needs about {needed / 1e9:.0f} GB in {root}, and {free / 1e9:.1f} GB are free"
        )


def _build_error(log: BuildLog, base: str, name: str) -> VaultCubeError:
    said = " ".join([log.error, *log.plain])
    text = said.lower()
    signs = (
        "failed to resolve source metadata",
        "pull access denied",
        "failed to do request",
        "failed to parse stage name",
    )
    pulling = any(sign in text for sign in signs)
    pulled = PULLED.search(said)
    if pulled is not None and not pulled[1].endswith(base):
        # A stage that stands on somebody else's image, whatever the base is.
        return BaseImageError(
            f"{pulled[1]}, which {name} is built FROM, is not on this machine and cannot be pulled",
            next_step=f"Check the network, and what this says: docker pull {pulled[1]}",
        )
    if pulling and (base.lower() in text or "resolve source metadata" in text):
        return BaseImageError(f"the base image {base} is not on this machine and cannot be pulled")
    if log.failed is None and (known := known_error("\n".join(log.plain))):
        return known
    step = log.failed or "docker buildx bake"
    tail = "\n".join(f"    {line}" for line in log.tail())
    return ImageBuildError(f"building {name} failed at: {step}\n{tail}".rstrip())
