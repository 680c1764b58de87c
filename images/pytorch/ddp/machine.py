"""What the launcher has to know of the machine before any framework is imported."""

from __future__ import annotations

import ctypes
import os

from common.outcome import CANNOT_RUN_HERE, Problem

_CUDA_ERROR_NO_DEVICE = 100
_CPU_RANKS = 2


def gpu_count() -> int:
    """Return how many GPUs the CUDA driver shows, 0 without driver or GPU.

    Raises:
        Problem: there is a driver, and it does not work (exit code 69).
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    status = cuda.cuInit(0)
    if status == _CUDA_ERROR_NO_DEVICE:
        return 0
    count = ctypes.c_int()
    status = status or cuda.cuDeviceGetCount(ctypes.byref(count))
    if status:
        raise Problem(
            "cuda-unavailable",
            f"the CUDA driver does not start (error {status})",
            "see `nvidia-smi` on the host: the driver may have been updated under the running system",
            CANNOT_RUN_HERE,
        )
    return count.value


def cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0))


def cpu_ranks() -> int:
    """Return the ranks that `auto` means on the CPU: two prove communication, more prove nothing."""
    return min(_CPU_RANKS, cores())
