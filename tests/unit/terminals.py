"""A terminal for a program to run in: a pty with a size, keys, and what the program draws on it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
SHOW_CURSOR = "\x1b[?25h"
HOME = "\x1b[H"
STYLE = re.compile(r"\x1b\[[0-9;]*m")
PATIENCE_S = 60.0


class Terminal:
    """A pty with a program in it, as a context manager.

    Attributes:
        raw: everything that was drawn so far.
        modes: of the terminal, before the program began.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], *, columns: int = 80, rows: int = 24) -> None:
        self._argv, self._env, self._size = list(argv), dict(env), (columns, rows)
        self.raw = ""

    def __enter__(self) -> Self:
        self._fd, slave = pty.openpty()
        self._slave = slave
        self.resize(*self._size)
        self.modes = termios.tcgetattr(slave)
        # Ctrl-C and Ctrl-Z are for the session whose terminal it is.
        argv = ["setsid", "--ctty", *self._argv]
        self.process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, env=self._env)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)
        os.close(self._slave)
        os.close(self._fd)

    def resize(self, columns: int, rows: int) -> None:
        """Give it another size; who is in it gets a SIGWINCH."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self._fd, keys.encode())

    @property
    def picture(self) -> list[str]:
        """The lines of the last picture, without colours and spaces at the end."""
        last = STYLE.sub("", self.raw.rpartition(HOME)[2].partition(LEAVE)[0])
        return [line.rstrip() for line in last.replace("\r\n", "\n").rstrip("\n").split("\n")]

    def fits(self, columns: int, rows: int) -> bool:
        """Say whether the last picture is within a size."""
        return len(self.picture) <= rows and max(map(len, self.picture)) <= columns

    def until(self, seen: Callable[[], Any]) -> None:
        """Read on until something is seen.

        Raises:
            AssertionError: the program does not show it.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not seen():
            if time.monotonic() > deadline or not self.read():
                raise AssertionError("not seen; the last picture:\n" + "\n".join(self.picture))

    def shows(self, *words: str) -> None:
        """Read on until one picture has all these words."""
        self.until(lambda: all(word in "\n".join(self.picture) for word in words))

    def stopped(self) -> bool:
        """Say whether the program is suspended."""
        with open(f"/proc/{self.process.pid}/stat") as stat:  # noqa: PTH123 - one word of it
            return stat.read().rpartition(")")[2].split()[0] == "T"

    def end(self) -> int:
        """Read on until the program has ended, and return its exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            self.read()
            assert time.monotonic() < deadline, "it does not end"
        while self.read():
            continue
        return self.process.returncode

    def clean(self) -> bool:
        """Say whether the terminal was left as it was found: screen, cursor and modes."""
        entered, left = self.raw.count(ENTER), self.raw.count(LEAVE)
        cursor = self.raw.rpartition("\x1b[?25")[2][:1]
        return entered == left and cursor in {"", "h"} and termios.tcgetattr(self._slave) == self.modes

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program's group, as the shell does."""
        os.killpg(self.process.pid, number)

    def read(self) -> bool:
        """Read on a little; say whether there can be more."""
        if not select.select([self._fd], [], [], 0.2)[0]:
            return self.process.poll() is None
        try:
            self.raw += os.read(self._fd, 65536).decode(errors="replace")
        except OSError:
            return False
        return True
