"""When the workers of a soak have ended, and what each has covered by then: for who waits beside them. Pure.

Time is the caller's own monotonic clock, in seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from vaultcube.results.events import AnyEvent, Finished, Started
from vaultcube.results.lives import CLOCK_SLACK_S, LONGEST_S
from vaultcube.results.soakevents import Checked

# Workers begin one after the other, a slow machine's last one later than that of a fast one covers a short soak.
SETTLE_S = 30.0
# An engine waits a minute at most before it starts a container again; a worker that is away for longer stays away.
PATIENCE_S = 180.0


class Look(NamedTuple):
    """A worker at one moment: it holds its lock, all hours are covered by its last word, it was stopped for good."""

    at_work: bool
    finished: bool = False
    stopped: bool = False


@dataclass
class Waiting:
    """Watches workers come and go.

    Args:
        began_s: when the watch began.
        settle_s: for how long another worker may still appear after the last one.
        patience_s: after how long without its lock a worker has ended, whatever its last word.
    """

    began_s: float
    settle_s: float = SETTLE_S
    patience_s: float = PATIENCE_S
    _newest_s: float = field(init=False)
    _away_since: dict[str, float] = field(init=False, default_factory=dict)
    _known: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self._newest_s = self.began_s

    def take(self, now_s: float, looks: Mapping[str, Look]) -> list[str]:
        """Take what every worker that there is looks like; return the names of those that have not ended."""
        if looks.keys() - self._known:
            self._known |= looks.keys()
            self._newest_s = now_s
        found = []
        for name, look in looks.items():
            if look.at_work:
                self._away_since.pop(name, None)
                found.append(name)
                continue
            since = self._away_since.setdefault(name, now_s)
            if not (look.finished or look.stopped or now_s - since >= self.patience_s):
                found.append(name)
        return found

    def settled(self, now_s: float) -> bool:
        """Say whether no other worker is to be expected; before the first one it never is."""
        return bool(self._known) and now_s - self._newest_s >= self.settle_s


@dataclass
class Reached:
    """What one worker has covered, event after event: never more than its judge will count.

    Attributes:
        covered_s: seconds of checked load.
        wanted_s: what it was asked for when it began last; 0 before.
        finished: whether its last word is that all is covered.
    """

    covered_s: float = 0.0
    wanted_s: float = 0.0
    finished: bool = False
    # None: what began is not known.
    _boot: str | None = None
    _began_s: float = 0.0
    _reach_s: dict[str, float] = field(default_factory=dict)
    _counted: dict[int, int] = field(default_factory=dict)

    def take(self, events: Iterable[AnyEvent]) -> None:
        """Take what it wrote since."""
        for event in events:
            self.finished = isinstance(event, Finished)
            anew = event.seq <= self._counted.get(event.rank, -1)
            if anew or isinstance(event, Started):
                self._boot, self._counted = None, {}
            self._counted[event.rank] = event.seq
            if isinstance(event, Started):
                self._boot, self._began_s = event.boot_id or "unknown", event.mono
                asked = event.params.get("seconds")
                self.wanted_s = float(asked) if isinstance(asked, int | float) and 0 < asked <= 10**9 else 1.0
            elif isinstance(event, Checked) and event.iterations and self._boot is not None:
                self._cover(event, self._boot)

    def _cover(self, event: Checked, boot: str) -> None:
        start = max(event.from_mono, self._began_s, self._reach_s.get(boot, 0.0))
        end = min(event.until_mono, event.mono)
        late = event.until_mono - event.mono > CLOCK_SLACK_S
        if start < end and not late and event.until_mono - event.from_mono <= LONGEST_S:
            self.covered_s += end - start
            self._reach_s[boot] = end


def next_rung(
    ladder: Iterable[float], judged: Collection[float], wanted_s: float, covered_s: Iterable[float]
) -> float | None:
    """Return the lowest rung (hours) that all workers have covered and that was not judged yet, or None.

    Args:
        ladder: hours; one that is not below `wanted_s` is the end of the soak, and no rung.
        judged: hours that were.
        wanted_s: seconds to be covered in all.
        covered_s: seconds, by each worker.
    """
    least = min(covered_s, default=0.0)
    due = [hours for hours in ladder if hours not in judged and hours * 3600 < wanted_s and hours * 3600 <= least]
    return min(due, default=None)


def stood(name: str, look: Look, reached: Reached) -> str:
    """Return how far a worker is, for a line of several."""
    if reached.finished and not look.at_work:
        return f"{name} done"
    told = f"{name} {spell(reached.covered_s)} of {spell(reached.wanted_s)}"
    return told if look.at_work else f"{told}, {'stopped' if look.stopped else 'not at work'}"


def spell(seconds: float) -> str:
    """Return "3 h 07 min", "12 min 30 s" or "42 s"."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"
