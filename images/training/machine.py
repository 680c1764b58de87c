"""What the launcher has to know of the machine before any framework is imported."""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from common.outcome import CANNOT_RUN_HERE, Problem

_CUDA_ERROR_NO_DEVICE = 100
_CPU_RANKS = 2


def gpu_count() -> int:
    """Return how many GPUs the CUDA driver shows, 0 without driver or GPU.

    Raises:
        Problem: there is a driver, and it does not work (exit code 69).
    """
    return _started()[1]


@dataclass(frozen=True)
class Card:
    """A GPU as the CUDA driver shows it: its UUID as NVML writes it, and all its memory in bytes."""

    uuid: str
    memory_bytes: int


def card(index: int) -> Card:
    """Return the GPU of that number, counted as every CUDA program here counts them.

    Raises:
        Problem: the driver does not work, or does not tell (exit code 69).
    """
    cuda, _ = _started()
    device, uuid, memory = ctypes.c_int(), (ctypes.c_ubyte * 16)(), ctypes.c_size_t()
    status = 1 if cuda is None else cuda.cuDeviceGet(ctypes.byref(device), ctypes.c_int(index))
    status = status or cuda.cuDeviceGetUuid(ctypes.byref(uuid), device)
    status = status or cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    if status:
        raise Problem(
            "cuda-unavailable",
            f"GPU {index} does not tell what it is (error {status})",
            "see `nvidia-smi` on the host: the GPU may be lost",
            CANNOT_RUN_HERE,
        )
    return Card(f"GPU-{UUID(bytes=bytes(uuid))}", memory.value)


def _started() -> tuple[Any, int]:
    """Return the driver's library (None when there is none), started, and how many GPUs it shows."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None, 0
    status = cuda.cuInit(0)
    if status == _CUDA_ERROR_NO_DEVICE:
        return cuda, 0
    count = ctypes.c_int()
    status = status or cuda.cuDeviceGetCount(ctypes.byref(count))
    if status:
        raise Problem(
            "cuda-unavailable",
            f"the CUDA driver does not start (error {status})",
            "see `nvidia-smi` on the host: the driver may have been updated under the running system",
            CANNOT_RUN_HERE,
        )
    return cuda, count.value


def cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0))


def cpu_ranks() -> int:
    """Return the ranks that `auto` means on the CPU: two prove communication, more prove nothing."""
    return min(_CPU_RANKS, cores())


def cpu_name() -> str:
    """Return what the CPU calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def memory_bytes() -> int:
    """Return the main memory of the machine, in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
