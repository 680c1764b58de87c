"""`vaultcube health`: is the host as it was provisioned?"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vaultcube.cli.options import Json

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog="Example: vaultcube health 1 3")
def health(
    layers: Annotated[
        list[int] | None,
        typer.Argument(
            metavar="[LAYER]...",
            help="1 base system, 2 driver, 3 GPUs in containers, 4 images, 5 orchestrator.",
            show_default="those that are here",
        ),
    ] = None,
    *,
    check: Annotated[
        list[str] | None, typer.Option("--check", help="Only this check; may be repeated.", show_default="all")
    ] = None,
    waive: Annotated[
        list[str] | None,
        typer.Option("--waive", help="What this check finds bad is UNAVAILABLE; may be repeated.", show_default=False),
    ] = None,
    patience: Annotated[int, typer.Option(min=1, max=100, help="Programs may take so many times longer.")] = 1,
    no_probes: Annotated[bool, typer.Option("--no-probes", help="Start no container and no network.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for UNAVAILABLE too.")] = False,
    json: Json = False,
) -> None:
    """Check whether the host is still as it was provisioned, layer by layer."""
    from vaultcube.cli.standalone import show
    from vaultcube.host.health import conclude, run_health
    from vaultcube.host.machine import Machine

    machine = Machine(vaultcube=(sys.executable, "-m", "vaultcube"), probes=not no_probes, patience=patience)
    found = run_health(machine, layers or (), check or (), waive or ())
    try:
        show(found, as_json=json)
    finally:
        # Also when nobody reads it any more: the exit code is the answer.
        conclude(found, strict=strict)
