"""Looking at the GPUs again and again: what `vaultcube monitor` shows.

A GPU that stops answering, a driver that goes and comes back, and an engine that hangs are states to show, never
reasons to end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from vaultcube.gpu.leases import GpuContainer
from vaultcube.gpu.nvml import Nvml
from vaultcube.gpu.readings import GpuInfo, NvmlError, Problem, Reading
from vaultcube.stack.asking import Containers
from vaultcube.stack.leases import processes_of
from vaultcube.stack.snapshot import PATIENCE_S, GpuState, Snapshot, put
from vaultcube.stack.system import System, read_system

# More samples than the widest terminal shows.
HISTORY = 512
XIDS = 5
# The engine is asked this long after its last answer, and given up after so long, in seconds.
ASK_S = 3.0
GIVE_UP_S = 10.0
# NVML is opened anew this long after it did not answer, and this long after it was opened while a GPU is lost.
RETRY_S = 3.0
RETRY_LOST_S = 30.0
# What a driver that stopped answering in the middle is said to have. The other problems can be one GPU's.
PROBLEMS: dict[Problem, str] = {
    "no-driver": "the driver was unloaded",
    "mismatch": "the driver was updated under the running one",
}


class History(NamedTuple):
    """What a GPU's sensors said, oldest first; None where they said nothing."""

    utilisation: Sequence[int | None] = ()
    power_mw: Sequence[int | None] = ()
    temperature_c: Sequence[int | None] = ()


class SeenXid(NamedTuple):
    """An Xid that NVML reported: on which GPU (by index, None when NVML does not say), and when that was seen."""

    time: datetime
    gpu: int | None
    code: int


class Frame(NamedTuple):
    """What is seen at one moment, and what is remembered.

    Attributes:
        time: local.
        seen: the GPUs. Those that vanished are among them, as lost.
        system: the machine.
        histories: by UUID.
        lost: since when a GPU does not answer, by UUID.
        xids: the last ones, oldest first.
        down_since: since when NVML does not answer at all, or None.
    """

    time: datetime
    seen: Snapshot
    system: System
    histories: Mapping[str, History] = {}
    lost: Mapping[str, datetime] = {}
    xids: tuple[SeenXid, ...] = ()
    down_since: datetime | None = None


def unanswered(reason: str, time: datetime) -> Frame:
    """Return what there is to see when the first look does not end: a driver that hangs."""
    nothing = System(None, None, None, None, None, None, "", None, None)
    return Frame(time, Snapshot(problem="hang", reason=reason), nothing)


class Watch:
    """What looks. For one thread.

    Args:
        directory: where runs are kept, for its disk.
        clock: seconds that only grow.
        today: the local time.
    """

    def __init__(
        self,
        directory: Path,
        *,
        clock: Callable[[], float] = monotonic,
        today: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        self._directory = directory
        self._clock, self._today = clock, today
        self._nvml: Nvml | None = None
        self._opened = float("-inf")
        self._closed = float("-inf")
        self._down = Snapshot()
        self._simulated = False
        self._down_since: datetime | None = None
        self._infos: list[GpuInfo] = []
        self._known: dict[str, GpuInfo] = {}
        self._histories: dict[str, tuple[deque[int | None], ...]] = {}
        self._lost: dict[str, datetime] = {}
        self._xids: deque[SeenXid] = deque(maxlen=XIDS)
        self._asked: Containers | None = None
        self._asked_at = float("-inf")
        self._answered_at = float("-inf")
        self._containers: tuple[Sequence[GpuContainer], str | None] = ((), "the engine has not answered yet")

    def look(self, patience_s: float = 0.0) -> Frame:
        """Return what is seen now.

        Args:
            patience_s: how long to wait at most for an answer of the engine that is under way, in seconds.
        """
        now, time = self._clock(), self._today()
        self._ask_engine(now)
        seen = self._see(now, time, patience_s)
        return Frame(
            time=time,
            seen=seen,
            system=read_system(self._directory),
            histories={uuid: History(*map(tuple, kept)) for uuid, kept in self._histories.items()},
            lost=dict(self._lost),
            xids=tuple(self._xids),
            down_since=self._down_since,
        )

    def close(self) -> None:
        """Let go of NVML and of the engine."""
        if self._asked is not None:
            self._asked.cancel()
        self._shut(self._clock())

    # --- NVML ---------------------------------------------------------------------------------------------------

    def _see(self, now: float, time: datetime, patience_s: float) -> Snapshot:
        try:
            nvml = self._open(now)
            if nvml is None:
                return self._down
            readings = [nvml.read(position) for position in range(len(self._infos))]
            check(readings)
            processes = processes_of(nvml, self._infos)
        except NvmlError as error:
            self._shut(now)
            self._down_since = self._down_since or time
            self._down = Snapshot(simulated=self._simulated, problem=error.problem, reason=str(error))
            return self._down
        self._down_since = None
        indices = {uuid: info.index for uuid, info in self._known.items()}
        self._xids.extend(SeenXid(time, indices.get(xid.uuid or ""), xid.code) for xid in nvml.xids())
        containers, reason = self._engine_said(now, patience_s)
        seen = put(nvml, self._infos, readings, processes, containers, reason)
        seen = self._with_vanished(seen)
        self._remember(seen, time)
        self._reopen(seen, now)
        return seen

    def _open(self, now: float) -> Nvml | None:
        """Return NVML, opened if it was not; None while it is not yet time to try again.

        Raises:
            NvmlError: it does not answer.
        """
        if self._nvml is None:
            if now - self._closed < RETRY_S:
                return None
            nvml = Nvml()
            try:
                nvml.__enter__()
            finally:
                self._simulated = nvml.simulated
            self._nvml, self._opened = nvml, now
            self._infos = nvml.gpus()
            self._known |= {info.uuid: info for info in self._infos}
            nvml.watch_xids()
        return self._nvml

    def _shut(self, now: float) -> None:
        self._closed = now
        if self._nvml is not None:
            self._nvml.__exit__()
            self._nvml = None

    def _reopen(self, seen: Snapshot, now: float) -> None:
        """Let NVML be opened anew next time, when that may show a GPU that does not answer now."""
        lost = bool(seen.missing) or any(state.reading.problem for state in seen.gpus)
        wait = RETRY_LOST_S if lost else None if seen.gpus else RETRY_S
        if wait is not None and now - self._opened >= wait:
            self._shut(float("-inf"))

    def _with_vanished(self, seen: Snapshot) -> Snapshot:
        """Add the GPUs that were there once and are not listed any more; what is missing now may be one of them."""
        here = {state.info.uuid for state in seen.gpus}
        gone = [info for uuid, info in self._known.items() if uuid not in here]
        if not gone:
            return seen
        states = [*seen.gpus, *(GpuState(info, Reading(problem="lost")) for info in gone)]
        indices = {info.index for info in gone}
        missing = tuple(one for one in seen.missing if one[0] not in indices)
        return seen._replace(gpus=tuple(sorted(states, key=lambda state: state.info.index)), missing=missing)

    def _remember(self, seen: Snapshot, time: datetime) -> None:
        for info, reading, *_ in seen.gpus:
            kept = self._histories.setdefault(info.uuid, tuple(deque[int | None](maxlen=HISTORY) for _ in range(3)))
            values = (reading.utilisation_percent, reading.power_mw, reading.temperature_c)
            for values_before, value in zip(kept, values, strict=True):
                values_before.append(value)
            if reading.problem is None:
                self._lost.pop(info.uuid, None)
            else:
                self._lost.setdefault(info.uuid, time)

    # --- the engine ---------------------------------------------------------------------------------------------

    def _ask_engine(self, now: float) -> None:
        if self._asked is None and now - self._answered_at >= ASK_S:
            self._asked, self._asked_at = Containers(), now

    def _engine_said(self, now: float, patience_s: float) -> tuple[Sequence[GpuContainer], str | None]:
        """Return the engine's last answer; one that is under way is waited for no longer than `patience_s`."""
        asked = self._asked
        if asked is None:
            return self._containers
        if asked.wait(patience_s):
            self._containers, self._answered_at, self._asked = asked.result(0), now, None
        elif now - self._asked_at >= GIVE_UP_S:
            asked.cancel()
            self._containers = ((), f"the engine did not answer within {GIVE_UP_S:g} s")
            self._answered_at, self._asked = now, None
        return self._containers


def look_once(directory: Path) -> Frame:
    """Return one look, which waits for the engine no longer than `PATIENCE_S`."""
    watch = Watch(directory)
    try:
        return watch.look(PATIENCE_S)
    finally:
        watch.close()


def check(readings: Sequence[Reading]) -> None:
    """Raise when it is not one GPU but the driver that does not answer.

    Raises:
        NvmlError: so it is.
    """
    for reading in readings:
        if reading.problem is not None and reading.problem in PROBLEMS:
            raise NvmlError(reading.problem, PROBLEMS[reading.problem])
