"""Run directories: where runs are kept, one folder each, complete in itself.

<root>/<run id>/plan.json  compose.override.yml  compose.resolved.json  containers.json  container.log  result.json
<root>/<run id>/results/events.jsonl      written by the container
<root>/<run id>/telemetry/run.db          what the GPUs did meanwhile; recorder.log, when the recorder complained
<root>/<run id>/service.json                where a service answers, once it does
<root>/<run id>/run.lock                  held for as long as an orchestrator looks after the run
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from vaultcube.errors import NotFoundError, RunActiveError
from vaultcube.results.lock import LOCK, keeper
from vaultcube.results.profile import describe
from vaultcube.results.schema import Artifact, Result
from vaultcube.results.writing import writing

EVENTS = "results/events.jsonl"
RESULT = "result.json"
PLAN = "plan.json"
LOG = "container.log"
CONTAINERS = "containers.json"
SERVICE = "service.json"
TELEMETRY = "telemetry/run.db"
RECORDER_LOG = "telemetry/recorder.log"
# Kept aside so that a disk filled by a run can still take its result.json.
RESERVE = ".reserve"
RESERVE_BYTES = 256 * 1024
RUN_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def run_id(workload: str, stamp: str, suffix: str) -> str:
    """Return `<workload>-<stamp>-<suffix>`, fit for a compose project and a folder's name.

    Raises:
        ValueError: it would not be.
    """
    name = f"{workload}-{stamp}-{suffix}".lower()
    if not RUN_ID.fullmatch(name):
        raise ValueError(f"{name!r} is no run id")
    return name


def read_plain(path: Path, offset: int = 0) -> bytes:
    """Return what a file that a container wrote holds from an offset on.

    Nothing when there is none, and when it is no plain file: a container could put a link to a file of the host there, or
    a pipe that never ends.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        os.lseek(descriptor, offset, os.SEEK_SET)
        return b"".join(iter(lambda: os.read(descriptor, 2**20), b""))
    finally:
        os.close(descriptor)


class RunDirectory:
    """One run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name

    @property
    def events(self) -> Path:
        """The container's events."""
        return self.path / EVENTS

    def read_events(self, offset: int = 0) -> bytes:
        """Return what the events file holds from an offset on, as `read_plain` does."""
        return read_plain(self.events, offset)

    def write(self, name: str, text: str) -> None:
        """Write a file whole or not at all.

        Raises:
            ResultsUnwritableError, DiskTooSmallError: as named.
        """
        target = self.path / name
        part = target.with_name(f".{target.name}.part")
        with writing(target):
            try:
                with part.open("w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(target)
            except OSError:
                with suppress(OSError):
                    part.unlink()
                raise

    def write_result(self, result: Result) -> None:
        """Write result.json, giving up the reserve first.

        Raises:
            ResultsUnwritableError, DiskTooSmallError: as named.
        """
        (self.path / RESERVE).unlink(missing_ok=True)
        self.write(RESULT, result.to_json())

    def remove_unplanned(self) -> None:
        """Remove the folder if it has neither plan nor result: nothing was started from it."""
        if not any((self.path / name).exists() for name in (PLAN, RESULT)):
            shutil.rmtree(self.path, ignore_errors=True)

    def read_result(self) -> Result | None:
        """Return the result, or None when there is none yet.

        Raises:
            NotFoundError: result.json is there and is not one.
        """
        try:
            return Result.model_validate_json((self.path / RESULT).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            why = describe(error) if isinstance(error, ValidationError) else error.strerror
            raise NotFoundError(f"{self.path / RESULT} cannot be read as a result: {why}") from error

    def finished_result(self) -> Result:
        """Return the result of a run that has ended.

        Raises:
            RunActiveError: it is still going on.
            NotFoundError: nobody looks after it and it has no result, or result.json is not one.
        """
        result = self.read_result()
        if result is not None:
            return result
        if keeper(self.path) is not None:
            raise RunActiveError(f"{self.id} is still going on")
        raise NotFoundError(
            f"{self.id} has no result: the vaultcube that looked after it was killed",
            next_step="`vaultcube ps` shows whether containers are left, `vaultcube down RUN` clears and judges them.",
        )

    def artifacts(self) -> list[Artifact]:
        """Return every file of the run but the lock, the reserve and result.json itself, with its SHA-256."""
        files = sorted(file for file in self.path.rglob("*") if file.is_file() and not file.is_symlink())
        kept = [file for file in files if file.name not in {LOCK, RESERVE, RESULT} and not file.name.startswith(".")]
        return [Artifact(path=str(file.relative_to(self.path)), sha256=_sha256(file)) for file in kept]


class RunStore:
    """All run directories below one root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def create(self, name: str, *, owner: tuple[int, int] | None = None) -> RunDirectory:
        """Make a new run directory with its `results` folder.

        Args:
            name: the run id.
            owner: uid and gid to give `results` to, when the container runs as another user.

        Raises:
            ResultsUnwritableError, DiskTooSmallError: as named; nothing is left behind.
        """
        run = RunDirectory(self.root / name)
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            run.path.mkdir()
            try:
                (run.path / "results").mkdir()
                (run.path / RESERVE).write_bytes(b"\0" * RESERVE_BYTES)
                if owner is not None:
                    os.chown(run.path / "results", *owner)
            except OSError:
                shutil.rmtree(run.path, ignore_errors=True)
                raise
        return run

    def prove(self, name: str) -> None:
        """Make sure that a run directory could be made, before minutes are spent on an image.

        Raises:
            ResultsUnwritableError, DiskTooSmallError: it could not.
        """
        shutil.rmtree(self.create(f".{name}").path)

    def runs(self) -> list[RunDirectory]:
        """Return all runs, newest first by their ids' time."""
        if not self.root.is_dir():
            return []
        found = [path for path in self.root.iterdir() if (path / PLAN).is_file() and RUN_ID.fullmatch(path.name)]
        return [RunDirectory(path) for path in sorted(found, key=_time_order, reverse=True)]

    def find(self, name: str) -> RunDirectory:
        """Return a run by its id, the beginning of it, or `last`.

        Raises:
            NotFoundError: there is none, or more than one begins so.
        """
        runs = self.runs()
        if name == "last" and runs:
            return runs[0]
        exact = [run for run in runs if run.id == name]
        begins = exact or [run for run in runs if name and run.id.startswith(name)]
        if len(begins) == 1:
            return begins[0]
        if begins:
            raise NotFoundError(f"{len(begins)} runs begin with {name!r}: {', '.join(run.id for run in begins[:3])}")
        raise NotFoundError(f"there is no run {name!r} in {self.root}")


def _time_order(path: Path) -> str:
    """Return the id from its time on: the workload's name must not decide what is newest."""
    return path.name.split("-", 1)[-1]


def _sha256(file: Path) -> str:
    import hashlib

    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
