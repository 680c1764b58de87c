"""`vaultcube up WORKLOAD`: start a service and leave it running."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaultcube.cli.bench import DEFAULT_PROFILE, FlavourName
from vaultcube.cli.generated import WorkloadGroup, generate
from vaultcube.cli.options import HfTokenFile, Json, ResultsDir, given_secrets, results_root

if TYPE_CHECKING:
    from vaultcube.workloads import Workload


class UpGroup(WorkloadGroup):
    """`up`: the workloads that go on when the command has ended."""

    def names(self) -> Iterable[str]:
        """Return their names."""
        from vaultcube import workloads

        going = (workloads.Service, workloads.Soak)
        return [name for name in workloads.names() if isinstance(workloads.load(name), going)]

    def make(self, workload: Workload) -> typer.Typer:
        """Return the command of one."""
        from vaultcube.workloads import Service, Soak

        if isinstance(workload, Soak):
            from vaultcube.cli.stress import detached

            return detached(workload)
        if not isinstance(workload, Service):
            raise TypeError(workload)
        return generate(
            _up,
            workload,
            workload.serve_type.model_fields,
            title=f"{workload.summary}.\n\nStarts it, shows how far it is, and leaves it running when it answers.",
            example=f"vaultcube up {workload.name} --model Qwen/Qwen2.5-7B-Instruct --gpus device=0",
        )


app = typer.Typer(
    cls=UpGroup,
    help="Start a service, and leave it running when it answers.",
    epilog="Example: vaultcube up vllm",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    """Make it a group."""


def _up(
    ctx: typer.Context,
    workload: Any,
    *,
    params: dict[str, Any],
    gpus: Annotated[
        str | None,
        typer.Option(help="all, none, a count (2), or device=0,2.", show_default="what the model is spread over"),
    ] = None,
    share: Annotated[bool, typer.Option("--share", help="Take GPUs that another workload holds.")] = False,
    flavour: Annotated[FlavourName, typer.Option(help="Which CUDA the image carries.")] = "auto",
    name: Annotated[
        str | None, typer.Option(help="What the instance is called.", show_default="the workload's name")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to answer on.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port to answer on.", show_default="the first free from 8000")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with the key that clients must send.", show_default="VLLM_API_KEY")
    ] = None,
    hf_token_file: HfTokenFile = None,
    memory: Annotated[str | None, typer.Option(help="Memory limit of a server (64g).", show_default=False)] = None,
    timeout: Annotated[
        str | None, typer.Option(help="Give up when it does not answer after this long (30m).", show_default="2h")
    ] = None,
    results_dir: ResultsDir = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan, the override and the docker command; run nothing.")
    ] = False,
    json: Json = False,
) -> None:
    from vaultcube.gpu.selection import parse_gpus
    from vaultcube.report import progress, service, terminal
    from vaultcube.results.schema import Result
    from vaultcube.stack import bench
    from vaultcube.stack.plan import Request
    from vaultcube.stack.quantities import parse_duration, parse_memory
    from vaultcube.stack.up import UpSession

    request = Request(
        purpose="up",
        gpus=parse_gpus(gpus),
        given=params,
        flavour=flavour,
        timeout_s=parse_duration(timeout) if timeout is not None else None,
        memory_bytes=parse_memory(memory) if memory is not None else None,
        share=share,
        name=name,
    )
    session = UpSession(
        workload,
        request,
        profile=DEFAULT_PROFILE,
        results_root=results_root(results_dir),
        probe=ctx.obj,
        secrets=given_secrets(hf_token_file, api_key_file, serve=True),
    )
    session.answer_on(host, port)
    if dry_run:
        sys.stdout.write(terminal.dry_run(session.plan(), session.directory_path(), as_json=json))
        return
    with progress.job_progress(sys.stderr, params.get("replicas") or 1) as shown:
        found = session.up(shown)
    if isinstance(found, Result):
        # There is no service to print; the error says it all.
        bench.conclude(found, strict=False, printed=False)
        return
    sys.stdout.write(found.to_json() if json else service.running(found))
