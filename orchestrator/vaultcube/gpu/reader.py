"""The thread that talks to NVML for the recorder. NVML may block for ever; who asks here need not wait for it.

Standard library and nvidia-ml-py only: the recorder container runs on this file.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from vaultcube.gpu.nvml import Nvml
from vaultcube.gpu.readings import GpuInfo, NvmlError, Problem, Reading, XidEvent

# Who computes is asked less often than a quick recorder reads.
_LOOK_S = 0.9


class Opened(NamedTuple):
    """What NVML says of itself: the GPUs to record by their places in `nvml.gpus()`, and those that are left out."""

    places: tuple[int, ...]
    gpus: tuple[GpuInfo, ...]
    others: tuple[GpuInfo, ...]
    missing: tuple[tuple[int, Problem], ...]
    driver: str
    cuda: str | None
    simulated: bool
    xid_events: bool


class Answer(NamedTuple):
    """One round: (position, CLOCK_MONOTONIC in ns, reading) of each GPU, and the Xids since the last.

    `computing` are the processes (pids) that compute on each GPU, by position; empty when nobody looked.
    """

    readings: list[tuple[int, int, Reading]]
    xids: list[XidEvent]
    computing: dict[int, frozenset[int]]


class Reader(threading.Thread):
    """Talks to NVML: first it opens it, then it answers what is asked.

    Args:
        wanted: UUIDs; empty means all GPUs.
        wake: called when there is an answer.
        processes: whether to look at who computes, about once a second.

    Attributes:
        answers: what it found, or what went wrong.
        reading: the position of the GPU that it asks NVML about at this moment, or None.
    """

    def __init__(self, wanted: Sequence[str], wake: Callable[[], object], *, processes: bool = False) -> None:
        super().__init__(daemon=True, name="nvml")
        self.answers: queue.SimpleQueue[Opened | Answer | Exception] = queue.SimpleQueue()
        self.reading: int | None = None
        self._questions: queue.SimpleQueue[bool | None] = queue.SimpleQueue()
        self._wanted = wanted
        self._wake = wake
        self._processes = processes
        self._looked = 0.0

    def ask(self, *, readings: bool) -> None:
        """Ask for Xids, and for readings of all GPUs if wanted."""
        self._questions.put(readings)

    def end(self) -> None:
        """Let it close NVML and end, if NVML lets it."""
        self._questions.put(None)

    def run(self) -> None:
        """Do it."""
        try:
            with Nvml() as nvml:
                opened = self._open(nvml)
                self._answer(opened)
                while (readings := self._questions.get()) is not None:
                    self._answer(self._round(nvml, opened.places if readings else ()))
        except Exception as error:  # noqa: BLE001 - the other thread raises it again
            self._answer(error)

    def _open(self, nvml: Nvml) -> Opened:
        found = nvml.gpus()
        unknown = [uuid for uuid in self._wanted if uuid not in {gpu.uuid for gpu in found}]
        if unknown or not found:
            dead = f", and {len(nvml.missing)} of its GPUs do not answer" if nvml.missing else ""
            raise NvmlError("unknown", f"the driver lists no {unknown[0] if unknown else 'GPU'}{dead}")
        places = tuple(place for place, gpu in enumerate(found) if not self._wanted or gpu.uuid in self._wanted)
        return Opened(
            places=places,
            gpus=tuple(found[place] for place in places),
            others=tuple(gpu for place, gpu in enumerate(found) if place not in places),
            # One that does not answer has no name: it is one of those asked for only where all are.
            missing=() if self._wanted else tuple(nvml.missing),
            driver=nvml.driver,
            cuda=nvml.cuda,
            simulated=nvml.simulated,
            xid_events=nvml.watch_xids(),
        )

    def _round(self, nvml: Nvml, places: Sequence[int]) -> Answer:
        found = []
        for position, place in enumerate(places):
            self.reading = position
            reading = nvml.read(place)
            found.append((position, time.monotonic_ns(), reading))
        computing = self._computing(nvml, places)
        self.reading = None
        return Answer(found, nvml.xids(), computing)

    def _computing(self, nvml: Nvml, places: Sequence[int]) -> dict[int, frozenset[int]]:
        now = time.monotonic()
        if not self._processes or now - self._looked < _LOOK_S:
            return {}
        self._looked = now
        return {
            position: frozenset(one.pid for one in nvml.processes(place) if one.kind == "compute")
            for position, place in enumerate(places)
        }

    def _answer(self, answer: Opened | Answer | Exception) -> None:
        self.answers.put(answer)
        self._wake()
