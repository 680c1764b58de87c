"""`vaultcube stress`: soaks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vaultcube.cli.options import Json

EXAMPLE = "Example: vaultcube stress judge results/soak"
app = typer.Typer(
    help="Judge a soak: a load of hours with every result checked.",
    epilog=EXAMPLE,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.callback()
def _stress() -> None:
    """Keep `judge` a word of its own, though it is the only one yet."""


@app.command("judge", epilog=EXAMPLE)
def judge_verb(
    folder: Annotated[Path, typer.Argument(help="Where workers and recorder wrote: gpu-0/events.jsonl, run.db.")],
    *,
    profile: Annotated[
        str, typer.Option(help="Acceptance targets: a built-in profile or a TOML file.")
    ] = "vault-cube-5090",
    strict: Annotated[bool, typer.Option("--strict", help="Let UNAVAILABLE exit with 1.")] = False,
    json: Json = False,
) -> None:
    """Judge what `docker compose -f compose/stress.yml up` left, and keep the verdict beside it."""
    from vaultcube.report import terminal
    from vaultcube.report.table import colored
    from vaultcube.results.profile import load_profile
    from vaultcube.results.store import RunDirectory
    from vaultcube.stack.assets import PROFILES
    from vaultcube.stack.bench import conclude
    from vaultcube.stack.soak import judge_soak

    place = folder.expanduser().absolute()
    result = judge_soak(place, load_profile(profile, PROFILES))
    RunDirectory(place).write_result(result)
    sys.stdout.write(result.to_json() if json else terminal.result(result, place, color=colored(sys.stdout)))
    conclude(result, strict=strict)
