"""Events: one strictly valid JSON object a line, appended by several processes to one file."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCHEMA = 1
LAUNCHER = -1
"""The rank that the launcher writes its events under."""


class EventError(Exception):
    """The events file cannot be written any more (disk full, folder gone)."""


def finite_or_none(value: float) -> float | None:
    """Return `value`, or None where JSON has no word for it (NaN, infinities)."""
    return value if math.isfinite(value) else None


class EventWriter:
    """Appends the events of one rank. Threads of the process may share it.

    Lines of several processes never mix: each is one write to a descriptor opened with O_APPEND.
    """

    def __init__(
        self,
        path: Path,
        rank: int,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open `path` for appending; `rank` is -1 for the launcher.

        Raises:
            EventError: the file can be neither opened nor made.
        """
        self.path = path
        self._rank = rank
        self._now = now
        self._monotonic = monotonic
        self._seq = 0
        self._lock = threading.Lock()
        try:
            # 0o666: the umask decides who else may read or clear the results.
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise EventError(f"cannot open {path}: {error.strerror}") from error

    def write(self, kind: str, **fields: Any) -> None:
        """Append one event; it is with the kernel when this returns.

        Raises:
            EventError: the line could not be written whole.
            ValueError: a field holds NaN or an infinity.
        """
        # A round trip through UTF-8: a path with undecodable bytes would leave lone surrogates, which strict readers refuse.
        clean = json.loads(json.dumps(fields, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"))
        with self._lock:
            envelope = {
                "schema": SCHEMA,
                "seq": self._seq,
                "time": self._now().isoformat(timespec="microseconds").replace("+00:00", "Z"),
                "mono": self._monotonic(),
                "rank": self._rank,
                "kind": kind,
            }
            line = json.dumps(envelope | clean, separators=(",", ":")).encode("ascii") + b"\n"
            try:
                written = os.write(self._fd, line)
            except OSError as error:
                raise EventError(f"cannot write {self.path}: {error.strerror}") from error
            # A second write for the rest could land behind another process's line.
            if written != len(line):
                raise EventError(f"cannot write {self.path}: only {written} of {len(line)} bytes fitted")
            self._seq += 1

    def close(self) -> None:
        """Give the descriptor back; writing after this raises EventError."""
        with self._lock:
            os.close(self._fd)
            self._fd = -1


def read_new(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """Return the events of the whole lines in `path` from byte `offset` on, and the offset to go on from.

    A line that is no JSON object is left out: the reader judges what is there, it does not fail on a torn line.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except OSError:
        return [], offset
    whole, newline, _ = data.rpartition(b"\n")
    found = []
    for line in whole.split(b"\n"):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            found.append(event)
    return found, offset + len(whole) + len(newline)
