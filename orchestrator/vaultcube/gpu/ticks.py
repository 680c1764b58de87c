"""When it is time: even times without drift. Standard library only: the recorder runs on this file."""


class Ticks:
    """Even times: `start`, `start + period`, ... in ns, without drift. What is too late for its time is left out."""

    def __init__(self, start: int, period: int) -> None:
        self._start = start
        self._period = period
        self._next = 0

    @property
    def next_ns(self) -> int:
        """When the next one is due."""
        return self._start + self._next * self._period

    def due(self, now: int) -> tuple[bool, int]:
        """Say whether it is time, and how many times have gone by unused before."""
        last, late = divmod(now - self._start, self._period)
        if last < self._next:
            return False, 0
        missed = last - self._next
        self._next = last + 1
        if late > self._period // 2:
            # Nearer to the next one: two readings in a bunch say less than one.
            return False, missed + 1
        return True, missed
