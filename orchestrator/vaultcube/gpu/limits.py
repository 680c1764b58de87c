"""What a card can do at most, computed from what it says about itself. Pure.

Boards boost past the clock they state, so a measured share of these peaks is to be read at the measured clock.
"""

from __future__ import annotations

from vaultcube.gpu.readings import GpuInfo

# FP32 cores in a streaming multiprocessor. Source: CUDA C++ Programming Guide, table "Throughput of Native Arithmetic
# Instructions", row 32-bit floating-point add, by compute capability.
CORES_PER_SM = {
    "6.0": 64,
    "6.1": 128,
    "7.0": 64,
    "7.5": 64,
    "8.0": 64,
    "8.6": 128,
    "8.9": 128,
    "9.0": 128,
    "10.0": 128,
    "12.0": 128,
}

# Dense bf16 operations with fp32 accumulation a multiprocessor and clock. Sources: NVIDIA's architecture whitepapers
# (A100: 312 TFLOPS on 108 SMs at 1.41 GHz; H100 SXM: 989 on 132 at 1.83 GHz; GeForce cards of 8.6, 8.9 and 12.0 run
# fp32 accumulation at half their rate: RTX 5090 209.5 on 170 at 2.407 GHz).
TENSOR_FLOP_PER_SM_AND_CLOCK = {"8.0": 2048, "8.6": 512, "8.9": 512, "9.0": 4096, "12.0": 512}


def memory_bandwidth(gpu: GpuInfo) -> float | None:
    """Return the peak memory bandwidth in bytes/s, or None when the card does not say enough.

    2 x memory clock x bus width / 8: two transfers a clock, as the clocks that NVML states count. Source: NVIDIA's
    deviceQuery/bandwidth samples. RTX 5090: 2 x 14001 MHz x 512 bit / 8 = 1792 GB/s.
    """
    if gpu.memory_clock_max_mhz is None or gpu.memory_bus_bits is None:
        return None
    return 2 * gpu.memory_clock_max_mhz * 1e6 * gpu.memory_bus_bits / 8


def multiprocessors(gpu: GpuInfo) -> int | None:
    """Return the number of streaming multiprocessors, or None for an architecture that is not in the table."""
    per_sm = CORES_PER_SM.get(gpu.compute_capability)
    return None if gpu.cores is None or per_sm is None else gpu.cores // per_sm


def tensor_peak(gpu: GpuInfo) -> float | None:
    """Return the peak of dense bf16 tensor arithmetic (fp32 accumulation) in FLOP/s, or None when it is not known.

    Multiprocessors x maximum SM clock x operations a multiprocessor and clock. Taken at the clock that NVML states as
    the maximum, which is above the boost clock that data sheets are written for.
    """
    count, rate = multiprocessors(gpu), TENSOR_FLOP_PER_SM_AND_CLOCK.get(gpu.compute_capability)
    if count is None or rate is None or gpu.sm_clock_max_mhz is None:
        return None
    return count * gpu.sm_clock_max_mhz * 1e6 * rate
