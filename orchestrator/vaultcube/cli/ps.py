"""`vaultcube ps`: what is running."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from vaultcube.cli.options import Json

if TYPE_CHECKING:
    from vaultcube.stack.instances import Instance

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog="Example: vaultcube ps --json")
def ps(*, json: Json = False) -> None:
    """List what is running, whoever looks after it, and the GPUs it holds."""
    from vaultcube.report.table import table
    from vaultcube.stack.docker import Docker
    from vaultcube.stack.instances import instances, with_gpus

    docker = Docker()
    found = with_gpus(instances(docker), docker)
    if json:
        import json as encoder

        sys.stdout.write(encoder.dumps([one.as_dict() for one in found], indent=2) + "\n")
        return
    rows = [("NAME", "WORKLOAD", "STATE", "GPUS", "ADDRESS", "LOOKED AFTER BY", "DIRECTORY")]
    rows += [
        (
            one.called,
            one.workload or "-",
            one.state,
            "unknown" if one.gpus is None else ", ".join(str(gpu.index) for gpu in one.gpus) or "-",
            one.url or "-",
            _keeper(one),
            one.directory or "-",
        )
        for one in found
    ]
    sys.stdout.write(table(rows) if found else "nothing is running\n")


def _keeper(one: Instance) -> str:
    """Return who looks after it."""
    if one.keeper:
        return f"pid {one.keeper}"
    return "-" if one.alone else "nobody: vaultcube down"
