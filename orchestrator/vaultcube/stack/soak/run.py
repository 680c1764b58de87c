"""One soak from start to result. Its containers outlive this process, the engine and the machine; this only looks on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

from vaultcube.errors import InterruptedRunError, RunTimeoutError, VaultCubeError
from vaultcube.results.events import AnyEvent, ErrorEvent, Started, one_line
from vaultcube.results.profile import to_toml
from vaultcube.results.schema import Result
from vaultcube.results.soakevents import Mismatch
from vaultcube.results.soakstatus import SoakStatus
from vaultcube.results.store import RESULT, RunDirectory
from vaultcube.results.writing import unwritable
from vaultcube.stack.buildlog import BuildLog
from vaultcube.stack.docker import Docker, EngineInfo, Exit
from vaultcube.stack.dockerwords import engine_is_gone
from vaultcube.stack.lifecycle import JobRun
from vaultcube.stack.override import ENDED, PROFILE
from vaultcube.stack.plan import Plan
from vaultcube.stack.reservation import Reservation
from vaultcube.stack.signals import Stop
from vaultcube.stack.soak.end import end_soak
from vaultcube.stack.soak.state import SoakState, WorkerLog

POLL_S, SHOW_S, LOOK_S = 0.5, 1.0, 5.0
# An engine that starts again brings containers back one after the other, and waits up to a minute between two tries.
GONE_S = 90.0
# Until every worker has said its first word: the frameworks come after it.
BEGIN_S = 60.0
# In the run's directory: the images that it was started with, by name.
IMAGES = "images.json"
# What a person who starts a soak again decides to forget.
MARKS = ("stop.json", ENDED, "*.stopped.json")


class SoakWatcher(Protocol):
    """Shows what goes on."""

    def note(self, text: str) -> None:
        """Show one line."""

    def building(self, log: BuildLog, lines: list[str]) -> None:
        """Show how far a build is."""

    def event(self, event: AnyEvent) -> None:
        """Show an event of a workload."""

    def soak(self, status: SoakStatus) -> None:
        """Show how far the soak is."""


class SoakRun(JobRun):
    """Executes the plan of a soak; see JobRun for the other arguments.

    Args:
        watcher: is shown how far it is, and what happens.
    """

    def __init__(
        self,
        plan: Plan,
        directory: RunDirectory,
        docker: Docker,
        stop: Stop,
        watcher: SoakWatcher,
        reservation: Reservation | None = None,
    ) -> None:
        super().__init__(plan, directory, docker, stop, watcher.event, reservation)
        self.watcher = watcher
        self.state = SoakState(plan, directory)
        self._silent = False
        self._gone_since: float | None = None

    def start(self, engine: EngineInfo) -> Result | None:
        """Bring it up, and return when every worker has said its first word.

        Returns:
            None, or the result of a soak that did not begin, after which nothing is left running.

        Raises:
            ResultsUnwritableError, DiskTooSmallError: the result cannot be written.
        """
        try:
            self._write_plan()
            self._up()
            self._resolve()
            if self._begun():
                return None
            cause: VaultCubeError | None = None
        except VaultCubeError as error:
            cause = error
        except BaseException:
            self._abandon(engine)
            raise
        return end_soak(self.plan, self.directory, self.docker.shielded(), cause, engine)

    def go_on(self, engine: EngineInfo, *, detach: bool) -> Result | SoakStatus:
        """Look on to its end, or only say how it stands; see `follow`."""
        return self.state.status(running=True) if detach else self.follow(engine)

    def follow(self, engine: EngineInfo) -> Result:
        """Look on until it has ended, clear it, judge it.

        A bug of ours on the way is raised, and the soak goes on: `--resume` finds it.

        Raises:
            ResultsUnwritableError, DiskTooSmallError: the result cannot be written.
        """
        cause: VaultCubeError | None = None
        try:
            self._follow()
        except VaultCubeError as error:
            cause = error
        return end_soak(self.plan, self.directory, self.docker.shielded(), cause, engine)

    def _write_plan(self) -> None:
        """Write down what will be done; what an earlier start left to say that it is over is forgotten."""
        folder = self.state.folder
        try:
            for mark in (path for pattern in MARKS for path in folder.glob(pattern)):
                mark.unlink(missing_ok=True)
            (self.directory.path / RESULT).unlink(missing_ok=True)
            (folder / RESULT).unlink(missing_ok=True)
            # Recorder and judge write here as members of the workers' group, and what they make belongs to it.
            os.chown(folder, -1, int(self.plan.user.partition(":")[2]))
            folder.chmod(0o2775)
        except OSError as error:
            raise unwritable(folder, error) from error
        self.directory.write(f"results/{PROFILE}", to_toml(self.plan.profile))
        (folder / PROFILE).chmod(0o644)
        super()._write_plan()
        if not (self.directory.path / IMAGES).exists():
            self.directory.write(IMAGES, json.dumps(image_ids(self.plan, self.docker), indent=2) + "\n")

    def _begun(self) -> bool:
        """Wait for the first word of every worker, and say whether all of them run."""
        deadline = time.monotonic() + BEGIN_S
        while time.monotonic() < deadline:
            self._read()
            if all(worker.starts for worker in self.state.workers):
                return True
            if any(worker.standing == "refused" for worker in self.state.workers):
                return False
            self.stop.wait(POLL_S)
            self.stop.check()
        # A machine that is busy: whoever looks on will see.
        return True

    def _follow(self) -> None:
        """Look on until every worker has ended for good.

        Raises:
            InterruptedRunError, RunTimeoutError: as named.
        """
        deadline = time.monotonic() + self.plan.timeout_s
        looked = shown = 0.0
        while True:
            self._read()
            if time.monotonic() - shown >= SHOW_S:
                shown = time.monotonic()
                self.watcher.soak(self.state.status(running=True))
            if time.monotonic() - looked >= LOOK_S or self.state.over:
                looked = time.monotonic()
                if self._ended():
                    return
            self.stop.wait(POLL_S)
            self.stop.check()
            if time.monotonic() > deadline:
                raise RunTimeoutError(f"the soak did not cover its hours in {self.plan.timeout_s:g} s")

    def _read(self) -> None:
        """Take what the workers wrote, and show what is worth a line."""
        for worker, event in self.state.read():
            text = describe(worker, event)
            if text is not None:
                self.watcher.note(f"  {text}")

    def _ended(self) -> bool:
        """Say whether no worker runs, nor will again. An engine that does not answer is waited for: it comes back."""
        try:
            exits = self._workers()
        except InterruptedRunError:
            raise
        except VaultCubeError as error:
            if not engine_is_gone(error):
                raise
            if not self._silent:
                self.watcher.note(f"the engine does not answer ({error.message}); the soak goes on when it comes back")
            self._silent, self._gone_since = True, None
            return False
        if self._silent:
            self.watcher.note("the engine answers again")
            self._silent = False
        if self.state.over and not any(exit_.running for exit_ in exits if not self._refused(exit_)):
            return True
        if any(exit_.running for exit_ in exits):
            self._gone_since = None
            return False
        if self._gone_since is None:
            self._gone_since = time.monotonic()
        return time.monotonic() - self._gone_since > GONE_S

    def _refused(self, exit_: Exit) -> bool:
        """Say whether a worker cannot run: its container is started again for nothing."""
        return any(worker.name == exit_.service and worker.standing == "refused" for worker in self.state.workers)

    def _workers(self) -> list[Exit]:
        """Return how the workers' containers stand."""
        names = {worker.service for worker in self.plan.workers}
        found = self.docker.exits([one.id for one in self.docker.containers(self.plan.run_id)])
        return [exit_ for exit_ in found if exit_.service in names]


def describe(worker: WorkerLog, event: AnyEvent) -> str | None:
    """Return the line that an event of a worker is worth, or None."""
    if isinstance(event, Started) and worker.starts > 1:
        return f"{worker.name}: started again, {worker.covered_s / 3600:.4g} h are covered"
    if isinstance(event, Mismatch):
        return f"{worker.name}: {event.elements} wrong element(s) in {one_line(event.phase)}"
    if isinstance(event, ErrorEvent):
        return f"{worker.name}: {one_line(event.message)}"
    if event.kind in {"paused", "resumed"}:
        return f"{worker.name}: {event.kind}"
    return None


def image_ids(plan: Plan, docker: Docker) -> dict[str, str]:
    """Return the ids of the plan's images, by name."""
    found = {name: docker.image(name) for name in plan.images}
    return {name: image.id for name, image in found.items() if image is not None}


def images_before(directory: RunDirectory) -> Mapping[str, str]:
    """Return the ids of the images that a soak was started with; none when that is not known."""
    with suppress(OSError, ValueError):
        found = json.loads((directory.path / IMAGES).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}
