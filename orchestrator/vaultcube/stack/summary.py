"""One line about a kept run, whatever state it is in."""

from __future__ import annotations

from vaultcube.errors import VaultCubeError
from vaultcube.results.lock import keeper
from vaultcube.results.schema import Model
from vaultcube.results.store import RunDirectory
from vaultcube.stack.ending import read_plan


class Summary(Model):
    """A run in short. `status` is also `running`, `lost` (nobody looks after it and it has no result) or `unreadable`."""

    id: str
    workload: str
    started: str
    status: str
    verdict: str
    directory: str


def summarise(directory: RunDirectory) -> Summary:
    """Return a run in short. Files that cannot be read make it `unreadable`, never an error."""
    try:
        result = directory.read_result()
        if result is not None:
            return Summary(
                id=directory.id,
                workload=result.run.workload,
                started=result.run.started.isoformat(timespec="seconds"),
                status=result.run.status,
                verdict=result.verdict,
                directory=str(directory.path),
            )
        plan = read_plan(directory)
    except VaultCubeError:
        return Summary(
            id=directory.id, workload="-", started="-", status="unreadable", verdict="-", directory=str(directory.path)
        )
    return Summary(
        id=directory.id,
        workload=plan.workload,
        started=plan.created.isoformat(timespec="seconds"),
        status="running" if keeper(directory.path) is not None else "lost",
        verdict="-",
        directory=str(directory.path),
    )
