"""One session of a soak: phase after phase, every result checked, until enough time is covered. Imports no framework."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from common.outcome import say
from stress import fault, progress
from stress.digest import hexadecimal

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.events import EventWriter
    from common.watchdog import Watchdog
    from stress.params import Job

BATCH_S = 0.2
"""About how much load is given to the device at once: so long it may take to stop."""
REPORT_S = 5.0
TELL_S = 10.0
REST_S = 0.1
"""How often a load that waits looks whether it may go on."""
MOST_TOLD = 8
"""Wrong results told one by one between two reports; the rest is counted."""


@dataclass(frozen=True)
class Wrong:
    """What is wrong in a result: how many elements, and of the first where it is and both its bits."""

    elements: int
    first: list[int]
    expected: str
    found: str


class Load(Protocol):
    """The load of one phase.

    Attributes:
        key: what makes digests comparable: phase, size and seed.
        unit: of `work`: "flop" or "bytes".
        work: what one iteration does.
        capacity: most iterations at once.
    """

    key: str
    unit: str
    work: int
    capacity: int

    def settle(self) -> Wrong | None:
        """Make the result that all others are held against; return what was wrong with a first one that was replaced."""

    def run(self, first: int, count: int) -> list[int]:
        """Do `count` iterations, the first of which is number `first`; return the positions of wrong results."""

    def examine(self, position: int) -> Wrong:
        """Return what is wrong at a position of the last run."""

    def digest(self, position: int) -> int:
        """Return the digest of the result at a position of the last run."""


class Engine(Protocol):
    """What makes the loads on a device."""

    def reference(self, phase: str) -> tuple[int, int]:
        """Compare a small case with the CPU; return how many elements it has, and how many are wrong."""

    def load(self, phase: str) -> Load:
        """Return the load of a phase. The one before is given back by then."""


@dataclass
class Interval:
    """What has been done and checked since the last report."""

    start: float
    iterations: int = 0
    mismatches: int = 0
    told: int = 0
    digest: int | None = None


class Session:
    """A session from its first reference to its end.

    Attributes:
        covered_s: seconds of checked load, those of earlier sessions included.
    """

    def __init__(
        self,
        job: Job,
        events: EventWriter,
        engine: Engine,
        watchdog: Watchdog,
        stopped: Callable[[], bool],
        *,
        held: Callable[[], bool] = lambda: False,
        rest: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; `stopped` says whether to come to an end, which takes one batch, `held` whether to wait meanwhile."""
        self.covered_s = job.resumed_s
        self._params = job.params
        self._events = events
        self._engine = engine
        self._watchdog = watchdog
        self._stopped = stopped
        self._held = held
        self._rest = rest
        self._clock = clock
        self._fault = fault.parse(job.fault)
        self._iterations = dict.fromkeys(job.params.phases, 0)
        self._mismatches = 0
        self._told_at = clock()

    def run(self) -> None:
        """Go on until enough is covered, or it is stopped.

        Raises:
            EventError: an event could not be written. Whatever the device raises.
        """
        phases = self._params.phases
        for phase in phases:
            self._wait()
            if self._stopped():
                return
            with self._watchdog.doing(f"comparing {phase} with the CPU", self._params.startup_limit_s):
                elements, mismatches = self._engine.reference(phase)
            self._mismatches += mismatches
            self._events.write("reference", phase=phase, elements=elements, mismatches=mismatches)
        # A machine that restarts every hour must not spend all of them in the first phase.
        turn = int(self.covered_s // self._params.turn_s)
        while not self._over():
            self._turn(phases[turn % len(phases)])
            turn += 1
            self._wait()

    def _wait(self) -> None:
        """Give the device nothing to do for as long as it is held; what is in its memory stays there."""
        with self._watchdog.doing("waiting for the recorder"):
            while self._held() and not self._stopped():
                self._watchdog.beat()
                self._rest(REST_S)

    def _over(self) -> bool:
        return self._stopped() or self.covered_s >= self._params.seconds

    def _turn(self, phase: str) -> None:
        """Load the device with one phase until the next one's turn."""
        with self._watchdog.doing(f"preparing {phase}", self._params.startup_limit_s):
            load = self._engine.load(phase)
            wrong = load.settle()
        interval = Interval(self._clock())
        end = interval.start + self._params.turn_s
        if wrong:
            self._tell(phase, self._iterations[phase], wrong, interval)
        batch, before = 1, interval.start
        with self._watchdog.doing(f"loading with {phase}"):
            while True:
                self._batch(phase, load, batch, interval)
                now = self._clock()
                self._watchdog.beat()
                held = self._held()
                over = self._stopped() or now >= end or self.covered_s + now - interval.start >= self._params.seconds
                if over or held or now - interval.start >= REPORT_S:
                    self._report(phase, load, batch - 1, interval, now)
                    interval = Interval(now)
                if over:
                    return
                if held:
                    self._wait()
                    if self._stopped():
                        return
                    again = self._clock()
                    end += again - now
                    before, interval = again, Interval(again)
                    continue
                each_s = max(now - before, 1e-9) / batch
                # Doubled at most: the first batch may have been quick by chance.
                batch, before = max(1, min(int(BATCH_S / each_s), 2 * batch, load.capacity)), now

    def _batch(self, phase: str, load: Load, count: int, interval: Interval) -> None:
        first = self._iterations[phase]
        if self._fault:
            self._break(phase, range(first, first + count))
        for position in load.run(first, count):
            self._tell(phase, first + position, load.examine(position), interval)
            # What other cards are compared with is the result that was wrong.
            interval.digest = load.digest(position)
        self._iterations[phase] = first + count
        interval.iterations += count

    def _break(self, phase: str, iterations: range) -> None:
        """Do what a test has asked for, if it is due."""
        for iteration in iterations if self._fault else ():
            if self._fault and self._fault.hits("fail", phase, iteration):
                raise RuntimeError("CUDA error: injected by a test")
            while self._fault and self._fault.hits("hang", phase, iteration):
                time.sleep(1)

    def _tell(self, phase: str, iteration: int, wrong: Wrong, interval: Interval) -> None:
        interval.mismatches += wrong.elements
        self._mismatches += wrong.elements
        # A card that is always wrong would fill the disk.
        if interval.told < MOST_TOLD:
            interval.told += 1
            self._events.write(
                "mismatch",
                phase=phase,
                iteration=iteration,
                elements=wrong.elements,
                first=wrong.first,
                expected=wrong.expected,
                found=wrong.found,
            )

    def _report(self, phase: str, load: Load, last: int, interval: Interval, now: float) -> None:
        digest = load.digest(last) if interval.digest is None else interval.digest
        self.covered_s += now - interval.start
        work = load.work * interval.iterations
        self._events.write(
            "checked",
            phase=phase,
            iterations=interval.iterations,
            from_mono=interval.start,
            until_mono=now,
            work=work,
            unit=load.unit,
            mismatches=interval.mismatches,
            key=load.key,
            digest=hexadecimal(digest),
        )
        if now - self._told_at >= TELL_S or self.covered_s >= self._params.seconds or interval.mismatches:
            self._told_at = now
            fast = progress.speed(work, load.unit, now - interval.start)
            say(progress.line(self._params.gpu, phase, fast, self.covered_s, self._params.seconds, self._mismatches))
