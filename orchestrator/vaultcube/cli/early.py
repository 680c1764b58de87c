"""What a run can ask the engine while the command line is still being imported, on the other core."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from vaultcube.errors import EngineMissingError

if TYPE_CHECKING:
    from vaultcube.stack.docker import Probe

# With these nothing is run, so the engine is not asked either.
QUIET = frozenset({"--help", "--dry-run"})


def begin_probe(argv: list[str]) -> Probe | None:
    """Ask for the versions of engine and compose and for our images, if the command line looks like a run."""
    if argv[:1] != ["bench"] or not argv[1:] or not QUIET.isdisjoint(argv):
        return None
    from vaultcube.stack.docker import Docker

    # Without docker the run says so itself, after the command line was found to make sense.
    with suppress(EngineMissingError):
        return Docker().begin_probe()
    return None
