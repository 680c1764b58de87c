"""`vaultcube down [RUN]`: stop and clear."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vaultcube.cli.options import ResultsDir, results_root

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog="Example: vaultcube down --all")
def down(
    run: Annotated[
        str | None, typer.Argument(help="An instance, a run, or the beginning of a run's name.", show_default=False)
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
    results_dir: ResultsDir = None,
) -> None:
    """Stop a run and remove its containers and networks; what it had measured is kept."""
    from vaultcube.errors import UsageError, VaultCubeError
    from vaultcube.results.store import RunStore
    from vaultcube.stack.docker import Docker
    from vaultcube.stack.instances import instances, pick
    from vaultcube.stack.takedown import settle, take_down

    if everything and run is not None:
        raise UsageError("--all and a name exclude each other")
    docker = Docker()
    found = instances(docker)
    if run is not None and not any(one.name == run or one.run.startswith(run) for one in found):
        sys.stdout.write(settle(RunStore(results_root(results_dir)).find(run), docker) + "\n")
    elif found:
        failed: VaultCubeError | None = None
        for instance in found if everything else [pick(found, run)]:
            try:
                sys.stdout.write(take_down(instance, docker) + "\n")
            except VaultCubeError as error:
                # One that cannot be cleared does not keep the others.
                failed = failed or error
        if failed is not None:
            raise failed
    else:
        sys.stdout.write("nothing is running\n")
