"""Clearing what is running, without losing what it measured."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from vaultcube.errors import RunActiveError, VaultCubeError
from vaultcube.results.lock import keeper, locked
from vaultcube.results.schema import Result
from vaultcube.results.store import PLAN, RESULT, RunDirectory
from vaultcube.stack.docker import Docker
from vaultcube.stack.ending import SERVER_GRACE_S, STOP_GRACE_S, finish_orphan, read_plan
from vaultcube.stack.instances import Instance
from vaultcube.stack.secrets import forget_secrets
from vaultcube.stack.service import finish_service

KEEPER_PATIENCE_S = SERVER_GRACE_S + 20.0
POLL_S = 0.1


def take_down(instance: Instance, docker: Docker) -> str:
    """Stop an instance and remove what it left, keeping what it measured.

    Returns:
        One line of what was done.

    Raises:
        RunActiveError: somebody else is clearing it.
        VaultCubeError: the engine did not do it.
    """
    directory = RunDirectory(Path(instance.directory)) if instance.directory else None
    if instance.keeper is not None and _ask_keeper(instance.keeper, directory):
        return f"{instance.run}: stopped by its own vaultcube (pid {instance.keeper})"
    if directory is not None and (directory.path / PLAN).is_file() and not (directory.path / RESULT).exists():
        with locked(directory.path):
            try:
                result = finish(directory, docker)
            except VaultCubeError:
                docker.remove_project(instance.run, grace_s=SERVER_GRACE_S if instance.name else STOP_GRACE_S)
                raise
        return f"{instance.called}: {'stopped' if instance.name else 'cleared'}; {result.run.status}, what it had measured is in {directory.path}"
    docker.remove_project(instance.run, grace_s=SERVER_GRACE_S if instance.name else STOP_GRACE_S)
    forget_secrets(instance.run)
    return f"{instance.called}: cleared"


def settle(directory: RunDirectory, docker: Docker) -> str:
    """Judge a run that has no containers any more and no result, because its orchestrator was killed in between.

    Returns:
        One line of what was done.

    Raises:
        RunActiveError: its orchestrator lives and is at work before or after its containers.
        VaultCubeError: the engine does not answer, or the plan cannot be read.
    """
    if directory.read_result() is not None:
        return f"{directory.id}: nothing of it is running"
    if keeper(directory.path) is not None:
        raise RunActiveError(f"{directory.id} is just starting or ending")
    with locked(directory.path):
        result = finish(directory, docker)
    return f"{directory.id}: {result.run.status}; what it had measured is in {directory.path}"


def finish(directory: RunDirectory, docker: Docker) -> Result:
    """Clear a run that nobody looks after and judge it: a service that was left running, or an orphan.

    Raises:
        VaultCubeError: the engine does not answer, or the plan cannot be read.
    """
    plan = read_plan(directory)
    if plan.purpose == "soak":
        from vaultcube.stack.soak.end import finish_soak

        return finish_soak(plan, directory, docker)
    return finish_service(plan, directory, docker) if plan.purpose == "up" else finish_orphan(directory, docker)


def _ask_keeper(pid: int, directory: RunDirectory | None) -> bool:
    """Tell the orchestrator to stop, and wait until it let go; say whether it did."""
    try:
        os.kill(pid, signal.SIGTERM)
    except (ProcessLookupError, PermissionError):
        return False
    deadline = time.monotonic() + KEEPER_PATIENCE_S
    while directory is not None and keeper(directory.path) == pid:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
