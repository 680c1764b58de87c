"""The `vaultcube` command: errors become two lines and an exit code, a bug becomes a crash log."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from vaultcube import __version__
from vaultcube.errors import DiskTooSmallError, InterruptedRunError, VaultCubeError

if TYPE_CHECKING:
    from types import FrameType

# Answered without Typer, which costs more than all they do.
QUICK = (["gpus"], ["gpus", "--json"])


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    # Imports make many objects and no garbage: collecting among them costs a tenth of the start.
    gc.set_threshold(50_000)
    _open_streams()
    argv, debug = _without_debug(sys.argv[1:])
    if argv == ["--version"]:
        sys.stdout.write(f"vaultcube {__version__}\n")
        sys.exit(0)
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    code = _run(argv, debug=debug)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            # A reader that went away is no failure of ours, a full disk is. Keep the interpreter from flushing again.
            code = code if isinstance(error, BrokenPipeError) else _report(_no_room(), as_json=False)
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if argv in QUICK:
        # Everything is written; taking all imports down in order costs a sixth of the whole.
        os._exit(code)
    sys.exit(code)


def _run(argv: list[str], *, debug: bool) -> int:
    """Run the command line and return its exit code."""
    from vaultcube.cli.early import begin_probe, print_gpus

    probe = None
    try:
        if argv in QUICK:
            print_gpus(as_json=argv[1:] == ["--json"])
            return 0
        probe = begin_probe(argv)
        from vaultcube.cli.main import dispatch

        dispatch(argv, probe)
    except VaultCubeError as error:
        if debug:
            raise
        return _report(error, as_json="--json" in argv)
    except BrokenPipeError:
        # `vaultcube runs list | head`: whoever read us had enough.
        return 0
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return _report(_no_room(), as_json=False)
        if isinstance(error.__cause__, InterruptedRunError):
            # A signal while a class was being made: Python before 3.12 hides in a RuntimeError what __set_name__ raises.
            return _report(error.__cause__, as_json="--json" in argv)
        from vaultcube.cli.crash import crash

        return _report(crash(error, argv), as_json="--json" in argv)
    finally:
        if probe is not None:
            probe.cancel()
    return 0


def _no_room() -> DiskTooSmallError:
    return DiskTooSmallError("the output cannot be written: no space is left where it goes")


def _open_streams() -> None:
    """Open what the caller closed (`>&-`), so that the next file we open does not take its place."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    raise InterruptedRunError(f"stopped by {signal.Signals(number).name}")


def _without_debug(argv: list[str]) -> tuple[list[str], bool]:
    """Take `--debug` out wherever it stands before a `--`."""
    end = argv.index("--") if "--" in argv else len(argv)
    return [word for at, word in enumerate(argv) if at >= end or word != "--debug"], "--debug" in argv[:end]


def _report(error: VaultCubeError, *, as_json: bool) -> int:
    if as_json and not error.in_result:
        import json

        told = {"code": error.code, "message": error.message, "next_step": error.next_step}
        sys.stdout.write(json.dumps({"error": told}, indent=2) + "\n")
    sys.stderr.write(f"vaultcube: {error.message}\n  next: {error.next_step}  [{error.code}]\n")
    return error.exit_code


if __name__ == "__main__":
    main()
