"""Progress on stderr: a bar with an ETA on a terminal, sparse lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from vaultcube.report.serving import describe_serving, stage_line
from vaultcube.report.soak import progress_line
from vaultcube.report.table import colored
from vaultcube.results.events import AllReduce, AnyEvent, ErrorEvent, Phase, Progress, Stage, Started, one_line
from vaultcube.results.soakstatus import SoakStatus
from vaultcube.stack.buildlog import BuildLog

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

QUIET_S, SOAK_S = 10.0, 60.0


class JobProgress:
    """Lines: every phase, and at most one a ten seconds in between.

    Args:
        stream: where they go.
        servers: how many servers a service has; 0 for a job.
    """

    def __init__(self, stream: IO[str], servers: int = 0) -> None:
        self.stream = stream
        self.servers = servers
        self._stages: dict[int, str] = {}
        self._began = time.monotonic()
        self._spoke = self._began
        self._soaked: float | None = None

    def note(self, text: str) -> None:
        """Show one line. A reader that went away, or a full disk behind the stream, is no reason to end a run."""
        self._spoke = time.monotonic()
        with suppress(OSError):
            self.stream.write(text + "\n")
            self.stream.flush()

    def building(self, log: BuildLog, lines: list[str]) -> None:  # noqa: ARG002 - bars show them
        """Show how far a build is."""
        if time.monotonic() - self._spoke > QUIET_S:
            self.note(f"  step {log.done} of {log.total}: {log.current}")

    def event(self, event: AnyEvent) -> None:
        """Show an event of the workload."""
        if isinstance(event, Started) or (isinstance(event, Progress) and not event.done):
            # Building the image, or waiting for a server, says nothing about how long the measurement takes.
            self._began = time.monotonic()
        text = self._line(event)
        if text is not None:
            self.note(text)
        elif isinstance(event, Stage):
            self._stage(event)
        elif isinstance(event, Progress) and time.monotonic() - self._spoke > QUIET_S:
            self.note(f"  {event.done} of {event.total}, about {self._left(event):.0f} s left")

    def soak(self, status: SoakStatus) -> None:
        """Show how far a soak is: a line a minute, and the first as soon as there is load."""
        now = time.monotonic()
        if status.covered_s and (self._soaked is None or now - self._soaked >= SOAK_S):
            self._soaked = now
            self.note(f"  {progress_line(status)}")

    def _line(self, event: AnyEvent) -> str | None:
        if not self.servers:
            return describe(event)
        return describe_serving(event, self._who(event.rank))

    def _who(self, rank: int) -> str:
        return f"server {rank}: " if self.servers > 1 and rank >= 0 else ""

    def _stage(self, event: Stage) -> None:
        """Show a stage when it begins, and how far it is now and then."""
        text = stage_line(event)
        fresh = self._stages.get(event.rank) != event.stage
        if text is not None and (fresh or time.monotonic() - self._spoke > QUIET_S):
            self._stages[event.rank] = event.stage
            self.note(f"  {self._who(event.rank)}{text}")

    def _left(self, event: Progress) -> float:
        elapsed = time.monotonic() - self._began
        return elapsed / max(event.done, 1) * max(event.total - event.done, 0)


class BarProgress(JobProgress):
    """A bar with an ETA, and the lines above it."""

    def __init__(self, stream: IO[str], bar: Bar, servers: int = 0) -> None:
        super().__init__(stream, servers)
        self._bar = bar
        self._task = bar.add_task("starting", total=None)

    def note(self, text: str) -> None:
        """Show one line above the bar."""
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def building(self, log: BuildLog, lines: list[str]) -> None:  # noqa: ARG002 - the step's name says enough
        """Show how far a build is."""
        name = log.current if len(log.current) <= 60 else log.current[:57] + "..."  # noqa: PLR2004 - fits 80 columns
        self._bar.update(self._task, completed=log.done, total=log.total or None, description=f"build: {name}")

    def event(self, event: AnyEvent) -> None:
        """Move the bar, and show what is worth a line."""
        if isinstance(event, Started):
            self._bar.reset(self._task, total=None, description=one_line(event.program))
        if isinstance(event, Progress):
            self._bar.update(self._task, completed=event.done, total=event.total)
        if isinstance(event, Stage) and (doing := stage_line(event)) is not None:
            share = (None, None) if event.fraction is None else (event.fraction, 1.0)
            self._bar.update(
                self._task, completed=share[0] or 0, total=share[1], description=f"{self._who(event.rank)}{doing}"[:60]
            )
        text = self._line(event)
        if text is not None:
            self.note(text)

    def soak(self, status: SoakStatus) -> None:
        """Move the bar to what the GPU that has least has covered."""
        self._bar.update(
            self._task, completed=status.covered_s, total=status.wanted_s, description=progress_line(status)[:60]
        )


def describe(event: AnyEvent) -> str | None:
    """Return the line that an event is worth, or None."""
    if isinstance(event, Started):
        return f"{one_line(event.program)}: {event.world_size} rank(s) on {'GPUs' if event.device == 'cuda' else 'the CPU'}"
    if isinstance(event, AllReduce) and not event.correct:
        return f"  all-reduce of rank {event.rank}: {event.mismatches} wrong element(s)"
    if isinstance(event, Phase):
        return f"  rank {event.subject_rank} alone" if event.phase == "solo" else "  all ranks together"
    if isinstance(event, ErrorEvent):
        return f"  {'launcher' if event.rank < 0 else f'rank {event.rank}'}: {one_line(event.message)}"
    return None


@contextmanager
def job_progress(stream: IO[str], servers: int = 0) -> Iterator[JobProgress]:
    """Show progress on a stream for as long as the context lasts.

    Args:
        stream: where it goes.
        servers: how many servers a service has; 0 for a job.
    """
    if not colored(stream):
        yield JobProgress(stream, servers)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(file=stream), transient=True
    ) as bar:
        yield BarProgress(stream, bar, servers)
