"""What is done before the command line is imported: `gpus` whole, and a run's first question to the engine."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from vaultcube.errors import EngineMissingError

if TYPE_CHECKING:
    from vaultcube.stack.docker import Probe

# With these nothing is run, so the engine is not asked either.
QUIET = frozenset({"--help", "--dry-run"})


def begin_probe(argv: list[str]) -> Probe | None:
    """Ask for the versions of engine and compose and for our images, if the command line looks like a run."""
    if argv[:1] not in (["bench"], ["up"]) or not argv[1:] or not QUIET.isdisjoint(argv):
        return None
    from vaultcube.stack.docker import Docker

    # Without docker the run says so itself, after the command line was found to make sense.
    with suppress(EngineMissingError):
        return Docker().begin_probe()
    return None


def print_gpus(*, as_json: bool) -> None:
    """Print the GPUs of this machine. That there are none, or no driver, is an answer and no error."""
    from vaultcube.stack.asking import Containers

    # The engine takes longest, so it is asked before anything else is imported.
    asked = Containers()
    try:
        from vaultcube.report.gpus import show
        from vaultcube.stack.snapshot import take_snapshot

        told = show(take_snapshot(asked), sys.stdout, as_json=as_json)
    finally:
        asked.cancel()
    sys.stdout.write(told)
