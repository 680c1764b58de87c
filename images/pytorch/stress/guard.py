"""When the load of a GPU has to wait, and when it has to end: judged by what the recorder and others say.

Pure: it reads no clock and no file. Time comes from the caller's own monotonic clock, so that nobody who sets the wall
clock, here or there, makes a recorder look alive or dead; a recorder lives while what it writes changes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

SCHEMA = 1
HOT_BEATS = 5
"""So many readings in a row at the limit: one alone may be a sensor's slip."""
LOST_BEATS = 3
RECORDER_LOST = "recorder-lost"
OVER_TEMPERATURE, GPU_LOST, OTHER_STOPPED, TOLD = (
    "over-temperature",
    "gpu-lost",
    "other-gpu-stopped",
    "told-to-stop",
)
ALL = "all"


@dataclass(frozen=True)
class Limits:
    """What is allowed.

    Attributes:
        recorder_lost_s: how long the recorder may be silent, in seconds; 0 when none is expected.
        max_celsius: at which temperature to stop; None for the card's own limit.
        on_fault: "all" to stop when another GPU was stopped, else "gpu".
    """

    recorder_lost_s: float = 0.0
    max_celsius: int | None = None
    on_fault: str = "gpu"


@dataclass(frozen=True)
class Card:
    """A GPU as the recorder saw it last, in degrees Celsius; None is what it does not tell. `margin_c` is to its limit."""

    temperature_c: float | None = None
    limit_c: float | None = None
    margin_c: float | None = None
    lost: bool = False

    def hot(self, max_celsius: int | None) -> bool | None:
        """Say whether it is at its limit or above, None when nobody knows."""
        if max_celsius is None and self.margin_c is not None:
            return self.margin_c <= 0
        limit = self.limit_c if max_celsius is None else max_celsius
        return None if self.temperature_c is None or limit is None else self.temperature_c >= limit


@dataclass(frozen=True)
class Beat:
    """A sign of life of the recorder: `mark` differs from one to the next, `cards` are by UUID."""

    mark: tuple[str, int]
    cards: Mapping[str, Card] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """What there is to see at one moment.

    Attributes:
        beat: the recorder's file, None when it is not there or makes no sense.
        told: why everybody is to stop, None when nobody said so.
        stopped: names of other GPUs that were stopped.
    """

    beat: Beat | None = None
    told: str | None = None
    stopped: Collection[str] = ()


@dataclass(frozen=True)
class Stop:
    """The end of the load: `code` for programs, the rest for people."""

    code: str
    message: str
    next_step: str


Decision = Literal["go", "wait"] | Stop


class Guard:
    """Decides, look after look.

    Attributes:
        silent_s: for how long the recorder has said nothing new, in seconds.
        beats: signs of life seen so far.
        losing: the last of them in a row in which the GPU was lost.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        """Begin at `now`, in seconds of a monotonic clock: as long as nothing was heard, there is no load."""
        self.silent_s = 0.0
        self.beats = self.losing = 0
        self._limits = limits
        self._heard = now
        self._mark: tuple[str, int] | None = None
        self._looked = False
        self._hot = 0

    @property
    def overdue(self) -> bool:
        """Say whether the recorder has been silent for longer than it may."""
        return self.silent_s > self._limits.recorder_lost_s > 0

    def look(self, now: float, seen: Seen, uuid: str | None) -> Decision:
        """Return what to do with the load of the GPU `uuid` (None on the CPU) at `now`.

        "wait" is for a recorder that must be there and is not: from the start on until its first sign of life, and
        whenever it has been silent for too long. What stops the load is told once and for all: do not ask again.
        """
        self._hear(now, seen.beat, uuid)
        if seen.told is not None:
            return Stop(TOLD, f"the soak was told to stop: {seen.told or 'nobody said why'}", _AGAIN)
        if self.losing >= LOST_BEATS:
            message = f"the recorder has lost this GPU ({uuid}): it fell off the bus, or asks for a reset"
            return Stop(
                GPU_LOST, message, f"see the host's kernel log for NVRM and Xid lines; reseat it; then {_AGAIN}"
            )
        if self._hot >= HOT_BEATS:
            return Stop(OVER_TEMPERATURE, self._how_hot(seen.beat, uuid), f"see to its cooling; then {_AGAIN}")
        if self._limits.on_fault == ALL and seen.stopped:
            message = f"{', '.join(sorted(seen.stopped))} was stopped, and with --on-fault all that stops every GPU"
            return Stop(OTHER_STOPPED, message, f"see what it says; then {_AGAIN}")
        if not self._limits.recorder_lost_s:
            return "go"
        return "go" if self.beats and not self.overdue else "wait"

    def _hear(self, now: float, beat: Beat | None, uuid: str | None) -> None:
        # What was there before us may be of a recorder that is dead.
        fresh = beat is not None and beat.mark != self._mark and self._looked
        self._mark, self._looked = beat.mark if beat else self._mark, True
        if fresh and beat:
            self._heard = now
            self.beats += 1
            self._count(beat.cards.get(uuid) if uuid else None)
        self.silent_s = max(0.0, now - self._heard)

    def _count(self, card: Card | None) -> None:
        if card is None:
            return
        self.losing = self.losing + 1 if card.lost else 0
        hot = card.hot(self._limits.max_celsius)
        # A reading that is missing says nothing, neither of heat nor of its end.
        if hot is not None:
            self._hot = self._hot + 1 if hot else 0

    def _how_hot(self, beat: Beat | None, uuid: str | None) -> str:
        card = beat.cards.get(uuid) if beat and uuid else None
        limit = self._limits.max_celsius
        is_at = f"{card.temperature_c:.0f} C" if card and card.temperature_c is not None else "its temperature"
        if limit is None and card and card.limit_c is not None:
            limit = round(card.limit_c)
        allowed = "its own limit" if self._limits.max_celsius is None else "the limit that was set"
        return f"too hot: {is_at} is at {allowed}{'' if limit is None else f' of {limit} C'} or above, {HOT_BEATS} readings in a row"


_AGAIN = "start the soak again with `up`: it goes on where it stopped"


def parse(data: bytes) -> Beat | None:
    """Read the recorder's file; None when it is no sign of life, whatever it is: its last words are none either."""
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA or raw.get("ended") is True:
        return None
    session, beat, gpus = raw.get("session"), raw.get("beat"), raw.get("gpus")
    if not isinstance(session, str) or not isinstance(beat, int):
        return None
    cards = [one for one in gpus if isinstance(one, dict)] if isinstance(gpus, list) else []
    return Beat((session, beat), {one["uuid"]: _card(one) for one in cards if isinstance(one.get("uuid"), str)})


def _card(raw: Mapping[str, Any]) -> Card:
    return Card(
        temperature_c=_number(raw.get("temperature_c")),
        limit_c=_number(raw.get("limit_c")),
        margin_c=_number(raw.get("margin_c")),
        lost=raw.get("lost") is True,
    )


def _number(value: object) -> float | None:
    # A whole number may be too long for a float, and no temperature then.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1e6 < value < 1e6:  # noqa: PLR2004
        return None
    return float(value) if math.isfinite(value) else None
