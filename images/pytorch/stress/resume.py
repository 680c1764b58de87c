"""What earlier sessions of a soak have done: read from its own events file, line by line."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from common.events import EventError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Interval = tuple[float, float]


@dataclass(frozen=True)
class Past:
    """What there was: seconds covered, sessions begun, whether the last thing said is that the soak is finished.

    `uuid` is of the GPU that was loaded last, None on the CPU.
    """

    covered_s: float = 0.0
    sessions: int = 0
    finished: bool = False
    uuid: str | None = None


@dataclass
class _Boots:
    """Intervals of checked load by the boot whose monotonic clock they are on."""

    by_boot: dict[str, list[Interval]] = field(default_factory=dict)

    def add(self, boot: str, start: float, end: float) -> None:
        intervals = self.by_boot.setdefault(boot, [])
        # A day has 17 000 of them, nearly all where the one before ended.
        if intervals and intervals[-1][0] <= start <= intervals[-1][1]:
            start, end = intervals[-1][0], max(end, intervals[-1][1])
            intervals.pop()
        intervals.append((start, end))

    def covered_s(self) -> float:
        return float(sum(_union_s(intervals) for intervals in self.by_boot.values()))


def _union_s(intervals: Iterable[Interval]) -> float:
    """Return the length that intervals cover together: what overlaps counts once."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        if end > reached:
            covered += end - max(start, reached)
            reached = end
    return covered


def past(lines: Iterable[bytes]) -> Past:
    """Return what the lines of an events file tell. One that cannot be read, or makes no sense, tells nothing."""
    boots, sessions, boot, finished = _Boots(), 0, "", False
    uuid: str | None = None
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if not isinstance(event, dict):
            continue
        kind = event.get("kind")
        finished = kind == "finished"
        if kind == "started":
            sessions += 1
            # A session that does not know its boot is on a clock of its own.
            boot = str(event.get("boot_id") or f"session {sessions}")
        elif kind == "device":
            uuid = event["uuid"] if isinstance(event.get("uuid"), str) else None
        elif kind == "checked" and (interval := _interval(event)):
            boots.add(boot, *interval)
    return Past(boots.covered_s(), sessions, finished, uuid)


def _interval(event: dict[str, Any]) -> Interval | None:
    start, end = event.get("from_mono"), event.get("until_mono")
    if not isinstance(start, (int, float)) or not isinstance(end, (int, float)):
        return None
    # Load is reported when it is over; what is garbled, NaN included, falls through.
    return (start, end) if 0 <= start < end <= _number(event.get("mono")) else None


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else float("-inf")


def read(events: Path) -> Past:
    """Return what the file tells, and end a torn last line, so that the next event stands on its own.

    Raises:
        EventError: the file can neither be read nor mended.
    """
    try:
        with events.open("rb") as file:
            found = past(file)
        if _torn(events):
            with events.open("ab") as file:
                file.write(b"\n")
    except FileNotFoundError:
        return Past()
    except OSError as error:
        raise EventError(f"cannot read {events}: {error.strerror}") from error
    return found


def _torn(events: Path) -> bool:
    with events.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read(1) not in {b"", b"\n"}
