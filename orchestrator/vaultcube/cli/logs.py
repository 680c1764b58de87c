"""`vaultcube logs RUN`: what its containers printed."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Annotated

import typer

from vaultcube.cli.options import ResultsDir, results_root

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog="Example: vaultcube logs last")
def logs(
    run: Annotated[str, typer.Argument(help="An instance, a run, the beginning of a run's name, or last.")] = "last",
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it ends.")] = False,
    results_dir: ResultsDir = None,
) -> None:
    """Print what a run's containers print, or printed."""
    from vaultcube.errors import EngineMissingError, EngineUnreachableError, NotFoundError
    from vaultcube.results.store import LOG, RunStore
    from vaultcube.stack.docker import Docker
    from vaultcube.stack.instances import instances, pick

    docker, store = Docker(), RunStore(results_root(results_dir))
    if run == "last":
        with suppress(NotFoundError):
            run = store.find(run).id
    # What was kept can be read without an engine.
    with suppress(EngineMissingError, EngineUnreachableError):
        live = instances(docker)
        if (run == "last" and len(live) == 1) or any(one.name == run or one.run.startswith(run) for one in live):
            docker.begin_probe().finish(docker)
            docker.become_logs(pick(live, None if run == "last" else run).run, follow=follow)
    kept = store.find(run)
    try:
        text = (kept.path / LOG).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise NotFoundError(f"no log of {kept.id} was kept in {kept.path}") from error
    sys.stdout.write(text)
