"""What is running, whoever started it, and how it is cleared. Always derived from the engine, never stored."""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from vaultcube.errors import NotFoundError, UsageError, VaultCubeError
from vaultcube.results.store import PLAN, RunDirectory
from vaultcube.stack.docker import Container, Docker
from vaultcube.stack.lifecycle import STOP_GRACE_S, finish_orphan
from vaultcube.stack.process import replace

KEEPER_PATIENCE_S = STOP_GRACE_S + 20.0
POLL_S = 0.1


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
    keeper = RunDirectory(Path(first.run_dir)).keeper() if first.run_dir else None
    return Instance(run, first.workload, state, keeper, first.run_dir)


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


def take_down(instance: Instance, docker: Docker) -> str:
    """Stop an instance and remove what it left, keeping what it measured.

    Returns:
        One line of what was done.

    Raises:
        VaultCubeError: the engine did not do it.
    """
    directory = RunDirectory(Path(instance.directory)) if instance.directory else None
    if instance.keeper is not None and _ask_keeper(instance.keeper, directory):
        return f"{instance.run}: stopped by its own vaultcube (pid {instance.keeper})"
    if directory is not None and (directory.path / PLAN).is_file() and directory.read_result() is None:
        try:
            with directory.locked():
                result = finish_orphan(directory, docker)
        except VaultCubeError:
            docker.remove_project(instance.run, grace_s=STOP_GRACE_S)
            raise
        return f"{instance.run}: cleared; {result.run.status}, what it had measured is in {directory.path}"
    docker.remove_project(instance.run, grace_s=STOP_GRACE_S)
    return f"{instance.run}: cleared"


def _ask_keeper(pid: int, directory: RunDirectory | None) -> bool:
    """Tell the orchestrator to stop, and wait until it let go; say whether it did."""
    try:
        os.kill(pid, signal.SIGTERM)
    except (ProcessLookupError, PermissionError):
        return False
    deadline = time.monotonic() + KEEPER_PATIENCE_S
    while directory is not None and directory.keeper() == pid:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def follow_logs(instance: Instance, *, follow: bool) -> None:
    """Become `docker compose logs` of an instance; does not return."""
    replace(["docker", "compose", "--project-name", instance.run, "logs", *(["--follow"] if follow else [])])
