"""Starting other programs: with a time limit, stoppable, and never left behind. The only file with subprocess."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, NamedTuple, cast

from vaultcube.stack.signals import Stop, put_off

POLL_S = 0.1
GRACE_S = 5.0


class CommandTimeoutError(Exception):
    """A command ran past its limit and was ended."""

    def __init__(self, argv: Sequence[str], seconds: float) -> None:
        super().__init__(f"{' '.join(argv[:3])} did not answer within {seconds:g} s")


class Finished(NamedTuple):
    """A command that ended: its argv, exit status, and what it wrote."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """Say whether it ended with 0."""
        return self.returncode == 0


class Child:
    """A running program in a session of its own, so that a Ctrl-C in the terminal reaches only us.

    Args:
        argv: the program and its arguments.
        env: its whole environment, or ours.
        merged: stdout and stderr come as one stream, for `lines`.
        inherit: open files that it gets as well.

    Raises:
        FileNotFoundError, PermissionError: there is no such program to run.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        merged: bool = False,
        inherit: Sequence[int] = (),
    ) -> None:
        self.argv = tuple(argv)
        # What a signal raises in the middle of a start would leave the program without an owner.
        with put_off() as came:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merged else subprocess.PIPE,
                env=None if env is None else dict(env),
                start_new_session=True,
                pass_fds=inherit,
            )
        try:
            for number in came:
                signal.raise_signal(number)
        except BaseException:
            self.end()
            raise

    @property
    def running(self) -> bool:
        """Say whether it is still going."""
        return self._process.poll() is None

    def lines(self, stop: Stop, *, until_exit: bool = False) -> Iterator[str]:
        """Return its lines as they come, until it closes its output.

        Args:
            stop: ends it.
            until_exit: also until it ended, while a program that it left running holds its output open.

        Raises:
            InterruptedRunError: `stop` was asked for, and it was ended.
        """
        stream = cast("IO[bytes]", self._process.stdout)
        rest = b""
        while True:
            if stop.requested:
                self.end()
                stop.check()
            ended = until_exit and not self.running
            if not select.select([stream], [], [], POLL_S)[0]:
                if ended:
                    return
                continue
            chunk = os.read(stream.fileno(), 65536)
            *lines, rest = (rest + chunk).split(b"\n")
            yield from map(_text, lines)
            if not chunk:
                if rest:
                    yield _text(rest)
                return

    def wait(self, timeout: float) -> int:
        """Wait for its end alone, whoever holds its output open, and return its exit status.

        Raises:
            CommandTimeoutError: it took longer than `timeout` seconds. It goes on.
        """
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise CommandTimeoutError(self.argv, timeout) from error

    def result(self, *, timeout: float | None = None, stop: Stop | None = None) -> Finished:
        """Wait for its end and return what it wrote.

        Raises:
            CommandTimeoutError: it took longer than `timeout` seconds and was ended.
            InterruptedRunError: `stop` was asked for, and it was ended.
        """
        try:
            out, err = self._communicate(timeout, stop)
        except BaseException:
            self.end()
            raise
        return Finished(self.argv, self._process.returncode, _text(out), _text(err))

    def _communicate(self, timeout: float | None, stop: Stop | None) -> tuple[bytes, bytes]:
        waited = 0.0
        while timeout is None or waited < timeout:
            try:
                return self._process.communicate(timeout=POLL_S)
            except subprocess.TimeoutExpired:
                waited += POLL_S
            if stop is not None:
                stop.check()
        raise CommandTimeoutError(self.argv, timeout)

    def stop(self, grace_s: float = GRACE_S) -> Finished | None:
        """Ask it to terminate, and return what it wrote; None when it did not within the grace and was killed."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            return self.result(timeout=grace_s)
        except CommandTimeoutError:
            return None

    def end(self, grace_s: float = GRACE_S) -> None:
        """Ask it to terminate, then kill it and all its children."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
            # Also when it went by itself: its children may not have.
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


def run(
    argv: Sequence[str], *, timeout: float, stop: Stop | None = None, env: Mapping[str, str] | None = None
) -> Finished:
    """Run a command to its end.

    Raises:
        FileNotFoundError: there is no such program.
        CommandTimeoutError: it took longer than `timeout` seconds.
        InterruptedRunError: `stop` was asked for.
    """
    return Child(argv, env=env).result(timeout=timeout, stop=stop)


def replace(argv: Sequence[str], env: Mapping[str, str]) -> None:
    """Become another program, for output that is only passed on (`logs -f`).

    Raises:
        FileNotFoundError: there is no such program.
    """
    os.execvpe(argv[0], list(argv), dict(env))  # noqa: S606 - an argv, no shell


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", errors="replace")
