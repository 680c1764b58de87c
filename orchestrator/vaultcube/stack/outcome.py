"""How a run ended, read from exit codes and events. Pure."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field

from vaultcube.errors import (
    BadParameterError,
    ContainerKilledError,
    ContainerMemoryError,
    ContainerStoppedError,
    FewerDevicesError,
    FlavourError,
    GpuMemoryError,
    HubUnreachableError,
    InterruptedRunError,
    LibraryMissingError,
    ModelGatedError,
    ModelNotFoundError,
    ModelTooLargeError,
    ModelUnreadableError,
    ModelUnsupportedError,
    ResultsUnwritableError,
    RunTimeoutError,
    ServerDiedError,
    VaultCubeError,
    WorkloadError,
)
from vaultcube.results.envelope import LAUNCHER_RANK
from vaultcube.results.events import AnyEvent, ErrorEvent, one_line
from vaultcube.results.schema import Status
from vaultcube.results.writing import ROOM
from vaultcube.stack.docker import Exit

# What the programs in the images end with.
EXIT_USAGE, EXIT_HARDWARE, EXIT_UNWRITABLE, EXIT_INTERRUPTED = 64, 69, 74, 75
# What a program may say of itself by the code of an error; all else is told by its exit code.
NAMED: dict[str, type[VaultCubeError]] = {
    kind.code: kind
    for kind in (
        ModelNotFoundError,
        ModelGatedError,
        ModelTooLargeError,
        ModelUnreadableError,
        ModelUnsupportedError,
        HubUnreachableError,
        ContainerMemoryError,
        GpuMemoryError,
        LibraryMissingError,
        FewerDevicesError,
        ServerDiedError,
    )
}


@dataclass(kw_only=True)
class Outcome:
    """How a run ended: its status, the error if there was one, and what stood in its way."""

    status: Status
    error: VaultCubeError | None = None
    images: dict[str, str] = field(default_factory=dict)
    disturbances: list[str] = field(default_factory=list)


def classify(
    exits: Sequence[Exit], events: Sequence[AnyEvent], cause: VaultCubeError | None
) -> tuple[Status, VaultCubeError | None]:
    """Return the status and the error that names it best.

    Args:
        exits: the run's containers, stopped by now; empty when they are gone or never were.
        events: what the workload said.
        cause: what made the orchestrator stop the run, if it did.
    """
    if isinstance(cause, InterruptedRunError):
        return Status.INTERRUPTED, cause
    if isinstance(cause, RunTimeoutError):
        return Status.TIMEOUT, cause
    if cause is not None:
        return Status.FAILED, cause
    if not exits:
        return Status.FAILED, ContainerKilledError("the container is gone: somebody removed it")
    worst = max(
        _explained(exits, events), key=lambda exit_: (exit_.oom_killed and exit_.exit_code > 0, exit_.exit_code)
    )
    if worst.oom_killed and worst.exit_code:
        return Status.FAILED, ContainerMemoryError(f"{worst.service} was killed at its memory limit")
    if worst.exit_code == 0:
        return Status.COMPLETED, None
    return _failed(worst, _said(events, worst.exit_code))


def _explained(exits: Sequence[Exit], events: Sequence[AnyEvent]) -> Sequence[Exit]:
    """Return the exits without that of a client whose server was gone, where the server says why it went."""
    errors = [event for event in events if isinstance(event, ErrorEvent) and event.exit_code != EXIT_INTERRUPTED]
    why = {event.exit_code for event in errors if event.rank != LAUNCHER_RANK}
    if not any(_is_of_a_client(event) for event in errors):
        return exits
    return [exit_ for exit_ in exits if exit_.exit_code in why or exit_.oom_killed] or exits


def _is_of_a_client(event: ErrorEvent) -> bool:
    """Say whether a client says that its server is gone."""
    return event.rank == LAUNCHER_RANK and event.code == ServerDiedError.code


def _failed(worst: Exit, said: ErrorEvent | None) -> tuple[Status, VaultCubeError]:
    text = one_line(said.message) if said else f"{worst.service} ended with exit status {worst.exit_code}"
    step = one_line(said.next_step if said else "") or None
    named = NAMED.get(said.code) if said and worst.exit_code != EXIT_INTERRUPTED else None
    if named is not None:
        return Status.FAILED, named(text, next_step=step)
    if worst.exit_code == EXIT_USAGE:
        return Status.FAILED, BadParameterError(text, next_step=step)
    if worst.exit_code == EXIT_HARDWARE:
        return Status.FAILED, FlavourError(text, next_step=step)
    if worst.exit_code == EXIT_UNWRITABLE:
        if said is None:
            # Its own words are on its stderr alone: it had nothing else to write to.
            text = f"{worst.service} could not write what it found: the disk is full, or its folder is gone"
        return Status.FAILED, ResultsUnwritableError(text, next_step=ROOM)
    if worst.exit_code == EXIT_INTERRUPTED:
        return Status.INTERRUPTED, ContainerStoppedError(f"{worst.service} was stopped by somebody else")
    if 128 < worst.exit_code < 128 + signal.NSIG:  # noqa: PLR2004 - 128 + signal, as a shell says it
        return Status.FAILED, ContainerKilledError(f"{worst.service} was killed by signal {worst.exit_code - 128}")
    return Status.FAILED, WorkloadError(text, next_step=step)


def _said(events: Sequence[AnyEvent], exit_code: int) -> ErrorEvent | None:
    """Return the error event that explains an exit code: the first with that code, else the first at all.

    What a client says of a server that is gone is no explanation where the server says why.
    """
    errors = [event for event in events if isinstance(event, ErrorEvent)]
    errors.sort(key=_is_of_a_client)
    fitting = [event for event in errors if event.exit_code == exit_code]
    return next(iter(fitting or errors), None)
