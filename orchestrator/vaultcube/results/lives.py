"""The lives of a soak's workers, as their events tell of them: who loaded which GPU, when, and how each life ended. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from vaultcube.results.coverage import End, Moment, Pause, Session, Stretch, merged
from vaultcube.results.events import (
    AnyEvent,
    Device,
    ErrorEvent,
    Finished,
    Garbled,
    Started,
    one_line,
    sequence_gaps,
    unreadable,
)
from vaultcube.results.soakevents import Checked, Mismatch, Paused, Reference, Resumed

# A worker reports every few seconds; nobody vouches for a longer stretch.
LONGEST_S = 600.0
# An event is written when its stretch has ended.
CLOCK_SLACK_S = 0.5
# Loads of one phase that are no further apart are one.
APART_S = 1.0
# What its guard ends a load with, for good: until a person decides to go on.
GUARDED = frozenset({"over-temperature", "gpu-lost", "other-gpu-stopped", "told-to-stop"})


@dataclass(frozen=True)
class Worker:
    """What a worker left behind.

    Attributes:
        events: in file order, over all its lives.
        garbled: lines that could not be read.
        uuid: the GPU that it was given; None on the CPU.
    """

    events: Sequence[AnyEvent]
    garbled: Sequence[Garbled] = ()
    uuid: str | None = None


class Load(NamedTuple):
    """A GPU under load of one phase, from `start_s` to `end_s` on the monotonic clock of a boot."""

    boot_id: str
    phase: str
    unit: str
    start_s: float
    end_s: float


@dataclass(kw_only=True)
class Life:
    """One life of a worker; `error` is why it could not go on."""

    worker: str
    uuid: str | None
    session: Session
    started: Started
    device: Device | None = None
    checked: list[Checked] = field(default_factory=list)
    mismatches: list[Mismatch] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    error: ErrorEvent | None = None

    def loads(self) -> list[Load]:
        """Return when it loaded its GPU, phase by phase."""
        began = self.session.began.mono_s
        by_phase: dict[tuple[str, str], list[Checked]] = defaultdict(list)
        for event in self.checked:
            by_phase[event.phase, event.unit].append(event)
        return [
            Load(self.session.boot_id, *phase, max(one.start_s, began), one.end_s)
            for phase, events in by_phase.items()
            for one in merged(_joined(events, APART_S), APART_S)
            if one.end_s > began
        ]


def _joined(events: Iterable[Checked], apart_s: float = 0.0) -> list[Stretch]:
    """Return stretches of load, one for reports that follow each other: of a day's 17 000 nearly all do."""
    found: list[Stretch] = []
    start = end = 0.0
    last: Checked | None = None
    for event in events:
        if last is not None and end <= event.from_mono <= end + apart_s:
            end, last = event.until_mono, event
            continue
        if last is not None:
            found.append(Stretch(start, end, last.time))
        start, end, last = event.from_mono, event.until_mono, event
    return found if last is None else [*found, Stretch(start, end, last.time)]


def read_lives(workers: Mapping[str, Worker]) -> tuple[list[Life], list[str]]:
    """Return all lives, worker by worker in file order, and a sentence for everything that contradicts itself."""
    found: list[Life] = []
    disturbances: list[str] = []
    for name, worker in workers.items():
        odd: Counter[str] = Counter()
        said = [*unreadable(worker.garbled)]
        for events in _split(worker.events):
            said += sequence_gaps(events)
            if isinstance(events[0], Started):
                found.append(_life(name, worker, events, events[0], odd))
            else:
                odd["events without a beginning: what they report is not counted"] += len(events)
        said += [f"{count} {what}" for what, count in odd.items()]
        disturbances += [f"{name}: {sentence}" for sentence in said]
    return found, disturbances


def _split(events: Iterable[AnyEvent]) -> list[list[AnyEvent]]:
    """Return a worker's events life by life. A life whose first line was lost is known by its counting anew."""
    found: list[list[AnyEvent]] = []
    counted: dict[int, int] = {}
    for event in events:
        if not found or event.seq <= counted.get(event.rank, -1) or isinstance(event, Started):
            found.append([])
            counted.clear()
        counted[event.rank] = event.seq
        found[-1].append(event)
    return found


def _life(name: str, worker: Worker, events: Sequence[AnyEvent], started: Started, odd: Counter[str]) -> Life:
    began = Moment(started.mono, started.time)
    last = max(events, key=lambda event: event.mono)
    life = Life(worker=name, uuid=worker.uuid, session=_session(started, began, began, "silent", []), started=started)
    end: End = "silent"
    for event in events:
        if isinstance(event, Checked):
            why = _unbelievable(event)
            if why is None:
                life.checked.append(event)
            else:
                odd[why] += 1
        elif isinstance(event, Mismatch):
            life.mismatches.append(event)
        elif isinstance(event, Reference):
            life.references.append(event)
        elif isinstance(event, Device):
            life.device = event
            life.uuid = event.uuid or worker.uuid
        elif isinstance(event, Finished):
            end = "finished"
        elif isinstance(event, ErrorEvent) and (life.error is None or life.error.code not in GUARDED):
            end = "stopped" if event.code == "interrupted" or event.code in GUARDED else "failed"
            life.error = event
    stretches, pauses = _joined(life.checked), _pauses(events, last.mono)
    life.session = _session(started, began, Moment(last.mono, last.time), end, stretches, pauses)
    return life


def _pauses(events: Iterable[AnyEvent], last_s: float) -> list[Pause]:
    """Return when a life's load waited; what nothing ends lasted until its last word, what ended before not at all."""
    found: list[Pause] = []
    began: Paused | None = None
    for event in events:
        if isinstance(event, Paused) and began is None:
            began = event
        elif isinstance(event, Resumed) and began is not None:
            found.append(Pause(began.mono, max(event.mono, began.mono), one_line(began.reason)))
            began = None
    return found if began is None else [*found, Pause(began.mono, last_s, one_line(began.reason))]


def _session(
    started: Started, began: Moment, ended: Moment, end: End, stretches: Sequence[Stretch], pauses: Sequence[Pause] = ()
) -> Session:
    # Without the boot's name all of its lives count as one boot: their times may overlap, and never count twice.
    boot = started.boot_id or "unknown"
    return Session(boot_id=boot, began=began, ended=ended, end=end, stretches=stretches, pauses=pauses)


def _unbelievable(event: Checked) -> str | None:
    """Return what is wrong with a report, or None: what it vouches for is then counted."""
    if event.until_mono <= event.from_mono:
        return "reports of load that ended before it began: they are not counted"
    if event.until_mono - event.from_mono > LONGEST_S:
        return f"reports of load of more than {LONGEST_S:.0f} s at once: they are not counted"
    if event.until_mono > event.mono + CLOCK_SLACK_S:
        return "reports of load that had not ended yet: they are not counted"
    if not event.iterations:
        return "reports of load of which no result was checked: they are not counted"
    return None


def last_word(life: Life) -> str:
    """Return in words how a life ended."""
    if life.error is not None and (life.session.end == "failed" or life.error.code in GUARDED):
        ended = "was stopped" if life.session.end == "stopped" else "failed"
        return f"its worker {ended} ({one_line(life.error.code)}: {one_line(life.error.message)[:160]})"
    return {
        "finished": "its worker was done",
        "stopped": "its worker was told to stop",
        "failed": "its worker failed",
        "silent": "its worker ended without a word",
    }[life.session.end]
