"""`vaultcube images build|list`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vaultcube.cli.options import Json

app = typer.Typer(
    help="Build the workloads' images, and see which are here.",
    epilog="Example: vaultcube images build pytorch --flavour cu124",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.command(epilog="Example: vaultcube images build pytorch --flavour cu124")
def build(
    image: Annotated[str, typer.Argument(help="Which image; see images list.")] = "pytorch",
    *,
    flavour: Annotated[
        str | None, typer.Option(help="Which CUDA it carries.", show_default="cu124; any for recorder and proxy")
    ] = None,
    base_image: Annotated[
        str | None,
        typer.Option(help="What to build on.", envvar="VAULTCUBE_BASE_IMAGE", show_default="debian:bookworm-slim"),
    ] = None,
    wheelhouse: Annotated[
        Path | None, typer.Option(help="A folder of wheels, for building offline.", show_default=False)
    ] = None,
    ca_bundle: Annotated[
        Path | None,
        typer.Option(help="A private CA bundle the build trusts; never stored in the image.", show_default=False),
    ] = None,
) -> None:
    """Build an image; what did not change comes from the cache."""
    from vaultcube.report import progress
    from vaultcube.stack import images
    from vaultcube.stack.docker import Docker
    from vaultcube.stack.signals import Stop

    options = images.BuildOptions(base_image=base_image, wheelhouse=wheelhouse, ca_bundle=ca_bundle)
    with Stop() as stop, progress.job_progress(sys.stderr) as shown:
        docker = Docker(stop)
        docker.begin_probe().finish(docker)
        name = images.build(docker, stop, image, flavour or images.default_flavour(image), options, shown.building)
        built = docker.image(name)
    if built is not None:
        sys.stdout.write(f"{name}  {built.id[7:19]}  {built.size_bytes / 1e9:.2f} GB\n")


@app.command("list", epilog="Example: vaultcube images list --json")
def list_images(*, json: Json = False) -> None:
    """List the images and flavours, and which of them are on this machine."""
    from vaultcube.report.table import table
    from vaultcube.stack import images
    from vaultcube.stack.docker import Docker

    found = images.list_images(Docker())
    if json:
        import json as encoder

        sys.stdout.write(encoder.dumps([row.as_dict() for row in found], indent=2) + "\n")
        return
    rows = [("IMAGE", "ID", "SIZE", "CREATED", "VERSION")]
    for row in found:
        local = row.local
        if local is None:
            rows.append((row.name, "-", "not built", "-", "-"))
        else:
            version = local.labels.get("org.opencontainers.image.version", "-")
            rows.append((row.name, local.id[7:19], f"{local.size_bytes / 1e9:.2f} GB", local.created[:19], version))
    sys.stdout.write(table(rows))
