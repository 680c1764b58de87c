"""The GPUs of this container, straight from the driver's NVML: asking a framework would take ten seconds."""

from __future__ import annotations

import contextlib
import ctypes
from dataclasses import dataclass

LIBRARY = "libnvidia-ml.so.1"


@dataclass(frozen=True)
class Card:
    """A GPU as this container numbers it. Memory is in bytes."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int]


class _Memory(ctypes.Structure):
    # nvmlMemory_t of nvml.h.
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def read(library: str = LIBRARY) -> list[Card] | None:
    """Return the GPUs, None when there is no NVML, or it does not answer as its header says."""
    try:
        nvml = ctypes.CDLL(library)
        if nvml.nvmlInit_v2():
            return None
    except (OSError, AttributeError):
        return None
    try:
        return _cards(nvml)
    except (AttributeError, _NvmlError):
        return None
    finally:
        with contextlib.suppress(AttributeError):
            nvml.nvmlShutdown()


class _NvmlError(Exception):
    """A call failed."""


def _call(function: ctypes._NamedFuncPointer, *arguments: object) -> None:
    if function(*arguments):
        raise _NvmlError


def _cards(nvml: ctypes.CDLL) -> list[Card]:
    count = ctypes.c_uint()
    _call(nvml.nvmlDeviceGetCount_v2, ctypes.byref(count))
    cards = []
    for index in range(count.value):
        handle, memory, name = ctypes.c_void_p(), _Memory(), ctypes.create_string_buffer(96)
        major, minor = ctypes.c_int(), ctypes.c_int()
        _call(nvml.nvmlDeviceGetHandleByIndex_v2, ctypes.c_uint(index), ctypes.byref(handle))
        _call(nvml.nvmlDeviceGetMemoryInfo, handle, ctypes.byref(memory))
        _call(nvml.nvmlDeviceGetName, handle, name, ctypes.c_uint(len(name)))
        _call(nvml.nvmlDeviceGetCudaComputeCapability, handle, ctypes.byref(major), ctypes.byref(minor))
        capability = (major.value, minor.value)
        cards.append(Card(index, name.value.decode("utf-8", "replace"), memory.total, memory.free, capability))
    return cards
