"""Reading what a recorder wrote, while it writes, after its end, and after it was killed. docs/telemetry.md.

Times are CLOCK_MONOTONIC in seconds, the clock of `mono` in events.jsonl: of the boot in which the file was written last.
What lies in an earlier boot is laid out before it by wall time, down to below zero.
"""

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from vaultcube.gpu import rundb, summary
from vaultcube.gpu.loads import Loaded, Piece
from vaultcube.gpu.rundb import FormatError, settle
from vaultcube.gpu.summary import Span, Summary

__all__ = ["Event", "Meta", "RecordedGpu", "Summary", "Telemetry", "TelemetryError", "settle"]


class TelemetryError(Exception):
    """There is no telemetry in a file, or it cannot be read; the text says why."""


class RecordedGpu(NamedTuple):
    """A GPU that a file has readings of. `nvml_index` is the recorder's count: in a container it may start from 0."""

    uuid: str
    nvml_index: int
    name: str
    pci_bus_id: str
    memory_total_bytes: int
    power_limit_mw: int | None
    temperature_limit_c: int | None
    pcie_gen_max: int | None
    pcie_width_max: int | None


class Meta(NamedTuple):
    """What a file says about itself.

    Attributes:
        schema: `vaultcube.telemetry/1`.
        simulated: true when any part of it came from a simulator.
        driver, cuda: versions, in the last session.
        boot_id: the kernel's, in the last session.
        period_s: time between two readings, in the last session.
        kernel_log: what was followed for faults, or None when nothing could be.
        xid_events: whether NVML reports Xids. With neither of the two, no Xid says nothing.
        sessions: how often a recorder began to write.
        started_s, last_s: when the first began, and the last moment that it knows of.
        started_wall_s: the first, in Unix time.
        ended_by: what ended the last session: a signal's name, `parent`; None while it goes on, and when it was killed.
        gpus: what was recorded.
    """

    schema: str
    simulated: bool
    driver: str
    cuda: str | None
    boot_id: str
    period_s: float
    kernel_log: str | None
    xid_events: bool
    sessions: int
    started_s: float
    last_s: float
    started_wall_s: float
    ended_by: str | None
    gpus: tuple[RecordedGpu, ...]


class Event(NamedTuple):
    """Something that happened.

    `kind` is one of: xid, lost, returned, problem, aer, energy_reset, counter_reset, clock_jump, gap, restart,
    kernel_log, process, process_ended. `uuid` is None for the machine, and for a GPU that could not be read from the start. `sources` are nvml
    and kernel. What `detail` holds for each kind stands in docs/telemetry.md.
    """

    at_s: float
    wall_s: float
    kind: str
    uuid: str | None
    code: int | None
    count: int  # type: ignore[assignment] # nobody counts a value in it
    sources: tuple[str, ...]
    detail: Mapping[str, Any]


_META: Final = """
SELECT boot_id, driver, cuda, period_ms, kernel_log, xid_events, ended_by, base_ms, session,
    (SELECT max(simulated) FROM sessions), (SELECT min(t_ms) FROM sessions), (SELECT min(wall_ms - t_ms) FROM clock
    WHERE t_ms = (SELECT min(t_ms) FROM clock)),
    max(coalesce((SELECT max(id) >> 6 FROM readings), 0), coalesce((SELECT max(t_ms) FROM happenings), 0),
        (SELECT max(coalesce(ended_ms, t_ms)) FROM sessions))
FROM sessions ORDER BY session DESC LIMIT 1
"""
_EVENTS: Final = """
SELECT h.t_ms, (SELECT wall_ms - t_ms FROM clock WHERE t_ms <= h.t_ms ORDER BY t_ms DESC LIMIT 1),
    h.kind, g.uuid, h.code, h.count, h.sources, h.detail
FROM happenings h LEFT JOIN gpus g USING (gpu) WHERE h.t_ms BETWEEN ? AND ? ORDER BY h.t_ms, h.id
"""


class Telemetry:
    """A file of telemetry, open for reading; use as a context, or `close` it.

    All methods raise TelemetryError when the file breaks off.
    """

    def __init__(self, db: sqlite3.Connection, copied: tempfile.TemporaryDirectory[str] | None = None) -> None:
        self._db = db
        self._copied = copied

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a file, also one that is being written, and one in a folder that may not be written.

        Raises:
            TelemetryError: it is not there, not telemetry, or cannot be read.
        """
        if not Path(path).is_file():
            raise TelemetryError(f"there is no telemetry at {path}")
        try:
            return cls(*_open(Path(path)))
        except (FormatError, sqlite3.Error, OSError) as error:
            raise TelemetryError(f"{path} cannot be read: {error}") from error

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
        if self._copied is not None:
            self._copied.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def meta(self) -> Meta:
        """What the file says about itself, as of now."""
        found = self._ask(_META)
        if not found:
            raise TelemetryError("the recorder broke off before its first reading")
        boot, driver, cuda, period, log, xids, ended, base, sessions, simulated, first, wall, last = found[0]
        gpus = self._ask(
            "SELECT uuid, nvml_index, name, pci_bus_id, memory_total_bytes, power_limit_mw, temperature_limit_c, "
            "pcie_gen_max, pcie_width_max FROM gpus ORDER BY gpu"
        )
        return Meta(
            schema=rundb.SCHEMA,
            simulated=bool(simulated),
            driver=driver,
            cuda=cuda,
            boot_id=boot,
            period_s=period / 1000,
            kernel_log=log,
            xid_events=bool(xids),
            sessions=sessions,
            started_s=(first + base) / 1000,
            last_s=(last + base) / 1000,
            started_wall_s=(wall + first) / 1000,
            ended_by=ended,
            gpus=tuple(RecordedGpu(*row) for row in gpus),
        )

    def summarise(self, uuid: str, start_s: float | None = None, end_s: float | None = None) -> Summary:
        """Return what was recorded of a GPU; without times, from the first session's beginning to the last moment.

        A GPU that the file does not know has a summary too, without any sample.
        """
        meta = self.meta
        start_s = meta.started_s if start_s is None else start_s
        end_s = meta.last_s if end_s is None else end_s
        base = self._base()
        suspended = sum(
            event.detail.get("suspended_s", 0) for event in self.events(start_s, end_s) if event.kind == "gap"
        )
        span = Span(
            start_ms=round(start_s * 1000) - base,
            end_ms=round(end_s * 1000) - base,
            base_ms=base,
            period_ms=round(meta.period_s * 1000),
            suspended_ms=round(suspended * 1000),
        )
        found = self._ask("SELECT gpu FROM gpus WHERE uuid = ?", uuid)
        try:
            return summary.summarise(self._db, found[0][0] if found else rundb.GPUS_MAX, uuid, span)
        except sqlite3.Error as error:
            raise TelemetryError(f"telemetry cannot be read: {error}") from error

    def events(self, start_s: float | None = None, end_s: float | None = None) -> list[Event]:
        """Return what happened, in order; without times, all of it."""
        base = self._base()
        first = -(1 << 62) if start_s is None else round(start_s * 1000) - base
        last = 1 << 62 if end_s is None else round(end_s * 1000) - base
        return [
            Event(
                at_s=(t + base) / 1000,
                wall_s=(wall + t) / 1000,
                kind=kind,
                uuid=uuid,
                code=code,
                count=count,
                sources=tuple(sources.split(",")) if sources else (),
                detail=json.loads(detail),
            )
            for t, wall, kind, uuid, code, count, sources, detail in self._ask(_EVENTS, first, last)
        ]

    @contextmanager
    def under_load(self, uuid: str, pieces: Sequence[Piece]) -> Iterator[Loaded]:
        """Give what was recorded of a GPU while it was under load; one at a time."""
        try:
            with Loaded(self._db, uuid, pieces) as loaded:
                yield loaded
        except sqlite3.Error as error:
            raise TelemetryError(f"telemetry cannot be read: {error}") from error

    def _base(self) -> int:
        found = self._ask("SELECT base_ms FROM sessions ORDER BY session DESC LIMIT 1")
        return int(found[0][0]) if found else 0

    def _ask(self, sql: str, *values: object) -> list[Any]:
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise TelemetryError(f"telemetry cannot be read: {error}") from error


def _open(path: Path) -> tuple[sqlite3.Connection, tempfile.TemporaryDirectory[str] | None]:
    """Open it as it is; else without a log, which a finished file needs none of; else a copy of file and log."""
    try:
        return _connect(path, "mode=ro"), None
    except sqlite3.OperationalError:
        log = path.with_name(f"{path.name}-wal")
        if not log.exists() or not log.stat().st_size:
            return _connect(path, "immutable=1"), None
    copied = tempfile.TemporaryDirectory(prefix="vaultcube-telemetry-")
    try:
        for source in (path, log):
            shutil.copy(source, Path(copied.name))
        return _connect(Path(copied.name, path.name), "mode=ro"), copied
    except BaseException:
        copied.cleanup()
        raise


def _connect(path: Path, how: str) -> sqlite3.Connection:
    db = sqlite3.connect(f"file:{rundb.uri(path)}?{how}", uri=True, timeout=5)
    try:
        rundb.check(db)
    except BaseException:
        with suppress(sqlite3.Error):
            db.close()
        raise
    return db
