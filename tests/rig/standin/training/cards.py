"""The GPUs of a container, as the simulated NVML shows them: what the stand-ins have instead of a framework's devices."""

from __future__ import annotations

import ctypes
from typing import Any

from common.outcome import CANNOT_RUN_HERE, Problem
from training import arch, machine

# What the real images' builds of PyTorch carry; TensorFlow's are for no other cards that the rig has.
ARCHITECTURES = {
    "cu124": ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"],
    "cu128": ["sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"],
}
# NVML's own numbers: GPU is lost, unknown error.
GONE = (15, 999)


class Nvml:
    """The GPUs of this container, in NVML's order."""

    def __init__(self) -> None:
        """Load and start NVML.

        Raises:
            OSError: there is no library. Problem: it does not start (exit code 69).
        """
        self._lib = ctypes.CDLL("libnvidia-ml.so.1")
        self._lib.nvmlErrorString.restype = ctypes.c_char_p
        if status := self._lib.nvmlInit_v2():
            raise Problem(
                "cuda-unavailable",
                f"the CUDA driver does not start ({self._word(status)})",
                "see `nvidia-smi` on the host: the driver may have been updated under the running system",
                CANNOT_RUN_HERE,
            )

    def count(self) -> int:
        """Return how many GPUs there are."""
        count = ctypes.c_uint()
        self._lib.nvmlDeviceGetCount_v2(ctypes.byref(count))
        return count.value

    def describe(self, index: int, architectures: list[str]) -> dict[str, Any]:
        """Return the fields of a `device` event. Raises Problem when the GPU does not answer."""
        uuid, name = ctypes.create_string_buffer(96), ctypes.create_string_buffer(96)
        major, minor, memory = ctypes.c_int(), ctypes.c_int(), (ctypes.c_ulonglong * 3)()
        device = self._device(index)
        self._ask(index, "nvmlDeviceGetUUID", device, uuid, ctypes.c_uint(len(uuid)))
        self._ask(index, "nvmlDeviceGetName", device, name, ctypes.c_uint(len(name)))
        self._ask(index, "nvmlDeviceGetCudaComputeCapability", device, ctypes.byref(major), ctypes.byref(minor))
        self._ask(index, "nvmlDeviceGetMemoryInfo", device, memory)
        return {
            "device_index": index,
            "name": name.value.decode(),
            "uuid": uuid.value.decode(),
            "compute_capability": arch.dotted((major.value, minor.value)),
            "memory_bytes": memory[0],
            "architectures": architectures,
        }

    def touch(self, index: int) -> None:
        """Raise the problem of a GPU that no longer answers (exit code 70)."""
        self._ask(index, "nvmlDeviceGetTemperature", self._device(index), 0, ctypes.byref(ctypes.c_uint()))

    def _device(self, index: int) -> ctypes.c_void_p:
        device = ctypes.c_void_p()
        self._ask(index, "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(device))
        return device

    def _ask(self, index: int, function: str, *args: Any) -> None:
        status = getattr(self._lib, function)(*args)
        if status in GONE:
            raise Problem(
                "device-failed",
                f"GPU {index} no longer answers: {self._word(status)}",
                "see the host's kernel log for NVRM and Xid lines",
            )

    def _word(self, status: int) -> str:
        return bytes(self._lib.nvmlErrorString(status)).decode()


def gpu_count() -> int:
    """Return how many GPUs NVML lists, 0 without a driver. Raises Problem when it does not start (exit code 69)."""
    try:
        return Nvml().count()
    except OSError:
        return 0


def card(index: int) -> machine.Card:
    """Return a GPU as the CUDA driver would show it. Raises Problem when it does not answer (exit code 69)."""
    try:
        seen = Nvml().describe(index, [])
    except (OSError, Problem) as error:
        message, next_step = f"GPU {index} does not tell what it is ({error})", "see `nvidia-smi` on the host"
        raise Problem("cuda-unavailable", message, next_step, CANNOT_RUN_HERE) from error
    return machine.Card(seen["uuid"], seen["memory_bytes"])
