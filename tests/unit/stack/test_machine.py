from __future__ import annotations

from typing import Self

import pytest
from tests.unit.replay import Recording
from tests.unit.support import gpu

from vaultcube.errors import EngineUnreachableError
from vaultcube.gpu.readings import GpuInfo, GpuProcess, Link, NvmlError, Problem
from vaultcube.stack import machine
from vaultcube.stack.docker import Docker
from vaultcube.stack.machine import Machine

INFO = GpuInfo(
    uuid=gpu().uuid,
    index=0,
    name=gpu().name,
    pci_bus_id=gpu().pci_bus_id,
    compute_capability="12.0",
    memory_total_bytes=2**35,
)


class Driver:
    """NVML as far as it is asked here; it may fail at the start, or later."""

    driver, cuda, simulated = "575.57.08", "12.9", False
    missing: tuple[tuple[int, Problem], ...] = ()
    opened, closed = 0, 0

    def __init__(self, at_start: NvmlError | None = None) -> None:
        self.at_start = at_start
        self.later: NvmlError | None = None

    def __enter__(self) -> Self:
        if self.at_start:
            raise self.at_start
        self.opened += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.closed += 1

    def gpus(self) -> list[GpuInfo]:
        if self.later:
            raise self.later
        return [INFO]

    def links(self, _gpus: list[GpuInfo]) -> list[Link]:
        return []

    def processes(self, _position: int) -> list[GpuProcess]:
        return [GpuProcess(2**22 + 1, "compute", None)]


def opened(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> Machine:
    monkeypatch.setattr(machine, "Nvml", lambda: driver)
    return Machine()


def test_nvml_is_opened_once_for_all_questions(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    recording.says("ps")
    driver = Driver()
    with opened(monkeypatch, driver) as found:
        for _ in range(2):
            inventory = found.inventory()
            assert [one.uuid for one in inventory.gpus] == [INFO.uuid]
            (holder,) = found.held(Docker(), inventory)[INFO.uuid]
            assert holder.pid == 2**22 + 1
    assert (driver.opened, driver.closed) == (1, 1)


def test_a_machine_without_nvml_has_no_gpus_and_no_holders(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(monkeypatch, Driver(NvmlError("no-library", "Library Not Found"))) as found:
        inventory = found.inventory()
        assert (inventory.gpus, inventory.problem, inventory.reason) == (
            (),
            "no-library",
            "NVML: Library Not Found",
        )
        assert found.held(Docker(), inventory) == {}
    assert recording.calls == []


def test_a_driver_that_goes_away_meanwhile_leaves_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    with opened(monkeypatch, driver) as found:
        assert found.inventory().gpus
        driver.later = NvmlError("mismatch", "Driver/library version mismatch")
        assert found.inventory().problem == "mismatch"


def test_holders_are_not_guessed_when_the_engine_is_silent(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording.says("ps", stderr="Cannot connect to the Docker daemon at unix:///x.", status=1)
    with opened(monkeypatch, Driver()) as found, pytest.raises(EngineUnreachableError):
        found.held(Docker(), found.inventory())


def test_the_engine_is_asked_once_what_it_offers(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    recording.says_json("info", {"ServerVersion": "28.3.3", "DiscoveredDevices": []})
    with opened(monkeypatch, Driver()) as found:
        assert found.engine(Docker()) == found.engine(Docker())
        assert found.engine(Docker()).cdi == frozenset()
    assert len(recording.calls) == 1
