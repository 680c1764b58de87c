"""`vaultcube bench WORKLOAD`: measure and judge. The options of a workload come from its parameters."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vaultcube.cli.generated import WorkloadGroup, generate
from vaultcube.cli.options import HfTokenFile, Json, ResultsDir, given_secrets, results_root

if TYPE_CHECKING:
    from vaultcube.workloads import Workload

DEFAULT_PROFILE = "vault-cube-5090"

FlavourName = Literal["auto", "cu124", "cu128", "cpu"]
RecorderName = Literal["process", "container", "off"]


class BenchGroup(WorkloadGroup):
    """`bench`: every workload that is measured and ends by itself; a soak has a verb of its own."""

    def names(self) -> Iterable[str]:
        """Return their names."""
        from vaultcube import workloads

        return [name for name in workloads.names() if not isinstance(workloads.load(name), workloads.Soak)]

    def make(self, workload: Workload) -> typer.Typer:
        """Return the command of a workload."""
        from vaultcube.workloads import Service

        presets = f"Presets: {', '.join(workload.presets)}; the default is acceptance on GPUs and smoke on the CPU."
        return generate(
            _bench,
            workload,
            workload.params_type.model_fields,
            title=f"{workload.summary}.\n\n{presets}",
            example=f"vaultcube bench {workload.name} --preset smoke --gpus none",
            without={"ranks"} if isinstance(workload, Service) else {"instance", "hf_token_file"},
        )


app = typer.Typer(
    cls=BenchGroup,
    help="Run a workload to its end, measure it, and judge it.",
    epilog="Example: vaultcube bench ddp --gpus device=0,1",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    """Make it a group."""


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
    instance: Annotated[
        str | None, typer.Option(help="Measure an instance that `up` started.", show_default=False)
    ] = None,
    hf_token_file: HfTokenFile = None,
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
    from vaultcube.stack.plan import Request
    from vaultcube.stack.quantities import parse_duration, parse_memory
    from vaultcube.workloads import Service

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
    root = results_root(results_dir)
    if instance is not None:
        from vaultcube.stack.measure import MeasureSession

        session: bench.Session = MeasureSession(
            workload, request, profile=profile, results_root=root, probe=ctx.obj, instance=instance
        )
    else:
        secrets = given_secrets(hf_token_file) if isinstance(workload, Service) else {}
        session = bench.Session(workload, request, profile=profile, results_root=root, probe=ctx.obj, secrets=secrets)
    servers = (params.get("replicas") or 1) if isinstance(workload, Service) else 0
    if dry_run:
        sys.stdout.write(terminal.dry_run(session.plan(), session.directory_path(), as_json=json))
        return
    with progress.job_progress(sys.stderr, servers) as shown:
        result, directory = session.run(shown)
    try:
        sys.stdout.write(result.to_json() if json else terminal.result(result, directory, color=colored(sys.stdout)))
    finally:
        # Also when nobody reads it any more: the exit code is the verdict.
        bench.conclude(result, strict=strict)
