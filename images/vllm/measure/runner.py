"""Runs `vllm bench serve` as a child, and sees in its progress bar how far the load is, and when it ended."""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from common.children import Child
from common.outcome import CANNOT_RUN_HERE, Problem
from common.processes import ended

if TYPE_CHECKING:
    import subprocess  # noqa: TID251 - a type's name only
    from collections.abc import Callable, Mapping, Sequence

    from common.signals import Signals

SHOWN_LINES = 15
_LONGEST_LINE = 300
_CHUNK_BYTES = 65536
_POLL_S = 0.1
_GRACE_S = 3.0
_CLOSE_S = 5.0
# The tool's own bar: "  8%|8         | 4/50 [00:03<00:30,  1.5it/s]".
_BAR = re.compile(rb"(\d+)/(\d+) \[")
# Its first line after the load, in case there was no bar.
_AFTER = b"Serving Benchmark Result"

# A client has no GPU, and without one the command `vllm` of 0.10.2 dies before it has read its flags: those of its
# servers want to know what they run on. It is told of a device that nothing here uses.
_START = """
import runpy, sys
sys.argv, sys.path = sys.argv[1:], [part for part in sys.path if part]
try:
    from vllm.platforms.interface import UnspecifiedPlatform
    UnspecifiedPlatform.device_type = "cuda"
except ImportError:
    pass
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class HangError(Exception):
    """The tool did not end in time."""


class Output:
    """Reads what the tool prints in a thread of its own, and keeps the last lines.

    Attributes:
        done: requests that are answered.
        ended_s: when the load ended, on the monotonic clock; None before that.
    """

    def __init__(self, process: subprocess.Popen[bytes], requests: int, strike: Callable[[str], str]) -> None:
        """Start reading; `strike` takes secrets out of a line."""
        self.done = 0
        self.ended_s: float | None = None
        self._requests = requests
        self._strike = strike
        self._last: deque[bytes] = deque(maxlen=SHOWN_LINES)
        self._stream = process.stdout
        self._thread = threading.Thread(target=self._read, name="output", daemon=True)
        self._thread.start()

    def last(self) -> list[str]:
        """Return the last lines that say something."""
        lines = (self._strike(line.decode("utf-8", "replace")).rstrip()[:_LONGEST_LINE] for line in list(self._last))
        return [line for line in lines if line]

    def close(self) -> None:
        """Wait until everything that was printed has been read."""
        self._thread.join(_CLOSE_S)

    def feed(self, text: bytes, now: float) -> bytes:
        """Take what was printed until `now`, and return the part of it that is no whole line yet."""
        *lines, rest = re.split(rb"[\r\n]", text)
        for line in lines:
            self._see(line, now)
            if line.strip() and not _BAR.search(line):
                self._last.append(line)
        # A bar has no end of line until it is drawn anew: it counts at once.
        self._see(rest, now)
        return rest

    def _see(self, line: bytes, now: float) -> None:
        for done, total in _BAR.findall(line):
            if int(total) == self._requests:
                self.done = max(self.done, int(done))
        if self.ended_s is None and (self.done >= self._requests or _AFTER in line):
            self.ended_s = now

    def _read(self) -> None:
        if self._stream is None:
            return
        rest = b""
        while chunk := os.read(self._stream.fileno(), _CHUNK_BYTES):
            rest = self.feed(rest + chunk, time.monotonic())
        self.feed(rest + b"\n", time.monotonic())


def program() -> list[str]:
    """Return how `vllm` is started.

    Raises:
        Problem: it is not installed here (exit code 69).
    """
    beside = Path(sys.executable).parent / "vllm"
    found = str(beside) if beside.is_file() else shutil.which("vllm")
    if found is None:
        raise Problem(
            "workload-failed", "there is no vllm command in this image", "use the image vaultcube/vllm", CANNOT_RUN_HERE
        )
    return [sys.executable, "-c", _START, found]


def environment(given: Mapping[str, str], key: str | None, urls: Sequence[str]) -> dict[str, str]:
    """Return the tool's environment: what is set stays, the key is where it looks for it, and no proxy is in between."""
    hosts = [host for url in urls if (host := urlsplit(url).hostname)]
    direct = ",".join([part for part in (given.get("NO_PROXY") or given.get("no_proxy"),) if part] + hosts)
    wanted = {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false", "NO_PROXY": direct, "no_proxy": direct}
    return {**given, **wanted, **({"OPENAI_API_KEY": key} if key else {})}


def run(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    requests: int,
    timeout_s: float,
    signals: Signals,
    strike: Callable[[str], str],
    progress: Callable[[int], None],
) -> tuple[int, Output]:
    """Run the tool to its end and return its exit code and its output.

    Args:
        argv: the tool's.
        env: its environment.
        requests: how many it sends.
        timeout_s: after how many seconds it hangs.
        signals: end it.
        strike: takes secrets out of a line.
        progress: is told again and again how many requests are answered.

    Raises:
        HangError: it did not end in time.
        Problem: a signal came.
    """
    deadline = time.monotonic() + timeout_s
    child = Child(argv, env)
    try:
        output = Output(child.process, requests, strike)
        while not ended(child.process, _POLL_S):
            signals.check()
            progress(output.done)
            if time.monotonic() > deadline:
                raise HangError
        output.close()
    finally:
        child.end(_GRACE_S)
    progress(output.done)
    return child.process.returncode, output
