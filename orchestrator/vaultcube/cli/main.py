"""The verbs, each imported only when it is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from vaultcube import __version__
from vaultcube.errors import UsageError

if TYPE_CHECKING:
    from vaultcube.stack.docker import Probe

# Typer brings its own copy of Click or takes Click's, depending on its version: ask it for the class.
TyperUsageError: Any = typer.BadParameter.__base__

# verb -> module in this package; the order is that of --help.
VERBS = ("up", "bench", "stress", "ps", "logs", "down", "gpus", "doctor", "health", "monitor", "runs", "images", "host")


class LazyGroup(TyperGroup):
    """A group that imports a verb's module when the verb is called, so that `--version` costs no more than Typer."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - Typer's signature
        """Return the verbs in their order."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - Typer's signature
        """Import a verb's module and return its command, or None for an unknown verb."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"vaultcube.cli.{cmd_name}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=LazyGroup,
    help="Turn a bare multi-GPU workstation into one that is proven to work.",
    epilog="Example: vaultcube bench ddp",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


def _print_version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"vaultcube {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")] = False,
) -> None:
    """Hold the options of every verb; both are read before Typer sees the command line."""


def dispatch(argv: list[str], probe: Probe | None = None) -> None:
    """Run one command.

    Args:
        argv: the command line.
        probe: a question to the engine that is under way, for the verbs that ask it.

    Raises:
        BrokenPipeError: whoever read our output went away.
        VaultCubeError: the command failed in a way that is told in two lines; UsageError for what Typer refused.
        SystemExit: with 2, after a verb that needs more words showed its help.
    """
    try:
        typer.main.get_command(app).main(args=argv, prog_name="vaultcube", standalone_mode=False, obj=probe)
    except SystemExit as end:
        # The one way in which Typer still ends the process itself.
        raise BrokenPipeError from end
    except TyperUsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            raise SystemExit(UsageError.exit_code) from error
        command = error.ctx.command_path if error.ctx else "vaultcube"
        message = " ".join(error.format_message().split())
        raise UsageError(message, next_step=f"See `{command} --help`.") from error
