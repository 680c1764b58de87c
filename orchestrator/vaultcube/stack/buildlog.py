"""Reads what `docker buildx ... --progress rawjson` writes: BuildKit status objects, on one line or several. Pure."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

TAIL_LINES = 15
# What a step runs tells more than what it mounts, and a name is shown on one line.
_FLAGS = re.compile(r"--(?:mount|network|security|chmod|chown)=\S+\s*")
NAME_CHARS = 100
# Steps of BuildKit's own that nobody waits for.
_INTERNAL = re.compile(r"^\[(?:.*\binternal\b.*)\]|^resolve |^\[context |^\[.*auth\]")


class BuildLog:
    """Follows a build.

    Attributes:
        current: the name of the step that began last and is not done.
        done: steps that are finished or came from the cache.
        total: steps known so far.
        failed: the step that failed, or None.
        error: BuildKit's words for it.
    """

    def __init__(self) -> None:
        self.current = ""
        self.failed: str | None = None
        self.error = ""
        self.plain: deque[str] = deque(maxlen=TAIL_LINES)
        self._buffer: list[str] = []
        self._names: dict[str, str] = {}
        self._open: dict[str, str] = {}
        self._done: set[str] = set()
        self._tails: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=TAIL_LINES))

    @property
    def done(self) -> int:
        """Steps finished so far."""
        return len(self._done)

    @property
    def total(self) -> int:
        """Steps known so far; grows while the build is planned."""
        return len(self._names)

    def feed(self, line: str) -> list[str]:
        """Take one line; return what the build's commands wrote in it. A line that is no status is kept as plain text."""
        status = self._status(line)
        if status is None:
            return []
        for vertex in _objects(status.get("vertexes")):
            self._vertex(vertex)
        written: list[str] = []
        for log in _objects(status.get("logs")):
            written += self._log(log)
        return written

    def tail(self) -> list[str]:
        """Return the last lines of the step that failed, or what the command itself said when none did."""
        if self.failed is None:
            return list(self.plain)
        digest = next((key for key, name in self._names.items() if name == self.failed), "")
        return list(self._tails[digest]) or [line for line in (self.error,) if line]

    def _status(self, line: str) -> dict[str, Any] | None:
        """Return the status that this line completes, if it does."""
        # buildx 0.13 indents its objects over many lines, newer ones write one a line.
        if not self._buffer and not line.startswith("{"):
            if line.strip():
                self.plain.append(line.strip())
            return None
        if line.startswith("{"):
            self._buffer.clear()
        self._buffer.append(line)
        if len(self._buffer) > 1 and not line.startswith("}"):
            return None
        try:
            status = json.loads("\n".join(self._buffer))
        except (ValueError, RecursionError):
            if line.startswith("}"):
                self._buffer.clear()
            return None
        self._buffer.clear()
        return status if isinstance(status, dict) else None

    def _vertex(self, vertex: Mapping[str, Any]) -> None:
        digest, name = str(vertex.get("digest")), _readable(str(vertex.get("name", "")))
        if vertex.get("error"):
            # A cancelled neighbour is not what went wrong.
            if self.failed is None and "context canceled" not in str(vertex["error"]):
                self.failed, self.error = name, str(vertex["error"])
                self._names[digest] = name
            return
        if _INTERNAL.match(name):
            return
        self._names[digest] = name
        if vertex.get("completed") or vertex.get("cached"):
            self._done.add(digest)
            self._open.pop(digest, None)
        elif vertex.get("started"):
            self._open[digest] = name
        self.current = next(reversed(self._open.values()), self.current)

    def _log(self, log: Mapping[str, Any]) -> list[str]:
        try:
            text = base64.b64decode(str(log.get("data", ""))).decode("utf-8", errors="replace")
        except (binascii.Error, ValueError):
            return []
        # Of a line that was written over, the last version counts.
        lines = [line for part in text.split("\n") if (line := part.rstrip().split("\r")[-1])]
        self._tails[str(log.get("vertex"))].extend(lines)
        return lines


def _readable(name: str) -> str:
    text = " ".join(_FLAGS.sub("", name).split())
    return text if len(text) <= NAME_CHARS else text[: NAME_CHARS - 3] + "..."


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
