"""`vaultcube-health`: the health checks as one file (a zipapp) that needs the host's Python and nothing else.

The same checks, words and exit codes as `vaultcube health`; argparse instead of Typer.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from vaultcube import __version__
from vaultcube.errors import InterruptedRunError, UsageError, VaultCubeError
from vaultcube.host.health import conclude, run_health
from vaultcube.host.machine import Machine
from vaultcube.report.health import report
from vaultcube.report.table import colored

if TYPE_CHECKING:
    from types import FrameType

    from vaultcube.host.words import HealthReport

PROGRAM = "vaultcube-health"
BUG = 4
MOST_PATIENCE = 100


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, next_step=f"See `{PROGRAM} --help`.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="Check whether the host is still as it was provisioned, layer by layer.",
        epilog=f"Example: sudo {PROGRAM} 1 3",
        allow_abbrev=False,
    )
    parser.add_argument(
        "layers",
        nargs="*",
        type=int,
        metavar="LAYER",
        help="1 base system, 2 driver, 3 GPUs in containers, 4 images, 5 orchestrator (default: those that are here)",
    )
    parser.add_argument("--check", action="append", metavar="CODE", help="only this check; may be repeated")
    parser.add_argument("--waive", action="append", metavar="CODE", help="what this check finds bad is UNAVAILABLE")
    parser.add_argument("--patience", type=int, default=1, metavar="N", help="programs may take N times longer")
    parser.add_argument("--no-probes", action="store_true", help="start no container and no network")
    parser.add_argument("--strict", action="store_true", help="exit with 1 for UNAVAILABLE too")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else on stdout")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    return parser


def show(found: HealthReport, *, as_json: bool) -> None:
    """Print what was found: a JSON document, or a table as wide as the terminal."""
    if as_json:
        sys.stdout.write(found.to_json())
    else:
        width = shutil.get_terminal_size().columns
        sys.stdout.write(report(found, width=width, color=colored(sys.stdout)))


def main(argv: list[str] | None = None) -> int:
    """Run the program and return its exit code: 0, 1 the host is not as it should be, 2 usage, 4 a bug, 130."""
    words = sys.argv[1:] if argv is None else argv
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        return _run(words)
    except VaultCubeError as error:
        return _told(error, as_json="--json" in words)
    except BrokenPipeError:
        # Nobody reads it any more; keep the interpreter from flushing again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told and no traceback
        sys.stderr.write(f"{PROGRAM}: this is a bug: {type(error).__name__}: {error}\n  next: Report it.  [bug]\n")
        return BUG


def _run(words: list[str]) -> int:
    asked = _parser().parse_args(words)
    if not 1 <= asked.patience <= MOST_PATIENCE:
        raise UsageError(f"--patience {asked.patience}: 1 to {MOST_PATIENCE}")
    machine = Machine(probes=not asked.no_probes, patience=asked.patience)
    found = run_health(machine, asked.layers, asked.check or (), asked.waive or ())
    try:
        show(found, as_json=asked.json)
        sys.stdout.flush()
    finally:
        conclude(found, strict=asked.strict)
    return 0


def _told(error: VaultCubeError, *, as_json: bool) -> int:
    if as_json and not error.in_result:
        told = {"code": error.code, "message": error.message, "next_step": error.next_step}
        sys.stdout.write(json.dumps({"error": told}, indent=2) + "\n")
    sys.stderr.write(f"{PROGRAM}: {error.message}\n  next: {error.next_step}  [{error.code}]\n")
    return error.exit_code


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    raise InterruptedRunError(f"stopped by {signal.Signals(number).name}")
