"""`vaultcube monitor`: watch the GPUs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vaultcube.cli.options import Json, ResultsDir, results_root

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog="Example: vaultcube monitor --once")
def monitor(
    *,
    interval: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds from one look to the next.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, print it and end.")] = False,
    json: Json = False,
    results_dir: ResultsDir = None,
) -> None:
    """Watch the GPUs: load, temperature, power, clocks, faults, and who holds them. Ends with q or Ctrl-C."""
    from vaultcube.errors import UsageError
    from vaultcube.report import live
    from vaultcube.stack.sampler import Sampler
    from vaultcube.stack.signals import Stop
    from vaultcube.stack.watch import Watch, look_once

    if json and not once:
        raise UsageError("--json is one document, and a view that goes on is many", next_step="Add --once.")
    directory = results_root(results_dir)
    if once:
        sys.stdout.write(live.once(look_once(directory), sys.stdout, as_json=json))
        return
    with Stop() as stop, Sampler(Watch(directory), interval) as sampler:
        live.watch(sampler, stop, sys.stdout)
