"""What the launcher leaves in the container for the healthcheck, and the healthcheck for its next run."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class State:
    """A server that answers: its port, what it calls the model, and whether the model writes text."""

    port: int
    model: str
    generates: bool


def path(name: str, port: int) -> Path:
    """Return the file `name` of the server on `port`."""
    return Path(tempfile.gettempdir()) / f"vaultcube-serve-{port}-{name}.json"


def leave(state: State) -> None:
    """Write what the healthcheck reads. Without it the server counts as one that is still loading."""
    with contextlib.suppress(OSError):
        write(path("state", state.port), json.dumps(asdict(state)))


def clear(port: int) -> None:
    """Take away what a server on `port` left before."""
    for name in ("state", "counters"):
        with contextlib.suppress(OSError):
            path(name, port).unlink(missing_ok=True)


def read(port: int) -> State | None:
    """Return what the launcher left; None while the server is loading."""
    try:
        found = json.loads(path("state", port).read_text(encoding="utf-8"))
        return State(port=port, model=str(found["model"]), generates=bool(found["generates"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(file: Path, text: str) -> None:
    """Write `text` so that a reader sees the old content or the new one, never a part. Raises OSError."""
    work = file.with_name(f".{file.name}.{os.getpid()}")
    work.write_text(text, encoding="utf-8")
    work.replace(file)
