"""Commands made from a workload's parameters: one option a parameter, after those that all workloads share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

import typer
from typer.core import TyperGroup

from vaultcube.errors import UsageError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from vaultcube.workloads import Workload

# The parameter that takes what stands after `--`.
FLAGS = "flags"


class WorkloadGroup(TyperGroup):
    """One command a workload, made when it is called. A verb's own group says how (`make`) and for which (`names`)."""

    def names(self) -> Iterable[str]:
        """Return the names of the workloads that have this verb."""
        from vaultcube import workloads

        return workloads.names()

    def make(self, workload: Workload) -> typer.Typer:
        """Return the command of a workload."""
        raise NotImplementedError

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - Typer's signature
        """Return the workloads' names."""
        return list(self.names())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - Typer's signature
        """Return a workload's command, or None for an unknown one."""
        from vaultcube import workloads

        if cmd_name not in self.names():
            return None
        command = typer.main.get_command(self.make(workloads.load(cmd_name)))
        command.name = cmd_name
        return command


def generate(
    common: Callable[..., None],
    workload: Workload,
    fields: dict[str, FieldInfo],
    *,
    title: str,
    example: str,
    without: Collection[str] = (),
) -> typer.Typer:
    """Return an app of one command: the options of `common`, then one a field.

    Args:
        common: gets `workload`, `params` (what was given, by name) and its own options.
        workload: which one.
        fields: its parameters.
        title: the first lines of --help.
        example: a command line that works.
        without: options of `common` that say nothing to this workload.
    """
    one = typer.Typer(rich_markup_mode=None, add_completion=False)
    made = one.command(name=workload.name, help=title, epilog=f"Example: {example}")
    made(command_of(common, workload, fields, without))
    return one


def command_of(
    common: Callable[..., None], workload: Workload, fields: dict[str, FieldInfo], without: Collection[str] = ()
) -> Callable[..., None]:
    """Return a function with the options of `common` and one a field; see `generate` for the arguments."""

    def command(**given: Any) -> None:
        params = {name: given.pop(name) for name in fields}
        if params.get("data"):
            params["data"] = str(Path(params["data"]).expanduser().resolve())
        if params.get("model"):
            params["model"] = _model(params["model"])
        if FLAGS in params:
            params[FLAGS] = _flags(params[FLAGS])
        common(given.pop("ctx"), workload, params=params, **given)

    shared = inspect.signature(common, eval_str=True).parameters
    kept = [parameter for name, parameter in shared.items() if name not in {"workload", "params", *without}]
    own = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(name, field))
        for name, field in fields.items()
    ]
    command.__signature__ = inspect.Signature([*kept, *own])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in [*kept, *own]}
    return command


def _option(name: str, field: FieldInfo) -> Any:
    if name == FLAGS:
        return Annotated[
            list[str] | None, typer.Argument(metavar="[-- FLAG...]", help=f"{field.description}.", show_default=False)
        ]
    option = typer.Option(help=f"{field.description}.", show_default=False)
    return Annotated[_plain(field.annotation) | None, option]


def _model(text: str) -> str:
    """Return a model's directory as an absolute path; what names no directory is left as it is."""
    path = Path(text).expanduser()
    return str(path.resolve()) if text.startswith(("/", "./", "../", "~")) or path.is_dir() else text


def _flags(words: list[str] | None) -> tuple[str, ...] | None:
    """Return what stood after `--`; a word without it in front is a slip.

    Raises:
        UsageError: the first of them is no flag.
    """
    if words and not words[0].startswith("-"):
        raise UsageError(
            f"unexpected argument {words[0]!r}", next_step="Flags of the server itself come last, after --."
        )
    return tuple(words) if words else None


def _plain(annotation: Any) -> Any:
    """Return a field's type as Typer takes it: without None, without pydantic's constraints."""
    if get_origin(annotation) in {Union, UnionType}:
        return _plain(next(part for part in get_args(annotation) if part is not type(None)))
    if get_origin(annotation) is Annotated:
        return get_args(annotation)[0]
    return annotation
