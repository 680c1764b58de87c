"""Only what is real: the machine as it is. Simulated boxes come with the rig."""

from __future__ import annotations

import ctypes
import ctypes.util

import pytest

from vaultcube.gpu.inventory import read_inventory
from vaultcube.gpu.nvml import _text


def driver_is_here() -> bool:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def test_what_this_machine_has() -> None:
    found = read_inventory()
    assert not found.simulated
    if not driver_is_here():
        assert found.gpus == ()
        assert found.driver is None
        assert found.reason is not None
        assert found.reason.startswith("NVML: ")
        return
    assert found.driver
    assert (found.reason is None) == bool(found.gpus)
    assert [gpu.index for gpu in found.gpus] == list(range(len(found.gpus)))
    for gpu in found.gpus:
        assert gpu.uuid.startswith("GPU-")
        assert gpu.memory_total_bytes > 2**30
        assert float(gpu.compute_capability) >= 3


def test_asking_twice_gives_the_same() -> None:
    assert read_inventory() == read_inventory()


@pytest.mark.parametrize("value", ["575.57.08", b"575.57.08"])
def test_text_is_text_in_every_major_of_the_library(value: str | bytes) -> None:
    assert _text(value) == "575.57.08"
