"""`vaultcube bench WORKLOAD`: measure and judge. The options of a workload come from its parameters."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer
from typer.core import TyperGroup

from vaultcube.cli.options import Json, ResultsDir, results_root

if TYPE_CHECKING:
    from vaultcube.workloads import Workload

DEFAULT_PROFILE = "vault-cube-5090"

FlavourName = Literal["auto", "cu124", "cu128", "cpu"]
RecorderName = Literal["process", "container", "off"]


class WorkloadGroup(TyperGroup):
    """One command a workload, made from its parameters when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - Typer's signature
        """Return the workloads' names."""
        from vaultcube import workloads

        return workloads.names()

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - Typer's signature
        """Return a workload's command, or None for an unknown one."""
        from vaultcube import workloads

        if cmd_name not in workloads.names():
            return None
        command = typer.main.get_command(_app(workloads.load(cmd_name)))
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=WorkloadGroup,
    help="Run a workload to its end, measure it, and judge it.",
    epilog="Example: vaultcube bench ddp --gpus device=0,1",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    """Make it a group."""


def _app(workload: Workload) -> typer.Typer:
    one = typer.Typer(rich_markup_mode=None, add_completion=False)
    one.command(
        name=workload.name,
        help=f"{workload.summary}.\n\nPresets: {', '.join(workload.presets)}; the default is acceptance on GPUs and smoke on the CPU.",
        epilog=f"Example: vaultcube bench {workload.name} --preset smoke --gpus none",
    )(_command(workload))
    return one


def _command(workload: Workload) -> Callable[..., None]:
    """Return the function behind `bench WORKLOAD`: the common options, then one an entry of the parameters."""
    fields = workload.params_type.model_fields

    def command(**given: Any) -> None:
        params = {name: given.pop(name) for name in fields}
        if params.get("data"):
            params["data"] = str(Path(params["data"]).expanduser().resolve())
        _bench(given.pop("ctx"), workload, params=params, **given)

    common = inspect.signature(_bench, eval_str=True).parameters
    kept = [parameter for name, parameter in common.items() if name not in {"workload", "params"}]
    own = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                _plain(field.annotation) | None,
                typer.Option(help=f"{field.description}.", show_default=False),
            ],
        )
        for name, field in fields.items()
    ]
    command.__signature__ = inspect.Signature([*kept, *own])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in [*kept, *own]}
    return command


def _plain(annotation: Any) -> Any:
    """Return a field's type as Typer takes it: without None, without pydantic's constraints."""
    if get_origin(annotation) in {Union, UnionType}:
        return next(part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is Annotated:
        return get_args(annotation)[0]
    return annotation


def _bench(
    ctx: typer.Context,
    workload: Any,
    *,
    params: dict[str, Any],
    gpus: Annotated[
        str | None,
        typer.Option(help="all, none, a count (2), or device=0,2.", show_default="all, or the CPU when there is none"),
    ] = None,
    share: Annotated[bool, typer.Option("--share", help="Take GPUs that another workload holds.")] = False,
    flavour: Annotated[FlavourName, typer.Option(help="Which CUDA the image carries.")] = "auto",
    preset: Annotated[str | None, typer.Option(help="A named set of parameters.", show_default=False)] = None,
    profile: Annotated[
        str, typer.Option(help="Acceptance targets: a built-in profile or a TOML file.")
    ] = DEFAULT_PROFILE,
    ranks: Annotated[int | None, typer.Option(min=1, max=1024, help="Ranks on the CPU.", show_default="2")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory limit of the container (8g).", show_default=False)] = None,
    timeout: Annotated[str | None, typer.Option(help="Stop the run after this long (30m).", show_default=False)] = None,
    recorder: Annotated[
        RecorderName | None,
        typer.Option(
            help="What records the GPUs: a process, a container that outlives it, or nothing.", show_default="process"
        ),
    ] = None,
    telemetry_hz: Annotated[float, typer.Option(min=0.1, max=10, help="Samples of each GPU a second.")] = 1.0,
    results_dir: ResultsDir = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan, the override and the docker command; run nothing.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Let UNAVAILABLE exit with 1.")] = False,
    json: Json = False,
) -> None:
    from vaultcube.gpu.selection import parse_gpus
    from vaultcube.report import progress, terminal
    from vaultcube.report.table import colored
    from vaultcube.stack import bench
    from vaultcube.stack.plan import Request, parse_duration, parse_memory

    request = Request(
        gpus=parse_gpus(gpus),
        preset=preset,
        given=params,
        flavour=flavour,
        timeout_s=parse_duration(timeout) if timeout is not None else None,
        memory_bytes=parse_memory(memory) if memory is not None else None,
        ranks=ranks,
        recorder=recorder,
        telemetry_hz=telemetry_hz,
        share=share,
    )
    session = bench.Session(workload, request, profile=profile, results_root=results_root(results_dir), probe=ctx.obj)
    if dry_run:
        sys.stdout.write(terminal.dry_run(session.plan(), session.directory_path(), as_json=json))
        return
    with progress.job_progress(sys.stderr) as shown:
        result, directory = session.run(shown)
    try:
        sys.stdout.write(result.to_json() if json else terminal.result(result, directory, color=colored(sys.stdout)))
    finally:
        # Also when nobody reads it any more: the exit code is the verdict.
        bench.conclude(result, strict=strict)
