"""What is running, whoever started it. Always derived from the engine, never stored."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from vaultcube.errors import NotFoundError, UsageError
from vaultcube.results.lock import keeper
from vaultcube.stack.docker import Container, Docker


@dataclass(frozen=True)
class Instance:
    """A run that has containers or networks.

    Attributes:
        run: its id.
        workload: what it runs; empty when only a network is left.
        state: `running`, or how its containers stand; `network left` when there are none.
        keeper: pid of the orchestrator that looks after it, or None for an orphan.
        directory: its run directory; empty when unknown.
    """

    run: str
    workload: str
    state: str
    keeper: int | None
    directory: str

    def as_dict(self) -> dict[str, str | int | None]:
        """Return it as plain data."""
        return asdict(self)


def instances(docker: Docker) -> list[Instance]:
    """Return everything of ours that the engine holds.

    Raises:
        VaultCubeError: the engine does not answer.
    """
    containers, networks = docker.everything()
    by_run: dict[str, list[Container]] = defaultdict(list)
    for container in containers:
        by_run[container.run].append(container)
    for run in networks:
        by_run.setdefault(run, [])
    return [_instance(run, found) for run, found in sorted(by_run.items())]


def _instance(run: str, containers: list[Container]) -> Instance:
    if not containers:
        return Instance(run, "", "network left", None, "")
    first = containers[0]
    states = {container.state for container in containers}
    state = "running" if "running" in states else ", ".join(sorted(states))
    looked_after_by = keeper(Path(first.run_dir)) if first.run_dir else None
    return Instance(run, first.workload, state, looked_after_by, first.run_dir)


def pick(found: list[Instance], name: str | None) -> Instance:
    """Return the instance of that name, or of the only one whose name begins so; None means the only one there is.

    Raises:
        NotFoundError: there is none.
        UsageError: more than one fits.
    """
    fitting = [one for one in found if name is None or one.run == name] or [
        one for one in found if name and one.run.startswith(name)
    ]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise NotFoundError(f"nothing of the name {name!r} is running" if name else "nothing is running")
    names = ", ".join(one.run for one in fitting)
    raise UsageError(f"{len(fitting)} are there: {names}", next_step="Name one of them, or use --all.")
