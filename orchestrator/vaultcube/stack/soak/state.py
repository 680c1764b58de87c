"""How a soak stands, read from the files that its containers write; they are read on from where they were left."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from vaultcube.results.events import AnyEvent, ErrorEvent, EventLog, Finished, Started, one_line
from vaultcube.results.schema import Result
from vaultcube.results.soakevents import Checked
from vaultcube.results.soakstatus import RungStatus, SoakStatus, Standing, WorkerStatus
from vaultcube.results.store import RESULT, RunDirectory, read_plain
from vaultcube.stack.outcome import EXIT_HARDWARE, EXIT_USAGE
from vaultcube.stack.override import BEAT
from vaultcube.stack.plan import Plan
from vaultcube.stack.soak.weigh import EVENTS

_RUNG = re.compile(r"rung-([0-9.]{1,12})h\.json")
# Last words of a worker that is not to be started again, and of one that was told to stop.
STOPS = frozenset({"over-temperature", "gpu-lost", "other-gpu-stopped", "told-to-stop", "interrupted"})
# A shorter time says nothing about how fast it goes.
_RATE_S = 5.0


@dataclass
class WorkerLog:
    """The events of one worker, as far as they were read."""

    name: str
    gpu_uuid: str | None
    path: Path
    offset: int = 0
    log: EventLog = field(default_factory=EventLog)
    covered_s: float = 0
    phase: str = ""
    mismatches: int = 0
    starts: int = 0
    standing: Standing = "starting"
    said: str = ""

    def read(self) -> list[AnyEvent]:
        """Return what it wrote since."""
        chunk = read_plain(self.path, self.offset)
        self.offset += len(chunk)
        fresh = list(self.log.feed(chunk))
        for event in fresh:
            self._take(event)
        # A day has 17 000 of them.
        self.log.events.clear()
        return fresh

    def _take(self, event: AnyEvent) -> None:
        if isinstance(event, Started):
            self.starts += 1
            self.standing, self.said = "starting", ""
        elif isinstance(event, Checked):
            self.covered_s += max(event.until_mono - event.from_mono, 0)
            self.mismatches += event.mismatches
            self.phase = one_line(event.phase)
            # A last report may come after the launcher's last word.
            if self.standing in {"starting", "paused"}:
                self.standing = "loading"
        elif isinstance(event, Finished):
            self.standing = "done"
        elif isinstance(event, ErrorEvent):
            self.standing = "stopped" if event.code in STOPS else "failed"
            if event.exit_code in {EXIT_USAGE, EXIT_HARDWARE}:
                # Started again it says the same.
                self.standing = "refused"
            self.said = one_line(event.message)
        elif event.kind == "paused":
            self.standing = "paused"


class SoakState:
    """A soak as its plan and its files show it.

    Args:
        plan: the soak's.
        directory: its run directory.
    """

    def __init__(self, plan: Plan, directory: RunDirectory) -> None:
        self.plan = plan
        self.directory = directory
        self.folder = directory.path / "results"
        self.workers = [
            WorkerLog(one.service, next(iter(one.gpus), None), self.folder / one.service / EVENTS)
            for one in plan.workers
        ]
        self._since: tuple[float, float] | None = None
        self._judged: dict[str, RungStatus] = {}

    def read(self) -> Iterator[tuple[WorkerLog, AnyEvent]]:
        """Yield what the workers wrote since the last time."""
        for worker in self.workers:
            for event in worker.read():
                yield worker, event

    @property
    def wanted_s(self) -> float:
        """Seconds to be covered on every GPU."""
        return round(float(self.plan.params["hours"]) * 3600)

    @property
    def covered_s(self) -> float:
        """Seconds covered, on the GPU that has least."""
        return min((worker.covered_s for worker in self.workers), default=0)

    @property
    def over(self) -> bool:
        """Whether every worker said its last word."""
        return all(worker.standing in {"done", "stopped", "refused"} for worker in self.workers)

    def status(self, *, running: bool | None = None, keeper: int | None = None) -> SoakStatus:
        """Return how it stands. What was not read before is read first.

        Args:
            running: whether a container of it runs.
            keeper: who looks after it.
        """
        for _ in self.read():
            pass
        heat = self._temperatures()
        judged = read_judgement(self.folder / RESULT) if self.over else None
        return SoakStatus(
            name=self.plan.instance,
            run=self.plan.run_id,
            wanted_s=self.wanted_s,
            covered_s=self.covered_s,
            left_s=self._left(),
            running=running,
            keeper=keeper,
            workers=tuple(
                WorkerStatus(
                    name=one.name,
                    gpu_uuid=one.gpu_uuid,
                    standing=one.standing,
                    covered_s=one.covered_s,
                    phase=one.phase,
                    mismatches=one.mismatches,
                    starts=one.starts,
                    temperature_celsius=heat.get(one.gpu_uuid or ""),
                    said=one.said,
                )
                for one in self.workers
            ),
            rungs=tuple(self._rungs()),
            verdict=judged.verdict if judged else None,
            simulated=self.plan.simulated,
            directory=str(self.directory.path),
        )

    def _left(self) -> float | None:
        """Return the seconds to go, by how it went since this was first asked."""
        now, covered = time.monotonic(), self.covered_s
        if self._since is None:
            if not covered:
                # How long the frameworks take to load says nothing.
                return None
            self._since = now, covered
        began, before = self._since
        if covered >= self.wanted_s:
            return 0.0
        if now - began < _RATE_S or covered <= before:
            # Load covers as much time as goes by.
            return self.wanted_s - covered if any(one.standing == "loading" for one in self.workers) else None
        return (self.wanted_s - covered) * (now - began) / (covered - before)

    def _temperatures(self) -> dict[str, float]:
        """Return the temperature of every GPU in C, as the recorder said it last."""
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            beat = json.loads(read_plain(self.folder / BEAT))
            return {
                str(one["uuid"]): float(one["temperature_c"])
                for one in beat["gpus"]
                if one["temperature_c"] is not None
            }
        return {}

    def _rungs(self) -> list[RungStatus]:
        """Return the rungs that were judged, lowest first."""
        with suppress(OSError):
            for path in self.folder.iterdir():
                found = _RUNG.fullmatch(path.name)
                if found and path.name not in self._judged and (judged := read_judgement(path)):
                    with suppress(ValueError):
                        self._judged[path.name] = RungStatus(hours=float(found[1]), verdict=judged.verdict)
        return sorted(self._judged.values(), key=lambda rung: rung.hours)


def read_judgement(path: Path) -> Result | None:
    """Return what the soak's own judge wrote, or None."""
    with suppress(ValueError):
        return Result.model_validate_json(read_plain(path))
    return None
