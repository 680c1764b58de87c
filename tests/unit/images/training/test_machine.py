import ctypes
from pathlib import Path

import pytest

from common import memory
from common.outcome import Problem
from training import machine


class Driver:
    def __init__(self, init: int, count: int = 0) -> None:
        self._init, self._count = init, count

    def cuInit(self, _flags: int) -> int:  # noqa: N802 - the driver's name
        return self._init

    def cuDeviceGetCount(self, where: object) -> int:  # noqa: N802 - the driver's name
        where._obj.value = self._count  # type: ignore[attr-defined]
        return 0

    def cuDeviceGet(self, where: object, index: object) -> int:  # noqa: N802 - the driver's name
        where._obj.value = index.value  # type: ignore[attr-defined]
        return 0

    def cuDeviceGetUuid(self, where: object, device: object) -> int:  # noqa: N802 - the driver's name
        where._obj[:] = [device.value] * 16  # type: ignore[attr-defined]
        return 0

    def cuDeviceTotalMem_v2(self, where: object, _device: object) -> int:  # noqa: N802 - the driver's name
        where._obj.value = 32 << 30  # type: ignore[attr-defined]
        return 0


def with_driver(monkeypatch: pytest.MonkeyPatch, driver: Driver | None) -> None:
    def load(_name: str) -> Driver:
        if driver is None:
            raise OSError("libcuda.so.1: cannot open shared object file")
        return driver

    monkeypatch.setattr(ctypes, "CDLL", load)


@pytest.mark.parametrize(("driver", "count"), [(None, 0), (Driver(100), 0), (Driver(0, 0), 0), (Driver(0, 4), 4)])
def test_gpus_are_counted(monkeypatch: pytest.MonkeyPatch, driver: Driver | None, count: int) -> None:
    with_driver(monkeypatch, driver)
    assert machine.gpu_count() == count


def test_a_broken_driver_is_no_machine_without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with_driver(monkeypatch, Driver(803))
    with pytest.raises(Problem, match="error 803") as caught:
        machine.gpu_count()
    assert (caught.value.code, caught.value.exit_code) == ("cuda-unavailable", 69)


def test_a_card_is_what_the_driver_says(monkeypatch: pytest.MonkeyPatch) -> None:
    with_driver(monkeypatch, Driver(0, 4))
    assert machine.card(2) == machine.Card("GPU-02020202-0202-0202-0202-020202020202", 32 << 30)


@pytest.mark.parametrize("driver", [None, Driver(803)])
def test_without_a_driver_there_is_no_card(monkeypatch: pytest.MonkeyPatch, driver: Driver | None) -> None:
    with_driver(monkeypatch, driver)
    with pytest.raises(Problem) as caught:
        machine.card(0)
    assert (caught.value.code, caught.value.exit_code) == ("cuda-unavailable", 69)


@pytest.mark.parametrize(
    ("text", "kills"),
    [
        ("low 0\nhigh 0\nmax 7\noom 2\noom_kill 3\noom_group_kill 0\n", 3),
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", 1),
        ("", 0),
    ],
)
def test_oom_kills_of_both_cgroup_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, kills: int
) -> None:
    (tmp_path / "counters").write_text(text)
    monkeypatch.setattr(memory, "_OOM_COUNTERS", (str(tmp_path / "none"), str(tmp_path / "counters")))
    assert memory.oom_kills() == kills


def test_without_counters_there_were_no_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_OOM_COUNTERS", (str(tmp_path / "none"),))
    assert memory.oom_kills() == 0


def test_cpu_ranks_are_at_most_two() -> None:
    assert 1 <= machine.cpu_ranks() <= 2
    assert machine.cpu_ranks() <= machine.cores()
