"""How much of a soak was load with every result checked, and where the rest of the time went. Pure.

Time is counted on the monotonic clock of each boot: setting the wall clock changes no figure of one boot. Only the
length of a reboot has no other clock than the wall's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal, NamedTuple

# How a worker's session ended: it was done, it was told to stop, it said why it could not go on, it said nothing.
End = Literal["finished", "stopped", "failed", "silent"]
# What kept a GPU from being covered: its program began, nothing was checked, the worker came back, the machine came
# back, and the worker was stopped, or nothing came after.
Why = Literal["start", "pause", "restart", "reboot", "stop"]
# After these ends a worker that begins again surprises nobody.
PLANNED: frozenset[End] = frozenset({"finished", "stopped"})
# Shorter gaps are counted, and not listed.
LISTED_S = 1.0


class Moment(NamedTuple):
    """A point in time: seconds of a boot's monotonic clock, and what the wall clock said then."""

    mono_s: float
    wall: datetime


class Stretch(NamedTuple):
    """Load from `start_s` to `end_s` (monotonic), reported when the wall clock said `wall` at `end_s`."""

    start_s: float
    end_s: float
    wall: datetime


class Pause(NamedTuple):
    """Load that waited from `start_s` to `end_s` (monotonic), and why, in a word."""

    start_s: float
    end_s: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class Session:
    """One life of a worker: from its first word to its last."""

    boot_id: str
    began: Moment
    ended: Moment
    end: End
    stretches: Sequence[Stretch] = ()
    pauses: Sequence[Pause] = ()


class Gap(NamedTuple):
    """Time that is not covered: wall times of its edges, its length in seconds, why, and the boot it ends in.

    `reason` is what its worker waited for in it, in a word; "" when it did not say so.
    """

    start: datetime
    end: datetime
    seconds: float
    why: Why
    boot_id: str
    reason: str = ""


class Restart(NamedTuple):
    """A worker that began again.

    Attributes:
        at: when it began again.
        why: in the same boot, or after a reboot.
        planned: the session before had ended, or had been told to stop.
        away_since: the last word of the session before.
        before, boot_id: the boots of the two sessions.
    """

    at: datetime
    why: Literal["restart", "reboot"]
    planned: bool
    away_since: datetime
    before: str
    boot_id: str


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What became of a GPU's time, in seconds; `gaps` are those of a second or more, in order."""

    covered_s: float = 0.0
    uncovered_s: float = 0.0
    longest_gap_s: float = 0.0
    gaps: Sequence[Gap] = ()
    restarts: Sequence[Restart] = ()


def account(sessions: Sequence[Session]) -> Coverage:
    """Account for a GPU's time from its first session's beginning to its last session's last word.

    Stretches that overlap, lie outside their session, or end before they begin never count twice, or at all.

    Args:
        sessions: in the order in which they began.
    """
    boots = list(dict.fromkeys(session.boot_id for session in sessions))
    gaps: list[Gap] = []
    covered = 0.0
    before: Moment | None = None
    for boot in boots:
        own = [session for session in sessions if session.boot_id == boot]
        covering = merged(stretch for session in own for stretch in _inside(session))
        covered += sum(stretch.end_s - stretch.start_s for stretch in covering)
        found = list(_gaps(own, covering))
        if before is not None and found:
            # What it took from the beginning of the boot is a part of the reboot.
            first = found.pop(0)
            seconds = max((first.end - before.wall).total_seconds(), first.seconds)
            found.insert(0, Gap(before.wall, first.end, seconds, "reboot", boot, first.reason))
        gaps += found
        before = max((session.ended for session in own), key=lambda moment: moment.mono_s)
    return Coverage(
        covered_s=covered,
        uncovered_s=sum(gap.seconds for gap in gaps),
        longest_gap_s=max((gap.seconds for gap in gaps), default=0.0),
        gaps=[gap for gap in gaps if gap.seconds >= LISTED_S],
        restarts=[_restart(*pair) for pair in pairwise(sessions)],
    )


def merged(stretches: Iterable[Stretch], apart_s: float = 0.0) -> list[Stretch]:
    """Return stretches in order, those that overlap, or are no more than `apart_s` apart, as one."""
    found: list[Stretch] = []
    start = end = reach = -1.0
    wall: datetime | None = None
    # Nearly all of a day's 17 000 begin where the one before ended.
    for one in sorted(stretches):
        if wall is not None and one.start_s <= reach:
            if one.end_s > end:
                end, wall = one.end_s, one.wall
        else:
            if wall is not None:
                found.append(Stretch(start, end, wall))
            start, end, wall = one
        reach = end + apart_s
    return found if wall is None else [*found, Stretch(start, end, wall)]


def shifted(wall: datetime, seconds: float) -> datetime:
    """Return a wall time so many seconds later, or itself where the calendar ends."""
    try:
        return wall + timedelta(seconds=seconds)
    except OverflowError:
        return wall


def _inside(session: Session) -> Iterable[Stretch]:
    """Return a session's stretches, cut to its life."""
    began, ended = session.began.mono_s, session.ended.mono_s
    for one in session.stretches:
        if began <= one.start_s < one.end_s <= ended:
            yield one
        elif (start := max(one.start_s, began)) < (end := min(one.end_s, ended)):
            yield Stretch(start, end, shifted(one.wall, end - one.end_s))


def _gaps(sessions: Sequence[Session], covering: Sequence[Stretch]) -> Iterable[Gap]:
    """Return what is not covered of one boot; the first reaches from the boot's first word to the first load."""
    boot = sessions[0].boot_id
    first = min((session.began for session in sessions), key=lambda moment: moment.mono_s)
    last = max((session.ended for session in sessions), key=lambda moment: moment.mono_s)
    edge = first
    for one in covering:
        why: Why = "start" if edge is first else _why(sessions, edge.mono_s, one.start_s)
        start = shifted(one.wall, one.start_s - one.end_s)
        reason = _reason(sessions, edge.mono_s, one.start_s)
        yield Gap(edge.wall, start, one.start_s - edge.mono_s, why, boot, reason)
        edge = Moment(one.end_s, one.wall)
    # Nothing was covered at all: it started, and that is all.
    reason = _reason(sessions, edge.mono_s, last.mono_s)
    yield Gap(edge.wall, last.wall, max(last.mono_s - edge.mono_s, 0.0), "stop" if covering else "start", boot, reason)


def _why(sessions: Sequence[Session], start_s: float, end_s: float) -> Why:
    """Return what lies between two covered stretches of one boot."""
    ends = [before.end for before, after in pairwise(sessions) if start_s <= after.began.mono_s <= end_s]
    if not ends:
        return "pause"
    return "stop" if all(end in PLANNED for end in ends) else "restart"


def _reason(sessions: Sequence[Session], start_s: float, end_s: float) -> str:
    """Return what was waited for in a gap of one boot."""
    pauses = [one for session in sessions for one in session.pauses if one.start_s < end_s and one.end_s > start_s]
    return ", ".join(dict.fromkeys(one.reason for one in pauses))


def _restart(before: Session, after: Session) -> Restart:
    return Restart(
        at=after.began.wall,
        why="restart" if before.boot_id == after.boot_id else "reboot",
        planned=before.end in PLANNED,
        away_since=before.ended.wall,
        before=before.boot_id,
        boot_id=after.boot_id,
    )
