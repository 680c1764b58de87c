"""The real recorder over a simulated box, as a process of its own, and its file as it grows."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.docker.conftest import until
from tests.rig.box import Box
from tests.unit.support import unmeasured

from vaultcube.gpu.telemetry import Event, Summary, Telemetry, TelemetryError

RECORDER = [sys.executable, "-P", "-m", "vaultcube.gpu.recorder"]
PATIENCE_S = 30


class Recording:
    """A recorder that goes on.

    Attributes:
        path: its file.
        process: the recorder, or what it was started by.
    """

    def __init__(self, box: Box, path: Path, process: subprocess.Popen[str]) -> None:
        self.box = box
        self.path = path
        self.process = process

    def events(self, *kinds: str) -> list[Event]:
        """Return what happened so far, of these kinds."""
        with Telemetry.open(self.path) as telemetry:
            return [event for event in telemetry.events() if not kinds or event.kind in kinds]

    def summary(self, index: int, start_s: float | None = None, end_s: float | None = None) -> Summary:
        """Return a GPU's summary so far."""
        with Telemetry.open(self.path) as telemetry:
            return telemetry.summarise(self.box.uuids[index], start_s, end_s)

    def last_s(self) -> float:
        """Return the last moment that the file knows of."""
        with Telemetry.open(self.path) as telemetry:
            return telemetry.meta.last_s

    def until(self, ask: Callable[[], Any], why: str = "the recorder saw it") -> Any:
        """Poll the file until something is true, and return it."""

        def asked() -> Any:
            assert self.process.poll() is None, "the recorder ended"
            try:
                return ask()
            except TelemetryError:
                return None

        return until(asked, PATIENCE_S, why)

    def goes_on(self, seconds: float) -> tuple[float, float]:
        """Wait until so much more was recorded; return from when to when."""
        start = self.last_s()
        self.until(lambda: self.last_s() >= start + seconds)
        return start, self.last_s()

    def stop(self) -> int:
        """Ask it to stop, and return its exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE_S)


@contextmanager
def recording(
    box: Box,
    path: Path,
    *words: str,
    period: float = 0.1,
    before: Sequence[str] = (),
    env: dict[str, str] | None = None,
    killed: bool = False,
) -> Iterator[Recording]:
    """Record a box; `before` are words before the command, and `killed` says that the test is going to kill it."""
    argv = [*before, *RECORDER, "--db", str(path), "--period", str(period), *words]
    ours = unmeasured() if killed else dict(os.environ)
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**ours, **box.env(), **(env or {})}
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            if process.stdout.readline() != "recording\n":
                raise AssertionError(f"the recorder does not start: {process.stderr.read()}")
            yield Recording(box, path, process)
        finally:
            process.kill()


def refused(box: Box, path: Path, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a recorder that ends by itself."""
    argv = [*RECORDER, "--db", str(path), *words]
    return subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={**os.environ, **box.env(), **(env or {})},
        check=False,
    )


def readings(path: Path, columns: str, where: str = "1") -> list[tuple[object, ...]]:
    """Return columns of the view `samples`, in time."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return db.execute(f"SELECT {columns} FROM samples WHERE {where} ORDER BY mono_s").fetchall()  # noqa: S608
    finally:
        db.close()
