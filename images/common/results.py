"""The results folder: made, checked, and never shared by two runs."""

from __future__ import annotations

import os
import tempfile
from datetime import datetime, timezone
from pathlib import Path

from common.outcome import Problem, bad_parameter

EVENTS = "events.jsonl"


def prepare(results: Path, program: str, *, stamp: bool, shared: bool = False, now: datetime | None = None) -> Path:
    """Return the path of the events file to write, its folder made.

    With `stamp` the folder is one of its own, named after `program`; with `shared` other programs of the same run
    may have written to the file already.

    Raises:
        Problem: the folder cannot be written, or already holds a run (exit code 64).
    """
    folder = _stamped(results, program, now or datetime.now(timezone.utc)) if stamp else results
    try:
        if stamp:
            # Whoever owns the results folder (its group is inherited) can clear what a container's user wrote.
            os.umask(0o002)
        folder.mkdir(parents=True, exist_ok=not stamp)
    except OSError as error:
        raise bad_parameter(f"cannot make the results folder {folder}: {error.strerror}", _hint()) from error
    events = folder / EVENTS
    try:
        taken = events.stat().st_size > 0
    except FileNotFoundError:
        taken = False
    except OSError as error:
        raise bad_parameter(f"cannot use the results folder {folder}: {error.strerror}", _hint()) from error
    if taken and not shared:
        raise bad_parameter(f"{events} already holds a run", "use another folder, or add --stamp")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise bad_parameter(f"the results folder {folder} is not writable", _hint())
    return events


def scratch(program: str) -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder of `program`, to be used as a context.

    Raises:
        Problem: there is no room for one.
    """
    try:
        return tempfile.TemporaryDirectory(prefix=f"{program}-", ignore_cleanup_errors=True)
    except OSError as error:
        raise Problem("no-scratch", f"no temporary folder: {error}", "give the container a writable /tmp") from error


def _stamped(results: Path, program: str, now: datetime) -> Path:
    name = f"{program}-{now:%Y%m%dT%H%M%SZ}"
    # Two runs in one second still get a folder each.
    taken = 1
    folder = results / name
    while folder.exists():
        taken += 1
        folder = results / f"{name}-{taken}"
    return folder


def _hint() -> str:
    return f"make it writable for user {os.getuid()}, or use another folder"
