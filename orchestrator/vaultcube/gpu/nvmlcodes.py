"""What NVML's names and numbers mean to us. Source: nvml.h."""

from typing import Final

from vaultcube.gpu.readings import Level, Problem

PROBLEMS: Final[dict[str, Problem]] = {
    "NVML_ERROR_LIBRARY_NOT_FOUND": "no-library",
    "NVML_ERROR_DRIVER_NOT_LOADED": "no-driver",
    "NVML_ERROR_LIB_RM_VERSION_MISMATCH": "mismatch",
    "NVML_ERROR_NO_PERMISSION": "permission",
    "NVML_ERROR_GPU_IS_LOST": "lost",
    "NVML_ERROR_RESET_REQUIRED": "lost",
}
# What says that a card, a driver or this user cannot have one value, and nothing about the others.
ABSENT: Final = (
    "NVML_ERROR_NOT_SUPPORTED",
    "NVML_ERROR_FUNCTION_NOT_FOUND",
    "NVML_ERROR_NO_PERMISSION",
    "NVML_ERROR_NO_DATA",
    "NVML_ERROR_NOT_FOUND",
    "NVML_ERROR_INVALID_ARGUMENT",
    "NVML_ERROR_ARGUMENT_VERSION_MISMATCH",
    "NVML_ERROR_DEPRECATED",
)
# What ends the reading of a GPU at once: nothing that it says after this can be trusted.
FATAL: Final = ("lost", "mismatch", "no-driver")
P2P: Final = ("OK", "CNS", "GNS", "TNS", "DR", "NS", "U")
LEVELS: Final[dict[int, Level]] = {0: "PIX", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
# NVML_FI_DEV_*: replay counter, memory temperature, and the time spent slowed down for a reason, in ns.
FIELDS: Final = {
    "pcie_replays": 94,
    "memory_temperature_c": 82,
    "power_cap_ns": 74,
    "sw_thermal_ns": 269,
    "hw_thermal_ns": 270,
    "power_brake_ns": 271,
}
