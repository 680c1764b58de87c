"""The only file that talks to NVML."""

from __future__ import annotations

from vaultcube.gpu.inventory import Inventory
from vaultcube.results.schema import Gpu


def read_inventory() -> Inventory:
    """Return the GPUs that NVML lists. Without a driver, or with one that fails, an empty inventory says why."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Inventory(reason=f"NVML: {error}")
    try:
        gpus = tuple(_read_gpu(index) for index in range(pynvml.nvmlDeviceGetCount()))
        return Inventory(
            driver=_text(pynvml.nvmlSystemGetDriverVersion()),
            gpus=gpus,
            reason=None if gpus else "the driver lists no GPU",
        )
    except pynvml.NVMLError as error:
        return Inventory(reason=f"NVML: {error}")
    finally:
        pynvml.nvmlShutdown()


def _read_gpu(index: int) -> Gpu:
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        index=index,
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        pci_bus_id=_text(pynvml.nvmlDeviceGetPciInfo(handle).busId),
        compute_capability=f"{major}.{minor}",
        memory_total_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
    )


def _text(value: str | bytes) -> str:
    """Return text: nvidia-ml-py gives bytes in places, and which ones changes between its majors."""
    return value.decode() if isinstance(value, bytes) else value
