"""The file that telemetry is recorded into: an SQLite database, what is in it, and its writer. docs/telemetry.md.

A row of `readings` is one GPU at one tick. It is kept small: its key holds the time and the GPU, and what counts since
the driver was loaded is stored as the growth since the GPU's last reading, so that SQLite's integers stay short.

Standard library only: the recorder container runs on this file.
"""

import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from vaultcube import __version__
from vaultcube.gpu.readings import GpuInfo, Reading

SCHEMA: Final = "vaultcube.telemetry/1"
# `id` of a reading: milliseconds since the file began, times 64, plus the GPU's number in `gpus`.
GPU_BITS: Final = 6
GPUS_MAX: Final = 1 << GPU_BITS
# Longer than this the log of what is not yet in the file itself does not stay.
_JOURNAL_BYTES: Final = 1 << 20
_CHECKPOINT_PAGES: Final = 128

_TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (           -- one row each time a recorder began to write into this file
    session INTEGER PRIMARY KEY,
    t_ms INTEGER NOT NULL,        -- when, in this file's time: milliseconds since its first session began
    base_ms INTEGER NOT NULL,     -- CLOCK_MONOTONIC = base_ms + t_ms; the same until the machine is booted again
    boot_id TEXT NOT NULL,
    period_ms INTEGER NOT NULL,
    driver TEXT NOT NULL,
    cuda TEXT,
    simulated INTEGER NOT NULL,   -- 1: the driver is a simulator's
    vaultcube TEXT NOT NULL,
    kernel_log TEXT,              -- what was followed for faults; NULL: nothing could be read
    xid_events INTEGER NOT NULL,  -- 1: NVML reports Xids of at least one GPU
    ended_ms INTEGER,             -- NULL: it is going on, or was killed
    ended_by TEXT
);
CREATE TABLE gpus (
    gpu INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL UNIQUE,
    nvml_index INTEGER NOT NULL,  -- as the recorder saw it: in a container with pinned GPUs they count from 0
    name TEXT NOT NULL,
    pci_bus_id TEXT NOT NULL,
    memory_total_bytes INTEGER NOT NULL,
    power_limit_mw INTEGER,
    temperature_limit_c INTEGER,
    pcie_gen_max INTEGER,
    pcie_width_max INTEGER
);
CREATE TABLE clock (              -- wall time (Unix, ms) beside file time; a new row when their distance changed
    t_ms INTEGER PRIMARY KEY,
    wall_ms INTEGER NOT NULL
);
CREATE TABLE readings (
    id INTEGER PRIMARY KEY,       -- t_ms << 6 | gpu
    problem TEXT,                 -- why there are no values
    since_ms INTEGER,             -- time since this GPU's last reading with values; NULL: it is the first
    temperature_c INTEGER,
    temperature_margin_c INTEGER, -- to the card's own limit
    memory_temperature_c INTEGER,
    power_mw INTEGER,
    energy_mj INTEGER,            -- growth since the last reading; NULL: no earlier one, or the counter began anew
    sm_clock_mhz INTEGER,
    memory_clock_mhz INTEGER,
    utilisation_percent INTEGER,
    memory_utilisation_percent INTEGER,
    memory_used_kib INTEGER,
    fan_percent INTEGER,
    pstate INTEGER,
    pcie_gen INTEGER,
    pcie_width INTEGER,
    pcie_replays INTEGER,         -- growth
    clock_events INTEGER,         -- NVML's bits of what holds the clocks back at this moment
    power_cap_us INTEGER,         -- growth: for how long since the last reading
    sw_thermal_us INTEGER,        -- growth
    hw_thermal_us INTEGER,        -- growth
    power_brake_us INTEGER,       -- growth
    ecc_uncorrected INTEGER       -- growth
);
CREATE INDEX problems ON readings (id) WHERE problem IS NOT NULL;
CREATE TABLE happenings (
    id INTEGER PRIMARY KEY,
    t_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    gpu INTEGER,                  -- NULL: the machine, or a GPU that is not in `gpus`
    code INTEGER,                 -- of an Xid
    count INTEGER NOT NULL,
    sources TEXT NOT NULL,        -- nvml, kernel, or both
    detail TEXT NOT NULL          -- a JSON object
);
CREATE INDEX happenings_by_time ON happenings (t_ms);
"""
# For people and for `sqlite3 -header`: units in the names, wall time beside the clock that events.jsonl uses.
_VIEWS: Final = """
CREATE VIEW samples AS
SELECT
    strftime('%Y-%m-%dT%H:%M:%fZ', (c.wall_ms + (r.id >> 6) - c.t_ms) / 1000.0, 'unixepoch') AS time,
    (s.base_ms + (r.id >> 6)) / 1000.0 AS mono_s,
    g.nvml_index AS gpu, g.uuid, r.problem, r.since_ms / 1000.0 AS since_s,
    r.utilisation_percent, r.memory_utilisation_percent, r.sm_clock_mhz, r.memory_clock_mhz, r.pstate,
    r.power_mw / 1000.0 AS power_w, r.energy_mj / 1000.0 AS energy_j,
    r.temperature_c, r.temperature_margin_c, r.memory_temperature_c, r.fan_percent,
    r.memory_used_kib / 1024.0 AS memory_used_mib,
    r.pcie_gen, r.pcie_width, r.pcie_replays,
    CASE WHEN r.clock_events IS NOT NULL THEN printf('0x%x', r.clock_events) END AS clock_events,
    r.power_cap_us / 1e6 AS power_cap_s, r.sw_thermal_us / 1e6 AS sw_thermal_s,
    r.hw_thermal_us / 1e6 AS hw_thermal_s, r.power_brake_us / 1e6 AS power_brake_s, r.ecc_uncorrected
FROM readings r
JOIN gpus g ON g.gpu = r.id & 63
JOIN sessions s ON s.session = (SELECT max(session) FROM sessions WHERE t_ms <= r.id >> 6)
JOIN clock c ON c.t_ms = (SELECT max(t_ms) FROM clock WHERE t_ms <= r.id >> 6);
CREATE VIEW events AS
SELECT
    strftime('%Y-%m-%dT%H:%M:%fZ', (c.wall_ms + h.t_ms - c.t_ms) / 1000.0, 'unixepoch') AS time,
    (s.base_ms + h.t_ms) / 1000.0 AS mono_s,
    h.kind, g.nvml_index AS gpu, g.uuid, h.code, h.count, h.sources, h.detail
FROM happenings h
LEFT JOIN gpus g ON g.gpu = h.gpu
JOIN sessions s ON s.session = (SELECT max(session) FROM sessions WHERE t_ms <= h.t_ms)
JOIN clock c ON c.t_ms = (SELECT max(t_ms) FROM clock WHERE t_ms <= h.t_ms);
INSERT INTO meta VALUES ('schema', 'vaultcube.telemetry/1');
"""
_INSERT: Final = (
    "INSERT OR REPLACE INTO readings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class FormatError(Exception):
    """A file that is not ours, or of a version that this one does not know; the text says which."""


class Begun(NamedTuple):
    """What a recorder knows when it begins. Times are CLOCK_MONOTONIC and Unix time in milliseconds."""

    mono_ms: int
    wall_ms: int
    boot_id: str
    period_ms: int
    driver: str
    cuda: str | None
    simulated: bool
    kernel_log: str | None
    xid_events: bool


class Before(NamedTuple):
    """The session that wrote into the file before this one: for how long nothing was recorded, and its boot."""

    away_ms: int
    boot_id: str


class Writer:
    """Writes telemetry into a file, new or begun by an earlier recorder. What is written is safe after `commit`.

    Args:
        path: the file; its folder must be there.
        begun: about this recorder.
        gpus: what it will read, in its order: `reading` counts in it.

    Attributes:
        before: the session before this one, or None.

    Raises:
        sqlite3.Error: the file cannot be written; so do all methods.
        FormatError: it holds something else.
    """

    def __init__(self, path: str, begun: Begun, gpus: Sequence[GpuInfo]) -> None:
        # The folder's permissions say who may read; the file itself hides nothing.
        self._db = sqlite3.connect(path, timeout=5)
        try:
            self._prepare()
            self.before = self._session(begun)
            self._gpus = [self._gpu(info) for info in gpus]
            self._last = [self._last_reading(gpu) for gpu in self._gpus]
            self._counters: list[dict[str, int]] = [{} for _ in gpus]
            self.clock(begun.mono_ms, begun.wall_ms)
            self.commit()
        except BaseException:
            with suppress(sqlite3.Error):
                self._db.close()
            raise

    def reading(self, position: int, mono_ms: int, now: Reading) -> list[str]:
        """Add a GPU's reading; return the names of the counters that stand lower than at its last one."""
        gpu = self._gpus[position]
        key = self._t(mono_ms) << GPU_BITS | gpu
        if now.problem is not None:
            self._db.execute("INSERT OR REPLACE INTO readings (id, problem) VALUES (?, ?)", (key, now.problem))
            return []
        reset: list[str] = []
        counters = self._counters[position]

        def grown(name: str, value: int | None) -> int | None:
            if value is None:
                return None
            before = counters.get(name)
            counters[name] = value
            if before is None:
                return None
            if value < before:
                reset.append(name)
                return None
            return value - before

        def microseconds(name: str, value: int | None) -> int | None:
            return grown(name, None if value is None else value // 1000)

        t_ms = key >> GPU_BITS
        last = self._last[position]
        self._last[position] = t_ms
        row = (
            key,
            None,
            None if last is None else t_ms - last,
            now.temperature_c,
            now.temperature_margin_c,
            now.memory_temperature_c,
            now.power_mw,
            grown("energy_mj", now.energy_mj),
            now.sm_clock_mhz,
            now.memory_clock_mhz,
            now.utilisation_percent,
            now.memory_utilisation_percent,
            None if now.memory_used_bytes is None else now.memory_used_bytes >> 10,
            now.fan_percent,
            now.pstate,
            now.pcie_gen,
            now.pcie_width,
            grown("pcie_replays", now.pcie_replays),
            now.clock_events,
            microseconds("power_cap_ns", now.power_cap_ns),
            microseconds("sw_thermal_ns", now.sw_thermal_ns),
            microseconds("hw_thermal_ns", now.hw_thermal_ns),
            microseconds("power_brake_ns", now.power_brake_ns),
            grown("ecc_uncorrected", now.ecc_uncorrected),
        )
        self._db.execute(_INSERT, row)
        return reset

    def event(
        self,
        mono_ms: int,
        kind: str,
        *,
        position: int | None = None,
        code: int | None = None,
        count: int = 1,
        sources: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> int:
        """Add an event and return its number, for `amend`."""
        gpu = None if position is None else self._gpus[position]
        row = (self._t(mono_ms), kind, gpu, code, count, sources, json.dumps(detail or {}))
        sql = "INSERT INTO happenings (t_ms, kind, gpu, code, count, sources, detail) VALUES (?, ?, ?, ?, ?, ?, ?)"
        return self._db.execute(sql, row).lastrowid or 0

    def amend(self, number: int, *, position: int | None, count: int, sources: str, detail: Mapping[str, Any]) -> None:
        """Say more of an event: which GPU it was on, how often it came, who saw it, and what they said."""
        gpu = None if position is None else self._gpus[position]
        sql = "UPDATE happenings SET gpu = ?, count = ?, sources = ?, detail = ? WHERE id = ?"
        self._db.execute(sql, (gpu, count, sources, json.dumps(detail), number))

    def clock(self, mono_ms: int, wall_ms: int) -> None:
        """Say what wall time it is."""
        self._db.execute("INSERT OR REPLACE INTO clock VALUES (?, ?)", (self._t(mono_ms), wall_ms))

    def commit(self) -> None:
        """Make what was written survive this process."""
        self._db.commit()

    def close(self, mono_ms: int, ended_by: str) -> None:
        """End the session, and leave one plain file where nobody else has it open."""
        sql = "UPDATE sessions SET ended_ms = ?, ended_by = ? WHERE session = ?"
        self._db.execute(sql, (self._t(mono_ms), ended_by, self._number))
        self.commit()
        _fold(self._db)
        self._db.close()

    def _t(self, mono_ms: int) -> int:
        return max(mono_ms - self._base, 0)

    def _prepare(self) -> None:
        made = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if made:
            check(self._db)
        # What is committed lies in the log beside the file, and outlives this process without an fsync.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
        self._db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        if not made:
            # One transaction: a file that is there at all is whole.
            self._db.executescript("BEGIN;" + _TABLES + _VIEWS + "COMMIT;")

    def _session(self, begun: Begun) -> Before | None:
        """Add this session, in the file's time: a new boot's clock is laid behind what there is, by wall time."""
        last = self._db.execute("SELECT base_ms, boot_id FROM sessions ORDER BY session DESC LIMIT 1").fetchone()
        before = None
        if last is None:
            self._base = begun.mono_ms
        else:
            end = self._end()
            self._base = last[0]
            if last[1] != begun.boot_id or begun.mono_ms - self._base < end:
                away = max(begun.wall_ms - self._wall(end), 1)
                self._base = begun.mono_ms - end - away
            before = Before(begun.mono_ms - self._base - end, last[1])
        row = (self._t(begun.mono_ms), self._base, *begun[2:7], __version__, *begun[7:])
        sql = """
            INSERT INTO sessions (t_ms, base_ms, boot_id, period_ms, driver, cuda, simulated, vaultcube, kernel_log,
                                  xid_events)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        """
        self._number = self._db.execute(sql, row).lastrowid
        return before

    def _end(self) -> int:
        """Return the last moment that the file knows of."""
        sql = """
            SELECT max(coalesce((SELECT max(id) >> 6 FROM readings), 0),
                       coalesce((SELECT max(t_ms) FROM happenings), 0),
                       (SELECT max(coalesce(ended_ms, t_ms)) FROM sessions))
        """
        return int(self._db.execute(sql).fetchone()[0])

    def _wall(self, t_ms: int) -> int:
        sql = "SELECT wall_ms - t_ms FROM clock WHERE t_ms <= ? ORDER BY t_ms DESC LIMIT 1"
        return int(self._db.execute(sql, (t_ms,)).fetchone()[0]) + t_ms

    def _last_reading(self, gpu: int) -> int | None:
        sql = "SELECT id >> 6 FROM readings WHERE id & 63 = ? AND problem IS NULL ORDER BY id DESC LIMIT 1"
        found = self._db.execute(sql, (gpu,)).fetchone()
        return int(found[0]) if found else None

    def _gpu(self, info: GpuInfo) -> int:
        found = self._db.execute("SELECT gpu FROM gpus WHERE uuid = ?", (info.uuid,)).fetchone()
        number = int(found[0] if found else self._db.execute("SELECT count(*) FROM gpus").fetchone()[0])
        if number >= GPUS_MAX:
            raise FormatError(f"a file holds {GPUS_MAX} GPUs at most")
        # `info.index` is what mypy takes for the method of a tuple.
        row = (number, info.uuid, info[1], info.name, info.pci_bus_id, info.memory_total_bytes)
        limits = (info.power_limit_mw, info.temperature_limit_c, info.pcie_gen_max, info.pcie_width_max)
        self._db.execute("INSERT OR REPLACE INTO gpus VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row + limits)
        return number


def check(db: sqlite3.Connection) -> None:
    """Refuse a database that is not telemetry of this version.

    Raises:
        FormatError: it is not.
        sqlite3.Error: it cannot be read.
    """
    try:
        found = db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    except sqlite3.OperationalError as error:
        if "no such" not in str(error):
            raise
        found = None
    if found is None or found[0] != SCHEMA:
        raise FormatError(f"it is not {SCHEMA}" + (f" but {found[0]}" if found else ""))


def settle(path: str | os.PathLike[str]) -> None:
    """Take what a killed recorder left beside its file into the file, so that one plain file remains.

    Does nothing where the file is still in use, or may not be written.
    """
    with suppress(sqlite3.Error):
        db = sqlite3.connect(f"file:{uri(path)}?mode=rw", uri=True, timeout=0)
        try:
            _fold(db)
        finally:
            db.close()


def _fold(db: sqlite3.Connection) -> None:
    """Write the log back into the file; without readers, the file then needs none any more."""
    with suppress(sqlite3.OperationalError):
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        # A file without a log can be read in a folder that may not be written.
        db.execute("PRAGMA journal_mode = DELETE")


def uri(path: str | os.PathLike[str]) -> str:
    """Return a path as it stands in an SQLite URI."""
    return os.fspath(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
