"""`vaultcube stress`: a soak is begun, looked at, ended, judged."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaultcube.cli.bench import DEFAULT_PROFILE, FlavourName
from vaultcube.cli.generated import command_of, generate
from vaultcube.cli.options import Json, ResultsDir, results_root
from vaultcube.cli.stressjudge import EXAMPLE as JUDGE_EXAMPLE
from vaultcube.cli.stressjudge import judge_verb
from vaultcube.workloads.stress import WORKLOAD, StressParams

if TYPE_CHECKING:
    from vaultcube.results.schema import Result
    from vaultcube.results.soakstatus import SoakStatus
    from vaultcube.workloads import Workload

EXAMPLE = "Example: vaultcube stress --hours 24"
# What has options of its own here.
FIELDS = {name: field for name, field in StressParams.model_fields.items() if name not in {"hours", "ladder"}}
SUMMARY = """Load every GPU for hours, check every result bit by bit, and judge what was seen.

It goes on by itself after a crash of vaultcube, the engine or the machine. docs/soak.md"""
Strict = Annotated[bool, typer.Option("--strict", help="Let UNAVAILABLE exit with 1.")]
Named = Annotated[str | None, typer.Argument(help="A soak's name or run.", show_default="the one that there is")]

app = typer.Typer(help=SUMMARY, epilog=EXAMPLE, add_completion=False, rich_markup_mode=None)


def _soak(
    ctx: typer.Context,
    workload: Any,
    *,
    params: dict[str, Any],
    hours: Annotated[
        float | None, typer.Option(help="Covered time wanted on every GPU.", show_default="24; a minute without a GPU")
    ] = None,
    ladder: Annotated[
        str | None,
        typer.Option(help="Hours at which to judge and stop at a FAIL; the last are all (1,6,24).", show_default=False),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(help="all, none, a count (2), or device=0,2.", show_default="all, or the CPU when there is none"),
    ] = None,
    share: Annotated[bool, typer.Option("--share", help="Take GPUs that another workload holds.")] = False,
    flavour: Annotated[FlavourName, typer.Option(help="Which CUDA the image carries.")] = "auto",
    profile: Annotated[
        str, typer.Option(help="Acceptance targets: a built-in profile or a TOML file.")
    ] = DEFAULT_PROFILE,
    name: Annotated[str | None, typer.Option(help="What the soak is called.", show_default="stress")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory limit of a worker (16g).", show_default=False)] = None,
    telemetry_hz: Annotated[float, typer.Option(min=0.1, max=10, help="Samples of each GPU a second.")] = 1.0,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when every worker has begun.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the soak that is not done (--name says which).")
    ] = False,
    results_dir: ResultsDir = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan, the override and the docker command; run nothing.")
    ] = False,
    strict: Strict = False,
    json: Json = False,
) -> None:
    if ctx.invoked_subcommand is not None:
        return
    from vaultcube.gpu.selection import parse_gpus
    from vaultcube.report import progress, terminal
    from vaultcube.results.store import RunStore
    from vaultcube.stack.plan import Request
    from vaultcube.stack.quantities import parse_hours, parse_memory
    from vaultcube.stack.soak.session import Asked, SoakSession
    from vaultcube.stack.soak.session import resume as go_on

    rungs = parse_hours(ladder) if ladder is not None else None
    whole = hours if hours is not None or not rungs else rungs[-1]
    root = results_root(results_dir)
    request = Request(
        gpus=parse_gpus(gpus),
        given={**params, "hours": whole, "ladder": rungs},
        flavour=flavour,
        memory_bytes=parse_memory(memory) if memory is not None else None,
        telemetry_hz=telemetry_hz,
        share=share,
        name=name,
    )
    if resume:
        asked = Asked(request.gpus if gpus is not None else None, whole, flavour)
        with progress.job_progress(sys.stderr) as shown:
            found, directory = go_on(RunStore(root), name, asked, shown, detach=detach)
    else:
        session = SoakSession(workload, request, profile=profile, results_root=root, probe=ctx.obj)
        if dry_run:
            sys.stdout.write(terminal.dry_run(session.plan(), session.directory_path(), as_json=json))
            return
        with progress.job_progress(sys.stderr) as shown:
            found, directory = session.soak(shown, detach=detach)
    _tell(found, directory, strict=strict, as_json=json)


def _tell(found: Result | SoakStatus, directory: Path, *, strict: bool, as_json: bool) -> None:
    """Print the result of a soak, or how it stands."""
    from vaultcube.report import soak
    from vaultcube.results.soakstatus import SoakStatus

    if isinstance(found, SoakStatus):
        sys.stdout.write(found.to_json() if as_json else soak.begun(found))
        return
    _conclude(found, directory, strict=strict, as_json=as_json)


def _conclude(result: Result, directory: Path, *, strict: bool, as_json: bool) -> None:
    from vaultcube.report import terminal
    from vaultcube.report.table import colored
    from vaultcube.stack.bench import conclude

    try:
        sys.stdout.write(result.to_json() if as_json else terminal.result(result, directory, color=colored(sys.stdout)))
    finally:
        conclude(result, strict=strict)


app.callback(invoke_without_command=True)(command_of(_soak, WORKLOAD, FIELDS))


def detached(workload: Workload) -> typer.Typer:
    """Return the command of `vaultcube up stress`: begin it, and return when every worker has begun."""
    return generate(
        partial(_soak, detach=True),
        workload,
        FIELDS,
        title=f"{SUMMARY}\n\nThe same as `vaultcube stress --detach`.",
        example="vaultcube up stress --hours 24",
        without={"detach", "resume", "strict"},
    )


@app.command("status", epilog="Example: vaultcube stress status")
def status_verb(soak: Named = None, *, results_dir: ResultsDir = None, json: Json = False) -> None:
    """Show how far soaks are, GPU by GPU."""
    import json as encoder

    from vaultcube.errors import NotFoundError
    from vaultcube.report import soak as shown
    from vaultcube.results.store import RunStore
    from vaultcube.stack.docker import Docker
    from vaultcube.stack.soak.session import last_soak, soak_statuses

    there = soak_statuses(Docker())
    found = [one for one in there if soak is None or soak in {one.name, one.run}]
    if soak is not None and not found:
        others = f"; there are: {', '.join(one.name for one in there)}" if there else ""
        raise NotFoundError(f"no soak {soak!r} has containers{others}")
    if json:
        sys.stdout.write(encoder.dumps([one.model_dump(mode="json", by_alias=True) for one in found], indent=2) + "\n")
        return
    last = None if found else last_soak(RunStore(results_root(results_dir)))
    sys.stdout.write("\n".join(shown.standing(one) for one in found) if found else shown.none_running(last))


@app.command("stop", epilog="Example: vaultcube stress stop")
def stop_verb(
    soak: Named = None, *, results_dir: ResultsDir = None, strict: Strict = False, json: Json = False
) -> None:
    """End a soak, running or done: judge it, keep the result, remove its containers."""
    from vaultcube.results.store import RunStore
    from vaultcube.stack.docker import Docker
    from vaultcube.stack.soak.session import stop

    result, directory = stop(RunStore(results_root(results_dir)), Docker(), soak)
    _conclude(result, directory, strict=strict, as_json=json)


app.command("judge", epilog=JUDGE_EXAMPLE)(judge_verb)
