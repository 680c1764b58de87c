"""An `Nvml` that says what a test tells it to, where a simulated driver would be too slow or too real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import pytest
from tests.unit.gpustates import info, reading

from vaultcube.gpu.readings import GpuInfo, GpuProcess, Link, NvmlError, Problem, Reading, XidEvent


@dataclass
class Driver:
    """A driver and its GPUs; tests change it while it is in use.

    Attributes:
        infos: what is listed.
        readings: by UUID, a full load where there is none.
        processes: by UUID.
        refuses: why it does not start.
        lost: indices of GPUs that are listed and do not answer.
        opened, closed: how often.
    """

    infos: list[GpuInfo] = field(default_factory=lambda: [info(0), info(1)])
    readings: dict[str, Reading] = field(default_factory=dict)
    processes: dict[str, list[GpuProcess]] = field(default_factory=dict)
    events: list[XidEvent] = field(default_factory=list)
    refuses: Problem | None = None
    unlinked: bool = False
    lost: list[tuple[int, Problem]] = field(default_factory=list)
    opened: int = 0
    closed: int = 0

    def breaks(self, problem: Problem) -> None:
        """Let every GPU answer with a problem."""
        self.readings = {one.uuid: Reading(problem=problem) for one in self.infos}

    def install(self, monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
        """Put it in the place of `Nvml` in some modules."""
        for module in modules:
            monkeypatch.setattr(f"{module}.Nvml", lambda: FakeNvml(self))


class FakeNvml:
    """One opening of that driver: it knows the GPUs that were listed when it was asked for them."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.driver, self.cuda, self.simulated = "580.95.05", "13.0", True
        self.missing: list[tuple[int, Problem]] = []
        self._infos: list[GpuInfo] = []

    def __enter__(self) -> Self:
        if self._driver.refuses:
            raise NvmlError(self._driver.refuses, "it refuses")
        self._driver.opened += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._driver.closed += 1

    def gpus(self) -> list[GpuInfo]:
        self._infos, self.missing = list(self._driver.infos), list(self._driver.lost)
        return list(self._infos)

    def why_none(self) -> str:
        return "the driver lists no GPU"

    def read(self, position: int) -> Reading:
        return self._driver.readings.get(self._infos[position].uuid, reading())

    def processes(self, position: int) -> list[GpuProcess]:
        return self._driver.processes.get(self._infos[position].uuid, [])

    def links(self, gpus: Sequence[GpuInfo]) -> list[Link]:
        if self._driver.unlinked:
            raise NvmlError("lost", "a GPU went away")
        return [Link(gpus[0].uuid, gpus[-1].uuid, "SYS", 0, "GNS")] if len(gpus) > 1 else []

    def watch_xids(self) -> bool:
        return True

    def xids(self) -> list[XidEvent]:
        found, self._driver.events = self._driver.events, []
        return found
