"""`vaultcube runs list|show|compare`: what was kept."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vaultcube.cli.options import Json, ResultsDir, results_root

app = typer.Typer(
    help="Look at runs that were kept.",
    epilog="Example: vaultcube runs show last",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.command("list", epilog="Example: vaultcube runs list --json")
def list_runs(*, results_dir: ResultsDir = None, json: Json = False) -> None:
    """List the kept runs, newest first."""
    from vaultcube.report.table import table
    from vaultcube.report.terminal import run_row
    from vaultcube.results.store import RunStore
    from vaultcube.stack.summary import summarise

    store = RunStore(results_root(results_dir))
    found = [summarise(directory) for directory in store.runs()]
    if json:
        import json as encoder

        sys.stdout.write(encoder.dumps([one.model_dump(mode="json") for one in found], indent=2) + "\n")
    elif found:
        sys.stdout.write(table([("RUN", "WORKLOAD", "STARTED", "STATUS", "VERDICT"), *map(run_row, found)]))
    else:
        sys.stdout.write(f"no runs in {store.root}\n")


@app.command(epilog="Example: vaultcube runs show ddp-20260101-120000-ab12")
def show(
    run: Annotated[str, typer.Argument(help="A run, the beginning of its name, or last.")] = "last",
    *,
    results_dir: ResultsDir = None,
    json: Json = False,
) -> None:
    """Show a kept run's result."""
    from vaultcube.report import terminal
    from vaultcube.report.table import colored
    from vaultcube.results.store import RunStore

    directory = RunStore(results_root(results_dir)).find(run)
    result = directory.finished_result()
    told = result.to_json() if json else terminal.result(result, directory.path, color=colored(sys.stdout))
    sys.stdout.write(told)


@app.command(epilog="Example: vaultcube runs compare ddp-20260101-120000-ab12 last")
def compare(
    first: Annotated[str, typer.Argument(help="A run, the beginning of its name, or last.", metavar="RUN")],
    second: Annotated[str, typer.Argument(help="Another one.", metavar="RUN")],
    *,
    results_dir: ResultsDir = None,
    json: Json = False,
) -> None:
    """Put two kept runs side by side: figures, checks, and what differs between them."""
    from vaultcube.errors import UsageError
    from vaultcube.report.compare import comparison
    from vaultcube.report.table import colored
    from vaultcube.results.compare import compare as side_by_side
    from vaultcube.results.store import RunStore

    store = RunStore(results_root(results_dir))
    one, other = store.find(first), store.find(second)
    if one.path == other.path:
        raise UsageError(
            f"{first} and {second} are the same run, {one.id}",
            next_step="Name two: `vaultcube runs list` shows which there are.",
        )
    found = side_by_side(one.finished_result(), other.finished_result())
    sys.stdout.write(found.to_json() if json else comparison(found, color=colored(sys.stdout)))
