"""The files by which those who work on a soak tell each other: the recorder's beat, stops, and who was stopped.

All lie in the soak's folder and are replaced whole, so that nobody ever reads half of one. That a mark is there is what
counts; what it says is for people.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from stress.guard import ALL, SCHEMA, Beat, Seen, Stop, parse

if TYPE_CHECKING:
    from pathlib import Path

BEAT, TOLD, STOPPED = "recorder.json", "stop.json", ".stopped.json"
_MOST_BYTES = 1 << 20


def look(folder: Path, key: str, on_fault: str) -> Seen:
    """Return what there is to see in the folder of a soak for the worker `key`. Never raises."""
    stopped = others(folder, key) if on_fault == ALL else ()
    return Seen(beat(folder), said(folder / TOLD), stopped)


def beat(folder: Path) -> Beat | None:
    """Return the recorder's last sign of life, None without one."""
    data = _read(folder / BEAT)
    return parse(data) if data is not None else None


def others(folder: Path, key: str) -> list[str]:
    """Return the names of the other workers that were stopped."""
    try:
        names = [name.removesuffix(STOPPED) for name in os.listdir(folder) if name.endswith(STOPPED)]  # noqa: PTH208
    except OSError:
        return []
    return sorted(name for name in names if name != key)


def said(path: Path) -> str | None:
    """Return the message of a mark, "" when it is there and says nothing, None when it is not there."""
    data = _read(path)
    if data is None:
        return None
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    message = raw.get("message") if isinstance(raw, dict) else None
    return message[:300] if isinstance(message, str) else ""


def own(folder: Path, key: str) -> Path:
    """Return where the mark of the worker `key` is when it was stopped."""
    return folder / f"{key}{STOPPED}"


def write(folder: Path, key: str, stop: Stop) -> None:
    """Mark the worker `key` as stopped.

    Raises:
        OSError: the mark cannot be written.
    """
    time = datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
    fields = {"schema": SCHEMA, "gpu": key, "code": stop.code, "message": stop.message, "time": time}
    path = own(folder, key)
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(fields) + "\n", encoding="utf-8")
    part.replace(path)


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES)
    except PermissionError:
        # It is there.
        return b""
    except OSError:
        return None
