"""`vaultcube gpus`: what is there, and who holds it."""

from __future__ import annotations

import typer

from vaultcube.cli.early import print_gpus
from vaultcube.cli.options import Json

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog="Example: vaultcube gpus --json")
def gpus(*, json: Json = False) -> None:
    """Show every GPU: what it is and does, how it is connected, and who holds it."""
    print_gpus(as_json=json)
