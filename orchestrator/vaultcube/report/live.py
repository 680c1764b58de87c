"""`vaultcube monitor` as it runs: on a terminal one picture that is drawn anew, elsewhere one below the other."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from types import FrameType
from typing import Any, Protocol, Self, TextIO

from vaultcube.report.graphs import ASCII, BLOCKS, Glyphs
from vaultcube.report.monitor import picture
from vaultcube.stack.sampler import Sampler
from vaultcube.stack.signals import Stop
from vaultcube.stack.watch import Frame, unanswered

# How often the view looks whether anything still answers, in seconds.
BEAT_S = 1.0
ENDING_KEYS = b"qQ\x04"


class View(Protocol):
    """What shows frames; entered for as long as it does."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def show(self, frame: Frame, notes: Sequence[str]) -> None:
        """Show a frame, or the same one again after something else changed."""


def watch(sampler: Sampler, stop: Stop, stream: TextIO) -> None:
    """Show what a sampler sees until `q` or Ctrl-C, which are how one ends a monitor.

    Raises:
        InterruptedRunError: SIGTERM or SIGHUP came.
        OSError: the stream cannot be written.
    """
    if not redraws(stream):
        with Pages(stream) as pages:
            _show(sampler, stop, pages, None)
    else:
        suspended = True
        while suspended:
            with ExitStack() as stack:
                terminal = stack.enter_context(Terminal())
                suspended = _show(sampler, stop, stack.enter_context(Screen(stream)), terminal)
            if suspended:
                # The terminal is the shell's again until `fg`.
                os.kill(os.getpid(), signal.SIGSTOP)
    if stop.received is not signal.SIGINT:
        stop.check()


def _show(sampler: Sampler, stop: Stop, view: View, terminal: Terminal | None) -> bool:
    """Show frames until something ends it; say whether it is only to be suspended."""
    while not stop.requested:
        frame, silent = sampler.frame, sampler.silent_s()
        if silent and frame is None:
            frame = unanswered(f"the driver has not answered for {silent:.0f} s", sampler.began)
        if frame is not None:
            told = f"The driver has not answered for {silent:.0f} s; this is how it was."
            view.show(frame, [told] if silent and frame is sampler.frame else [])
        sources: list[Any] = [stop, sampler, *(terminal.sources() if terminal else [])]
        select.select(sources, [], [], BEAT_S)
        sampler.heed()
        if terminal is not None:
            terminal.heed()
            if terminal.ended or terminal.suspended:
                return terminal.suspended
    return False


def glyphs_of(stream: TextIO) -> Glyphs:
    """Return the glyphs that a stream can write."""
    return BLOCKS if "utf" in (stream.encoding or "").lower() else ASCII


def redraws(stream: TextIO) -> bool:
    """Say whether a stream is a terminal on which a picture can be replaced."""
    return stream.isatty() and os.environ.get("TERM", "") not in {"dumb", ""}


def once(frame: Frame, stream: TextIO, *, as_json: bool) -> str:
    """Return what a stream gets of one look: the picture, or the JSON document."""
    if not as_json:
        return plain(frame, stream)
    import json

    from vaultcube.report.gpujson import monitor_document

    return json.dumps(monitor_document(frame), indent=2) + "\n"


def plain(frame: Frame, stream: TextIO, notes: Sequence[str] = ()) -> str:
    """Return a whole picture as text, as wide as the terminal or $COLUMNS, else 80 columns."""
    width = shutil.get_terminal_size((80, 24)).columns
    return picture(frame, width, glyphs=glyphs_of(stream), notes=notes).plain + "\n"


class Pages:
    """Pictures below each other, for what is no terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last: tuple[datetime, bool] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, frame: Frame, notes: Sequence[str]) -> None:
        """Show a frame once, and once more when there is something to say about it."""
        this = frame.time, bool(notes)
        if this != self._last:
            self._stream.write(("\n" if self._last else "") + plain(frame, self._stream, notes))
            self._stream.flush()
            self._last = this


class Screen:
    """One picture, in the terminal's alternate screen, which is given back as it was."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._stream, self._glyphs = stream, glyphs_of(stream)
        self._console = Console(file=stream, highlight=False)
        self._live = Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.__exit__(None, None, None)

    def show(self, frame: Frame, notes: Sequence[str]) -> None:
        """Show a frame in the terminal as it is now."""
        width, height = self._console.size
        self._live.update(picture(frame, width, height, glyphs=self._glyphs, notes=notes), refresh=True)


class Terminal:
    """What a person does to the terminal: keys, another size, Ctrl-Z.

    Without a terminal at stdin there are no keys, and signals still work.

    Attributes:
        ended: a key that ends the view was pressed.
        suspended: Ctrl-Z was.
    """

    def __init__(self) -> None:
        self.ended = self.suspended = False
        self._keys = -1
        self._modes: list[Any] = []
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        for number in (signal.SIGWINCH, signal.SIGTSTP):
            self._handlers[number] = signal.signal(number, self._signalled)
        if sys.stdin is not None and sys.stdin.isatty():
            self._keys = sys.stdin.fileno()
            self._modes = termios.tcgetattr(self._keys)
            # Ctrl-C and Ctrl-Z stay signals.
            tty.setcbreak(self._keys, termios.TCSADRAIN)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._modes:
            # A terminal that was closed has no modes left to restore.
            with suppress(termios.error):
                termios.tcsetattr(self._keys, termios.TCSADRAIN, self._modes)
        os.close(self._read)
        os.close(self._write)

    def sources(self) -> list[int]:
        """Return what becomes readable when there is something to heed, for `select`."""
        return [self._read] if self._keys < 0 else [self._read, self._keys]

    def heed(self) -> None:
        """Take note of what was done since the last call."""
        with suppress(BlockingIOError):
            os.read(self._read, 4096)
        if self._keys >= 0 and select.select([self._keys], [], [], 0)[0]:
            try:
                pressed = os.read(self._keys, 4096)
            except OSError:
                pressed = b""
            self.ended = self.ended or any(key in ENDING_KEYS for key in pressed)
            if not pressed:
                # The terminal went away; a SIGHUP says so as well.
                self._keys = -1

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        self.suspended = self.suspended or number == signal.SIGTSTP
        with suppress(BlockingIOError):
            os.write(self._write, b".")
