"""`vaultcube doctor`: is this machine fit?"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vaultcube.cli.bench import DEFAULT_PROFILE, FlavourName
from vaultcube.cli.options import Json, ResultsDir, results_root

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog="Example: vaultcube doctor --check driver --check access")
def doctor(
    *,
    check: Annotated[
        list[str] | None, typer.Option("--check", help="Only this check; may be repeated.", show_default="all")
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(help="Look at these GPUs: all, none, a count (2), or device=0,2.", show_default="all"),
    ] = None,
    flavour: Annotated[FlavourName, typer.Option(help="Which CUDA the images are to carry.")] = "auto",
    profile: Annotated[
        str | None,
        typer.Option(
            help="What should be in the box: a built-in profile or a TOML file.", show_default=DEFAULT_PROFILE
        ),
    ] = None,
    no_proof: Annotated[bool, typer.Option("--no-proof", help="Start no container.")] = False,
    results_dir: ResultsDir = None,
    json: Json = False,
) -> None:
    """Check whether this machine can run the workloads, and prove with one container that it gets the GPUs."""
    from vaultcube.gpu.selection import parse_gpus
    from vaultcube.report import doctor as shown
    from vaultcube.report.table import colored
    from vaultcube.stack.docker import Docker
    from vaultcube.stack.doctor import DoctorRequest, conclude, run_doctor

    wanted = DoctorRequest(
        codes=tuple(check or ()),
        request=parse_gpus(gpus),
        flavour=flavour,
        profile=profile or DEFAULT_PROFILE,
        claimed=profile is not None,
        proof=not no_proof,
    )
    found = run_doctor(wanted, results_root=results_root(results_dir), docker=Docker())
    try:
        if json:
            sys.stdout.write(found.to_json())
        else:
            import shutil

            width = shutil.get_terminal_size().columns
            sys.stdout.write(shown.report(found, width=width, color=colored(sys.stdout)))
    finally:
        # Also when nobody reads it any more: the exit code is the answer.
        conclude(found)
