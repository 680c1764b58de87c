"""What telemetry says of one GPU while it was under load, phase by phase. The counting is done by SQLite.

A load may be in an earlier boot than the last: its times are on that boot's monotonic clock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, NamedTuple, Self

from vaultcube.gpu.clockevents import THROTTLE_MASK
from vaultcube.gpu.rundb import GPU_BITS

# Utilisation and power are means over about a second: what was read just after a phase began is of the one before.
SETTLE_S: Final = 2.0
BUSY_PERCENT: Final = 90
# Hardware slowdown by neither heat nor brake: there is no counter of it.
_ALONE: Final = "clock_events & 0x8 AND NOT clock_events & 0xC0"
_COUNTERS: Final = ("sw_thermal_us", "hw_thermal_us", "power_brake_us")


class Piece(NamedTuple):
    """A stretch of load.

    Attributes:
        boot_id: whose monotonic clock the times are on.
        phase: what ran; figures are counted by it.
        part: the part of the soak it belongs to; figures are counted by it too.
        start_s, end_s: from when to when.
        settled_s: from when on readings are of this load alone.
    """

    boot_id: str
    phase: str
    part: int
    start_s: float
    end_s: float
    settled_s: float


class Figures(NamedTuple):
    """What was read of one phase in one part; None is what the card does not tell.

    Attributes:
        phase, part: which.
        readings: how many there are.
        settled: how many of them are of this load alone and tell the utilisation.
        busy: how many of those show 90 % utilisation or more.
        power_mean_w, sm_clock_mean_mhz: means, once settled.
        temperature_max_c, temperature_margin_min_c: highest, and how near it came to the card's own limit.
        pcie_link_min: least of lanes x 2^generation, once settled, while kernels ran.
        pcie_replays: growth of the replay counter.
        throttled_us, throttled_of_ms: time slowed down by heat or the power brake by the card's counters, and the time
            that these are of; None where a counter is missing.
        sampled, throttled_sampled, alone_sampled: readings that tell clock events, those with any of mask 0xE8, and those
            with a hardware slowdown that no counter counts.
    """

    phase: str
    part: int
    readings: int
    settled: int
    busy: int
    power_mean_w: float | None
    sm_clock_mean_mhz: float | None
    temperature_max_c: int | None
    temperature_margin_min_c: int | None
    pcie_link_min: int | None
    pcie_replays: int | None
    throttled_us: int | None
    throttled_of_ms: int | None
    sampled: int
    throttled_sampled: int
    alone_sampled: int


class When(NamedTuple):
    """When something was seen under load: first and last, in wall time, and in how many readings."""

    first: datetime
    last: datetime
    count: int  # type: ignore[assignment] # nobody counts a value in it


_FROM: Final = f"""
FROM temp.pieces p CROSS JOIN readings r
WHERE r.id BETWEEN p.start_ms << {GPU_BITS} AND (p.end_ms << {GPU_BITS}) - 1
    AND r.id & {(1 << GPU_BITS) - 1} = :gpu AND r.problem IS NULL
"""
_SETTLED: Final = f"r.id >= p.settled_ms << {GPU_BITS}"
# A reading after a pause counts what happened in it: no more than a period of that may be before the load.
_HERE: Final = f"(r.id >> {GPU_BITS}) - since_ms >= p.start_ms - :period"
_FIGURES: Final = f"""
SELECT p.phase, p.part, count(*),
    count(utilisation_percent) FILTER (WHERE {_SETTLED}),
    count(*) FILTER (WHERE {_SETTLED} AND utilisation_percent >= {BUSY_PERCENT}),
    avg(power_mw) FILTER (WHERE {_SETTLED}) / 1000,
    avg(sm_clock_mhz) FILTER (WHERE {_SETTLED}),
    max(temperature_c),
    min(temperature_margin_c),
    min(pcie_width << pcie_gen) FILTER (WHERE {_SETTLED} AND utilisation_percent > 0),
    sum(pcie_replays),
    sum({" + ".join(_COUNTERS)}) FILTER (WHERE {_HERE}),
    sum(since_ms) FILTER (WHERE {_HERE} AND {" + ".join(_COUNTERS)} IS NOT NULL),
    count(clock_events),
    count(*) FILTER (WHERE clock_events & {THROTTLE_MASK}),
    count(*) FILTER (WHERE {_ALONE})
{_FROM} GROUP BY p.part, p.phase
"""
_CONDITIONS: Final = {
    "loaded": _SETTLED,
    "last": f"{_SETTLED} AND p.part = :part",
    "throttled": f"{' + '.join(_COUNTERS)} > 0 OR clock_events & {THROTTLE_MASK}",
    "idle": f"{_SETTLED} AND utilisation_percent < {BUSY_PERCENT}",
    "hot": "temperature_margin_c < :limit",
    "warm": "temperature_c > :limit",
    "slow_link": f"{_SETTLED} AND utilisation_percent > 0 AND pcie_width << pcie_gen < :link",
    "replays": "pcie_replays > 0",
}


class Loaded:
    """One GPU of a telemetry file under its loads; use as a context.

    All methods raise sqlite3.Error when the file breaks off.

    Args:
        db: the file; only one of these may be open on it.
        uuid: the GPU.
        pieces: when it was under load. Those in a boot that the file does not know are left out.
    """

    def __init__(self, db: sqlite3.Connection, uuid: str, pieces: Sequence[Piece]) -> None:
        self._db = db
        bases = dict(db.execute("SELECT boot_id, base_ms FROM sessions ORDER BY session").fetchall())
        found = db.execute("SELECT gpu FROM gpus WHERE uuid = ?", (uuid,)).fetchone()
        period = db.execute("SELECT period_ms FROM sessions ORDER BY session DESC LIMIT 1").fetchone()
        self.period_s = period[0] / 1000 if period else 1.0
        self._keys = {"gpu": found[0] if found else -1, "period": round(self.period_s * 1000)}
        self._rows = [
            (
                piece.phase,
                piece.part,
                *(round(at * 1000) - bases[piece.boot_id] for at in (piece.start_s, piece.end_s, piece.settled_s)),
            )
            for piece in pieces
            if piece.boot_id in bases
        ]

    def __enter__(self) -> Self:
        # In the order in which it is counted, so that nothing has to be sorted.
        self._db.execute(
            "CREATE TEMP TABLE pieces (phase TEXT, part INTEGER, start_ms INTEGER, end_ms INTEGER, settled_ms INTEGER, "
            "PRIMARY KEY (part, phase, start_ms)) WITHOUT ROWID"
        )
        self._db.executemany("INSERT OR IGNORE INTO temp.pieces VALUES (?, ?, ?, ?, ?)", self._rows)
        return self

    def __exit__(self, *_: object) -> None:
        self._db.execute("DROP TABLE temp.pieces")
        self._db.commit()

    def figures(self) -> list[Figures]:
        """Return what was read, by part and phase; nothing of those without a reading."""
        return [Figures(*row) for row in self._db.execute(_FIGURES, self._keys)]

    def when(
        self, condition: str, phases: Sequence[str] = (), limits: Mapping[str, float] = MappingProxyType({})
    ) -> When | None:
        """Return when something was seen under load, or None when it never was.

        Args:
            condition: `loaded`, `last` (in `part`), `throttled`, `idle`, `hot` (margin below `limit`), `warm` (temperature above `limit`), `slow_link`
                (lanes x 2^generation below `link`), `replays`.
            phases: those to look at; all without any.
            limits: what the condition asks for.
        """
        named = {f"phase{place}": phase for place, phase in enumerate(phases)}
        only = f"AND p.phase IN ({', '.join(f':{name}' for name in named)})" if named else ""
        sql = f"SELECT min(r.id), max(r.id), count(*) {_FROM} AND ({_CONDITIONS[condition]}) {only}"
        keys: Mapping[str, float | str] = {**self._keys, **named, **limits}
        first, last, count = self._db.execute(sql, keys).fetchone()
        return When(self._wall(first >> GPU_BITS), self._wall(last >> GPU_BITS), count) if count else None

    def _wall(self, t_ms: int) -> datetime:
        sql = "SELECT wall_ms - t_ms FROM clock WHERE t_ms <= ? ORDER BY t_ms DESC LIMIT 1"
        found = self._db.execute(sql, (t_ms,)).fetchone()
        return datetime.fromtimestamp((t_ms + (found[0] if found else 0)) / 1000, UTC)
