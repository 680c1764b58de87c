"""The folder of images to train on, checked before anything is started."""

from __future__ import annotations

import os
from pathlib import Path

from common.outcome import bad_parameter


def check_images(data: str, suffixes: tuple[str, ...]) -> None:
    """Raise the problem (exit code 64) of a `--data` folder that is not one folder of images a class.

    An image is what ends in one of `suffixes` (lower case).
    """
    root = Path(data)
    need = "--data needs a folder with one folder of images for each class"
    if not root.is_dir():
        raise bad_parameter(f"{data} is not a folder", need)
    try:
        classes = sorted(entry.path for entry in os.scandir(root) if entry.is_dir())
        empty = [name for name in classes if not _has_image(name, suffixes)]
    except OSError as error:
        raise bad_parameter(
            f"cannot read {error.filename}: {error.strerror}", f"make it readable for user {os.getuid()}"
        ) from error
    if not classes:
        raise bad_parameter(f"{data} holds no class folders", need)
    if empty:
        raise bad_parameter(f"no image in {empty[0]}" + (f" and {len(empty) - 1} more" if empty[1:] else ""), need)


def _has_image(folder: str, suffixes: tuple[str, ...]) -> bool:
    return any(name.lower().endswith(suffixes) for _, _, names in os.walk(folder, onerror=_give_up) for name in names)


def _give_up(error: OSError) -> None:
    raise error
