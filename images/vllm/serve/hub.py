"""A model of the hub: asked about first, then held against the memory, then downloaded."""

from __future__ import annotations

import json
import os
import queue
import re
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from common import processes
from common.outcome import BAD_PARAMETERS, FAILED, Problem
from serve import directory, model
from serve.model import Model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from common.events import EventWriter
    from common.signals import Signals
    from serve.cli import Options
    from serve.progress import Progress
    from serve.secrets import Secrets

_POLL_S = 0.1
_GRACE_S = 1.0
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
GB = 10**9


def fetch(options: Options, secrets: Secrets, signals: Signals, progress: Progress, events: EventWriter) -> Model:
    """Return the model `options.model` of the hub, all of it in the cache.

    Raises:
        Problem: it is not to be had, or does not fit; or a signal came.
    """
    if not _HUB_ID.fullmatch(options.model):
        message = f"{options.model!r} is no name of a model"
        raise Problem("model-not-found", message, "give a hub id, /model, or tiny", BAD_PARAMETERS)
    variables = {
        **os.environ,
        **secrets.environment(),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    token = bool(variables.get("HF_TOKEN"))
    child = processes.start("serve.fetch", variables, options.model, *["--token"] * token, talks=True)
    found: Model | None = None
    try:
        for word in _words(child.stdout, signals):
            kind = word.pop("kind", "")
            if kind == "problem":
                raise Problem(**word)
            if kind == "found":
                found = _found(word)
                events.write("model", **found.event(options))
                progress.enter("check", model.check_memory(found, options))
                if word["missing_bytes"]:
                    progress.enter("download", f"{word['missing_bytes'] / GB:.2f} GB", 0.0)
                _go(child.stdin)
            elif kind == "progress" and word["total"]:
                detail = f"{word['done'] / GB:.2f} of {word['total'] / GB:.2f} GB"
                progress.enter("download", detail, min(1.0, word["done"] / word["total"]))
            elif kind == "done" and found:
                folder = Path(word["path"])
                directory.check_files(folder, needs_tokenizer=False)
                return Model(
                    "hub", str(folder), found.config, found.weights_bytes, found.revision, {"HF_HUB_OFFLINE": "1"}
                )
    finally:
        processes.stop(child, _GRACE_S)
        for stream in (child.stdin, child.stdout):
            if stream:
                stream.close()
    raise Problem("workload-failed", f"downloading {options.model} ended without a word", "see the lines above", FAILED)


def _found(word: dict[str, Any]) -> Model:
    return Model("hub", "", word["config"], word["weights_bytes"], word["revision"])


def _go(stream: IO[bytes] | None) -> None:
    if stream:
        stream.write(b"go\n")
        stream.flush()


def _words(stream: IO[bytes] | None, signals: Signals) -> Iterator[dict[str, Any]]:
    """Yield what the other process says until it ends; a signal is answered while it says nothing."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in stream or ():
            lines.put(line)
        lines.put(b"")

    threading.Thread(target=read, name="hub", daemon=True).start()
    while True:
        signals.check()
        try:
            line = lines.get(timeout=_POLL_S)
        except queue.Empty:
            continue
        if not line:
            return
        try:
            word = json.loads(line)
        except ValueError:
            continue
        if isinstance(word, dict):
            yield word
