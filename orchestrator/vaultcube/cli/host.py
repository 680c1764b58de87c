"""`vaultcube host build|verify`: the golden image of the machine."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vaultcube.cli.options import Json

app = typer.Typer(
    help="Build the host's golden image, and check one.",
    epilog="Example: vaultcube host build --authorized-key ~/.ssh/id_ed25519.pub",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


class From(StrEnum):
    """The stages, as the command line names them."""

    PREFLIGHT = "preflight"
    BUILD = "build"
    PROVISION = "provision"
    TEST = "test"
    FINALISE = "finalise"


class Accelerator(StrEnum):
    """How virtual machines run."""

    AUTO = "auto"
    KVM = "kvm"
    HVF = "hvf"
    TCG = "tcg"


@app.command(epilog="Example: vaultcube host build --authorized-key ~/.ssh/id_ed25519.pub --image-version 1.0.0")
def build(
    *,
    authorized_key: Annotated[
        list[Path] | None,
        typer.Option(help="File with public keys of who may log in; may be repeated.", show_default=False),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The cloud image, a file or an address.", show_default="the pinned Ubuntu 24.04")
    ] = None,
    base_sha256: Annotated[str | None, typer.Option(help="Its SHA-256.", show_default="that of the pinned one")] = None,
    image_name: Annotated[str, typer.Option(help="What the image is called.")] = "vault-cube",
    image_version: Annotated[str | None, typer.Option(help="Its version.", show_default="vaultcube's own")] = None,
    up_to_layer: Annotated[int, typer.Option(min=1, max=3, help="The last layer that is in it.")] = 3,
    accelerator: Annotated[
        Accelerator, typer.Option(help="How virtual machines run; tcg is emulation.")
    ] = Accelerator.AUTO,
    disk_gb: Annotated[int, typer.Option(min=4, max=2000, help="Size of its disk; it grows at the first boot.")] = 30,
    memory_mb: Annotated[int, typer.Option(min=1024, help="Memory of the virtual machines.")] = 4096,
    cpus: Annotated[int, typer.Option(min=1, help="Processors of the virtual machines.")] = 2,
    variables: Annotated[
        Path | None, typer.Option(help="JSON file with variables of the roles (docs/host.md).", show_default=False)
    ] = None,
    apt_proxy: Annotated[str, typer.Option(help="A cache of packages, for the build only.", show_default=False)] = "",
    output: Annotated[
        Path | None, typer.Option(help="Where images are published.", show_default="the user's data directory")
    ] = None,
    work_dir: Annotated[
        Path | None, typer.Option(help="What a build in progress keeps.", show_default="the user's cache directory")
    ] = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Cloud images and facts.", show_default="the user's cache directory")
    ] = None,
    boot_limit_s: Annotated[
        int | None,
        typer.Option(
            min=5, help="Seconds a machine may take to answer over SSH.", show_default="600; 2400 when emulated"
        ),
    ] = None,
    start: Annotated[
        From, typer.Option("--from", help="Go on with an earlier build from this stage.")
    ] = From.PREFLIGHT,
    without_time_server: Annotated[
        bool, typer.Option("--without-time-server", help="None can be reached from here: do not judge the clock.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the machine of a failed build, and the disks.")] = False,
    no_lint: Annotated[bool, typer.Option("--no-lint", help="Leave ansible-lint out of pre-flight.")] = False,
    json: Json = False,
) -> None:
    """Build, test, sign off and publish the host image."""
    import re

    from vaultcube import __version__
    from vaultcube.errors import UsageError
    from vaultcube.report import hostimage as shown
    from vaultcube.stack.hostimage.build import HostBuild
    from vaultcube.stack.hostimage.stages import UBUNTU, UBUNTU_SHA256, Options, Stage
    from vaultcube.stack.signals import Stop

    if base is not None and base_sha256 is None:
        raise UsageError(
            "--base without --base-sha256: what is built from must be known", next_step="Give its SHA-256."
        )
    version = image_version or __version__
    for option, value in (("--image-name", image_name), ("--image-version", version)):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", value):
            raise UsageError(f"{option} {value!r}: letters, digits, dots and dashes, at most 61")
    cache = _folder(cache_dir) or _cache()
    options = Options(
        name=image_name,
        version=version,
        source=base or UBUNTU,
        source_sha256=base_sha256 or UBUNTU_SHA256,
        output=_folder(output) or _output(),
        work=_folder(work_dir) or cache / "work",
        cache=cache,
        accelerator=accelerator,
        disk_gb=disk_gb,
        memory_mb=memory_mb,
        cpus=cpus,
        layers=tuple(range(1, up_to_layer + 1)),
        keys=_keys(authorized_key or []),
        variables=_folder(variables),
        apt_proxy=apt_proxy,
        boot_limit_s=boot_limit_s,
        start=Stage(start),
        waived=("clock",) if without_time_server else (),
        keep=keep,
        lint=not no_lint,
    )
    with Stop() as stop:
        manifest, folder = HostBuild(options, shown.BuildProgress(sys.stderr), stop).run()
    sys.stdout.write(manifest.to_json() if json else shown.built(manifest, str(folder)))


@app.command(epilog="Example: vaultcube host verify vault-cube-1.0.0/vault-cube-1.0.0.qcow2")
def verify(
    image: Annotated[Path, typer.Argument(help="The image, or the folder that it was published in.")],
    *,
    json: Json = False,
) -> None:
    """Check an image, and what was published beside it, against its manifest and sums."""
    from vaultcube.report import hostimage as shown
    from vaultcube.results.hostimage import verify as check

    found = check(image)
    sys.stdout.write(found.manifest.to_json() if json else shown.verified(found))


def _folder(path: Path | None) -> Path | None:
    return None if path is None else path.expanduser().absolute()


def _cache() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("vaultcube") / "hostimage"


def _output() -> Path:
    import platformdirs

    return platformdirs.user_data_path("vaultcube") / "hostimages"


def _keys(files: list[Path]) -> tuple[str, ...]:
    """Return the public keys of files, each one line.

    Raises:
        LoginKeyError: a file cannot be read.
    """
    from vaultcube.errors import LoginKeyError

    found = []
    for path in files:
        try:
            lines = path.expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise LoginKeyError(f"--authorized-key {path} cannot be read: {error}") from error
        found += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return tuple(found)
