"""The recorder: `python -m vaultcube.gpu.recorder --db FILE`. Reads GPUs at even times and writes docs/telemetry.md's file.

Two threads: one talks to NVML, which may block for ever; the other keeps the time, the file and the signals, and records
that the first does not answer. Standard library and nvidia-ml-py only, little of both: it runs beside what is measured,
and in a container that holds nothing else.

Exit codes: 0 stopped by SIGTERM, SIGINT or the end of its parent; 64 bad parameters; 69 NVML does not answer, or not for
the GPUs that were asked for; 74 a file cannot be written; 75 stopped before there was the file that `--until` names.
"""

import os
import select
import signal
import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from vaultcube.gpu.beat import Beat
from vaultcube.gpu.incidents import Incidents
from vaultcube.gpu.kernellog import KernelLog
from vaultcube.gpu.reader import Answer, Opened, Reader
from vaultcube.gpu.readings import NvmlError, Reading
from vaultcube.gpu.recorderargs import arguments, place, unwritable
from vaultcube.gpu.rundb import Begun, FormatError, Writer
from vaultcube.gpu.ticks import Ticks

DONE, BAD_PARAMETERS, NO_NVML, NO_FILE, STOPPED_EARLY = 0, 64, 69, 74, 75
UNTIL: Final = "until"
# Between two readings the kernel's log, Xids and the parent are looked at this often.
_BEAT_NS: Final = 1_000_000_000
# A quick recorder need not commit every reading to lose at most a second of them.
_COMMIT_NS: Final = 500_000_000
# The slowest answers of a busy driver take a few tenths of a second.
_HANG_NS: Final = 2_000_000_000
# For a last reading nobody waits longer.
_LAST_NS: Final = 500_000_000
# Without persistence mode every GPU is initialised first, which takes seconds each.
_START_S: Final = 60.0
# Wall time that wanders off by less is NTP's slewing, and is not written down.
_SLEW_MS: Final = 50
_JUMP_MS: Final = 1000
_STOPS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Recorder:
    """Keeps the time and the file.

    Args:
        path: the file.
        period_s: between two readings.
        wanted: UUIDs; empty means all GPUs.
        parent: the process whose end is ours, or None.
        processes: whether to record who computes; in a container that sees no other process it means nothing.
        beat: the file that shows that this lives, or None.
        until: the file whose being there ends it, or None; looked at once a second.

    Attributes:
        ended_by: what ended it: a signal's name, `parent`, `until`; None while it goes on.
    """

    def __init__(
        self,
        path: str,
        period_s: float,
        wanted: Sequence[str],
        parent: int | None,
        *,
        processes: bool = False,
        beat: str | None = None,
        until: str | None = None,
    ) -> None:
        self._path = path
        self._beat_path = beat
        self._beats: Beat | None = None
        self._until = until
        self._period = round(period_s * 1e9)
        self._parent = parent
        self.ended_by: str | None = None
        self._pipe, wake = os.pipe()
        for end in (self._pipe, wake):
            os.set_blocking(end, False)
        for number in _STOPS:
            signal.signal(number, self._stop)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._reader = Reader(wanted, lambda: os.write(wake, b"\0"), processes=processes)
        # When the question that is not answered yet was asked, and when it was time for the next.
        self._asked: int | None = None
        self._owed: int | None = None
        self._hanging = False
        self._missed = 0
        self._why = "late"
        self._last_question = time.monotonic_ns()
        self._last_beat = 0
        self._last_commit = 0
        self._said = False

    def run(self) -> None:
        """Record until a signal comes, the parent ends, or there is the file to wait for.

        Raises:
            NvmlError: NVML does not start, or not for these GPUs.
            sqlite3.Error: the file cannot be written any more. OSError: that of the beat cannot.
        """
        if self._over():
            # The driver need not even be there.
            self.ended_by = UNTIL
            return
        self._log = KernelLog()
        self._reader.start()
        opened = self._opened()
        if opened is not None:
            self._open(opened)
            self._loop()
            self._last_reading()
            self._writer.close(_ms(time.monotonic_ns()), self.ended_by or "")
            if self._beats is not None:
                self._beats.end(self.ended_by or "")
        self._reader.end()
        self._reader.join(1)

    @property
    def stuck(self) -> bool:
        """Say whether NVML still holds the other thread."""
        return self._reader.is_alive()

    def _stop(self, number: int, _frame: object) -> None:
        self.ended_by = signal.Signals(number).name

    def _opened(self) -> Opened | None:
        """Wait for NVML to start; None when we are stopped before."""
        until = time.monotonic_ns() + int(_START_S * 1e9)
        while self.ended_by is None:
            if not self._reader.answers.empty():
                answer = self._reader.answers.get()
                if isinstance(answer, Opened):
                    return answer
                if isinstance(answer, Exception):
                    raise answer
            now = time.monotonic_ns()
            if now > until:
                raise NvmlError("hang", f"does not start within {_START_S:.0f} s")
            self._wait(min(until, now + _BEAT_NS))
            if self._over():
                self.ended_by = UNTIL
        return None

    def _open(self, opened: Opened) -> None:
        now = time.monotonic_ns()
        self._offset_ms, self._asleep_ms = _clocks()
        begun = Begun(
            mono_ms=_ms(now),
            wall_ms=_ms(now) + self._offset_ms,
            boot_id=_boot_id(),
            period_ms=_ms(self._period),
            driver=opened.driver,
            cuda=opened.cuda,
            simulated=opened.simulated,
            kernel_log=self._log.path,
            xid_events=opened.xid_events,
        )
        self._writer = writer = Writer(self._path, begun, opened.gpus)
        if self._beat_path is not None:
            self._beats = Beat(self._beat_path, begun.boot_id, opened.gpus)
        self._written_ms = self._offset_ms
        root = os.environ.get("VAULTCUBE_HOST_ROOT") or "/"
        self._incidents = Incidents(writer, opened.gpus, opened.others, root)
        before = writer.before
        if before is not None:
            away = {"seconds": before.away_ms / 1000}
            if before.boot_id != begun.boot_id:
                writer.event(begun.mono_ms, "restart", detail=away | {"boot_id": begun.boot_id})
            elif before.away_ms > begun.period_ms:
                missed = before.away_ms // begun.period_ms
                writer.event(begun.mono_ms, "gap", detail=away | {"missed": missed, "why": "no recorder"})
        for nvml_index, problem in opened.missing:
            self._incidents.missing(begun.mono_ms, nvml_index, problem)
        if self._log.reason is not None:
            detail = {"problem": "unreadable", "reason": self._log.reason}
            writer.event(begun.mono_ms, "kernel_log", sources="kernel", detail=detail)

    def _loop(self) -> None:
        ticks = Ticks(time.monotonic_ns(), self._period)
        while self.ended_by is None:
            now = time.monotonic_ns()
            due, missed = ticks.due(now)
            self._miss(missed, "late")
            if due or now - self._last_beat >= _BEAT_NS:
                self._beat(now)
                self._ask(now, due=due)
            self._take_answers()
            wake = min(ticks.next_ns, self._last_beat + _BEAT_NS)
            if self._beats is not None:
                self._beats.write(now, hanging=self._hanging)
                wake = min(wake, self._beats.next_ns)
            self._wait(wake)

    def _last_reading(self) -> None:
        """Read once more: what happened since the last reading would be lost, the whole of a run of a second."""
        now = time.monotonic_ns()
        if self._asked is None:
            self._question(now, readings=True)
        while self._asked is not None and time.monotonic_ns() - now < _LAST_NS:
            select.select([self._pipe], [], [], _LAST_NS / 10 / 1e9)
            self._take_answers()

    def _beat(self, now: int) -> None:
        """Look at all that is not NVML, and at how long that has been silent."""
        self._last_beat = now
        self._look_at_clocks(now)
        urgent = self._incidents.kernel(_ms(now), self._log.poll())
        if self._asked is not None and not self._hanging and now - self._asked >= _HANG_NS:
            self._hanging = urgent = True
            self._say_hang(now)
        if urgent:
            self._commit(now)
        if self._over():
            self.ended_by = UNTIL
        if self._parent is not None and os.getppid() != self._parent:
            self.ended_by = "parent"

    def _over(self) -> bool:
        return self._until is not None and Path(self._until).exists()

    def _ask(self, now: int, *, due: bool) -> None:
        if self._asked is None:
            self._question(now, readings=due)
        elif due:
            self._miss(self._owed is not None, "nvml")
            self._owed = now
            if self._hanging and (position := self._reader.reading) is not None:
                self._writer.reading(position, _ms(now), Reading(problem="hang"))
                self._commit(now)

    def _question(self, now: int, *, readings: bool) -> None:
        if readings and self._missed:
            seconds = round((now - self._last_question) / 1e9, 3)
            self._writer.event(_ms(now), "gap", detail={"seconds": seconds, "missed": self._missed, "why": self._why})
            self._missed = 0
        if readings:
            self._last_question = now
        self._asked = now
        self._reader.ask(readings=readings)

    def _miss(self, count: int, why: str) -> None:
        if count:
            self._missed += count
            self._why = why

    def _say_hang(self, now: int) -> None:
        position = self._reader.reading
        if position is None:
            self._writer.event(_ms(now), "problem", sources="nvml", detail={"problem": "hang"})
        else:
            self._incidents.problem(_ms(now), position, "hang")
            self._writer.reading(position, _ms(now), Reading(problem="hang"))

    def _take_answers(self) -> None:
        while not self._reader.answers.empty():
            answer = self._reader.answers.get()
            if isinstance(answer, Exception):
                raise answer
            if isinstance(answer, Answer):
                self._take(answer)

    def _take(self, answer: Answer) -> None:
        self._asked, self._hanging = None, False
        urgent = bool(answer.xids)
        for position, at, reading in answer.readings:
            urgent |= self._incidents.problem(_ms(at), position, reading.problem)
            if self._beats is not None:
                self._beats.take(position, reading)
            if reset := self._writer.reading(position, _ms(at), reading):
                self._incidents.reset(_ms(at), position, reset)
        now = time.monotonic_ns()
        for event in answer.xids:
            self._incidents.xid(_ms(now), event)
        for position, pids in answer.computing.items():
            self._incidents.computing(_ms(now), position, pids)
        if self._owed is not None:
            # NVML was busy when it was time.
            if now - self._owed <= self._period // 2:
                self._question(now, readings=True)
            else:
                self._miss(1, "nvml")
            self._owed = None
        if urgent or now - self._last_commit >= _COMMIT_NS:
            self._commit(now)
        if answer.readings and not self._said:
            self._commit(now)
            self._said = True
            # Whoever started us may not be listening.
            with suppress(OSError, ValueError):
                sys.stdout.write("recording\n")
                sys.stdout.flush()

    def _commit(self, now: int) -> None:
        self._last_commit = now
        self._writer.commit()

    def _look_at_clocks(self, now: int) -> None:
        """Write down that the machine slept, and how wall time moves beside the clock that never jumps."""
        offset, asleep = _clocks()
        moved, slept = offset - self._offset_ms, asleep - self._asleep_ms
        self._offset_ms, self._asleep_ms = offset, asleep
        if slept >= _ms(self._period):
            detail = {"seconds": slept / 1000, "suspended_s": slept / 1000, "missed": slept // _ms(self._period)}
            self._writer.event(_ms(now), "gap", detail=detail | {"why": "suspended"})
        if abs(moved - slept) > _JUMP_MS:
            self._writer.event(_ms(now), "clock_jump", detail={"seconds": (moved - slept) / 1000})
        if abs(offset - self._written_ms) > _SLEW_MS:
            self._writer.clock(_ms(now), _ms(now) + offset)
            self._written_ms = offset

    def _wait(self, until: int) -> None:
        """Wait for a moment, an answer or a signal."""
        left = (until - time.monotonic_ns()) / 1e9
        if self.ended_by is None and left > 0 and select.select([self._pipe], [], [], left)[0]:
            os.read(self._pipe, 4096)


def _ms(nanoseconds: int) -> int:
    return nanoseconds // 1_000_000


def _clocks() -> tuple[int, int]:
    """Return how far wall time is from CLOCK_MONOTONIC, and for how long the machine has been suspended, in ms."""
    tries = []
    for _ in range(3):
        begin = time.monotonic_ns()
        wall, boot = time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        tries.append((time.monotonic_ns() - begin, wall - begin, boot - begin))
    # Clocks are read one after the other; the quickest of three was not interrupted in between.
    _, offset, asleep = min(tries)
    return _ms(offset), _ms(asleep)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the recorder and return its exit code."""
    args = arguments(argv)
    recorder = None
    try:
        path = place(args.db, stamp=args.stamp)
        recorder = Recorder(
            path,
            args.period,
            args.gpu,
            args.with_parent,
            processes=args.processes,
            beat=args.beat,
            until=args.until,
        )
        recorder.run()
        # Who is to record until something is there has not done it when it is stopped: an engine then starts it again.
        code = DONE if args.until is None or recorder.ended_by == UNTIL else STOPPED_EARLY
    except NvmlError as error:
        sys.stderr.write(f"recorder: {error}\n")
        code = NO_NVML
    except (sqlite3.Error, FormatError, OSError) as error:
        sys.stderr.write(f"recorder: {unwritable(args.db, error)}\n")
        code = NO_FILE
    if recorder is not None and recorder.stuck:
        # A thread inside the driver would keep the interpreter from ending.
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
