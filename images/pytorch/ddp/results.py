"""The results folder: made, checked and never shared by two runs."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

from ddp.outcome import bad_parameter

EVENTS = "events.jsonl"


def prepare(results: Path, *, stamp: bool, now: datetime | None = None) -> Path:
    """Return the path of the events file to write, its folder made. With `stamp` the folder is one of its own.

    Raises:
        Problem: the folder cannot be written, or already holds a run (exit code 64).
    """
    folder = _stamped(results, now or datetime.now(timezone.utc)) if stamp else results
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
    if taken:
        raise bad_parameter(f"{events} already holds a run", "use another folder, or add --stamp")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise bad_parameter(f"the results folder {folder} is not writable", _hint())
    return events


def _stamped(results: Path, now: datetime) -> Path:
    name = f"ddp-{now:%Y%m%dT%H%M%SZ}"
    # Two runs in one second still get a folder each.
    taken = 1
    folder = results / name
    while folder.exists():
        taken += 1
        folder = results / f"{name}-{taken}"
    return folder


def _hint() -> str:
    return f"make it writable for user {os.getuid()}, or use another folder"


def check_images(data: str) -> None:
    """Raise the problem (exit code 64) of a `--data` folder that is not one folder of images a class."""
    root = Path(data)
    need = "--data needs a folder with one folder of images for each class"
    if not root.is_dir():
        raise bad_parameter(f"{data} is not a folder", need)
    try:
        classes = sorted(entry.path for entry in os.scandir(root) if entry.is_dir())
        empty = [name for name in classes if not _has_image(name)]
    except OSError as error:
        raise bad_parameter(
            f"cannot read {error.filename}: {error.strerror}", f"make it readable for user {os.getuid()}"
        ) from error
    if not classes:
        raise bad_parameter(f"{data} holds no class folders", need)
    if empty:
        raise bad_parameter(f"no image in {empty[0]}" + (f" and {len(empty) - 1} more" if empty[1:] else ""), need)


_IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What torchvision's ImageFolder takes for an image."""


def _has_image(folder: str) -> bool:
    return any(name.lower().endswith(_IMAGES) for _, _, names in os.walk(folder, onerror=_give_up) for name in names)


def _give_up(error: OSError) -> None:
    raise error
