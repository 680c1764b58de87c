"""What the server prints: handed on to our own stdout line by line, read for its stages, its end kept."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING

from serve.log import Log, Stage

if TYPE_CHECKING:
    import subprocess  # noqa: TID251 - a type's name only

    from serve.secrets import Secrets

KEPT_LINES = 400
_CHUNK_BYTES = 65536
_CLOSE_S = 5.0
# Some versions of vLLM colour their prefixes for terminals and files alike.
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# Our own looking after the server, which would fill the log.
_OURS = re.compile(r'"GET /(?:health|metrics|ping) HTTP/1\.1" 200')


class Output:
    """Reads a process's output in a thread of its own.

    Attributes:
        log: what the lines said.
    """

    def __init__(self, process: subprocess.Popen[bytes], secrets: Secrets) -> None:
        """Start reading."""
        self.log = Log()
        self._secrets = secrets
        self._stages: queue.SimpleQueue[Stage] = queue.SimpleQueue()
        self._last: deque[str] = deque(maxlen=KEPT_LINES)
        self._loading = True
        self._stream = process.stdout
        self._thread = threading.Thread(target=self._read, name="output", daemon=True)
        self._thread.start()

    def stages(self) -> list[Stage]:
        """Return the stages seen since the last call."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._stages.get_nowait())
        return found

    def quieten(self) -> None:
        """Stop looking for stages: the server is ready, and may have much to say."""
        self._loading = False

    def last(self) -> list[str]:
        """Return the last lines, secrets struck out."""
        return list(self._last)

    def close(self) -> None:
        """Wait until everything that was printed has been read."""
        self._thread.join(_CLOSE_S)

    def _read(self) -> None:
        if self._stream is None:
            return
        rest = b""
        while chunk := os.read(self._stream.fileno(), _CHUNK_BYTES):
            *lines, rest = (rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
            for line in lines:
                self._states(line, shown=True)
            rest = self._states(rest, shown=False)
        if rest:
            self._take(rest, shown=True)

    def _states(self, line: bytes, *, shown: bool) -> bytes:
        """Take the states of a progress bar, which draws over itself; only the last is shown, or returned if unfinished."""
        *states, last = line.split(b"\r")
        for state in states:
            self._take(state, shown=False)
        if shown:
            self._take(last, shown=True)
        return last

    def _take(self, raw: bytes, *, shown: bool) -> None:
        text = _COLOUR.sub("", self._secrets.strike(raw.decode("utf-8", "replace")))
        if self._loading and (stage := self.log.feed(text)):
            self._stages.put(stage)
        if not shown or _OURS.search(text):
            return
        self._last.append(text)
        # Nobody has to listen.
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
