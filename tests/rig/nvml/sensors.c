/* What a GPU does at this moment: memory, utilisation, power, temperature, fans, clocks, PCIe. */
#include <stddef.h>

#include "rig.h"

#define UINT_GETTER(function, key)                                                                  \
    nvmlReturn_t function(nvmlDevice_t device, unsigned *out) {                                     \
        return rig_uint(device, GPU_##key, out);                                                    \
    }
#define BITS_GETTER(function, key)                                                                  \
    nvmlReturn_t function(nvmlDevice_t device, unsigned long long *out) {                           \
        long long value;                                                                            \
        nvmlReturn_t status = out ? rig_number(device, GPU_##key, &value) : NVML_ERROR_INVALID_ARGUMENT; \
        if (!status) {                                                                              \
            *out = (unsigned long long)value;                                                       \
        }                                                                                           \
        return status;                                                                              \
    }
#define PAIR_GETTER(function, first, second)                                                        \
    nvmlReturn_t function(nvmlDevice_t device, unsigned *one, unsigned *other) {                    \
        nvmlReturn_t status = rig_uint(device, GPU_##first, one);                                   \
        return status ? status : rig_uint(device, GPU_##second, other);                             \
    }

UINT_GETTER(nvmlDeviceGetPowerUsage, power_mw)
UINT_GETTER(nvmlDeviceGetPowerManagementLimit, power_limit_mw)
UINT_GETTER(nvmlDeviceGetEnforcedPowerLimit, power_limit_mw)
UINT_GETTER(nvmlDeviceGetPowerManagementDefaultLimit, power_default_mw)
UINT_GETTER(nvmlDeviceGetFanSpeed, fan_percent)
UINT_GETTER(nvmlDeviceGetNumFans, fans)
UINT_GETTER(nvmlDeviceGetPerformanceState, pstate)
UINT_GETTER(nvmlDeviceGetPowerState, pstate)
UINT_GETTER(nvmlDeviceGetCurrPcieLinkGeneration, pcie_gen)
UINT_GETTER(nvmlDeviceGetCurrPcieLinkWidth, pcie_width)
UINT_GETTER(nvmlDeviceGetMaxPcieLinkGeneration, pcie_gen_max)
UINT_GETTER(nvmlDeviceGetMaxPcieLinkWidth, pcie_width_max)
UINT_GETTER(nvmlDeviceGetGpuMaxPcieLinkGeneration, pcie_gen_device)
/* NVML numbers the link's speeds as PCI does its generations. */
UINT_GETTER(nvmlDeviceGetPcieLinkMaxSpeed, pcie_gen_max)
UINT_GETTER(nvmlDeviceGetPcieReplayCounter, pcie_replay)
BITS_GETTER(nvmlDeviceGetTotalEnergyConsumption, energy_mj)
BITS_GETTER(nvmlDeviceGetCurrentClocksEventReasons, reasons)
BITS_GETTER(nvmlDeviceGetCurrentClocksThrottleReasons, reasons)
BITS_GETTER(nvmlDeviceGetSupportedClocksEventReasons, reasons_supported)
BITS_GETTER(nvmlDeviceGetSupportedClocksThrottleReasons, reasons_supported)
PAIR_GETTER(nvmlDeviceGetPowerManagementLimitConstraints, power_min_mw, power_max_mw)

/* NVML calls it MB/s; it is the megatransfers of a lane. */
nvmlReturn_t nvmlDeviceGetPcieSpeed(nvmlDevice_t device, unsigned *speed) {
    static const unsigned transfers[] = {0, 2500, 5000, 8000, 16000, 32000, 64000};
    unsigned gen;
    nvmlReturn_t status = speed ? rig_uint(device, GPU_pcie_gen, &gen) : NVML_ERROR_INVALID_ARGUMENT;
    if (!status) {
        *speed = transfers[gen < 7 ? gen : 0];
    }
    return status;
}

static nvmlReturn_t memory_of(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    struct gpu gpu;
    unsigned mig;
    nvmlReturn_t status = memory ? rig_gpu_or_mig(device, &gpu, &mig) : NVML_ERROR_INVALID_ARGUMENT;
    if (status) {
        return status;
    }
    const struct number *n = gpu.numbers;
    nvmlMemory_v2_t found = {0};
    if (mig) {
        found.total = (unsigned long long)n[GPU_mig_memory_bytes].value;
    } else {
        found.total = (unsigned long long)n[GPU_memory_total_bytes].value;
        found.reserved = (unsigned long long)n[GPU_memory_reserved_bytes].value;
        found.used = (unsigned long long)n[GPU_memory_used_bytes].value;
        for (unsigned i = 0; i < gpu.process_count; i++) {
            found.used += gpu.processes[i].bytes;
        }
    }
    if (found.used > found.total - found.reserved) {
        found.used = found.total - found.reserved;
    }
    found.free = found.total - found.reserved - found.used;
    found.version = memory->version;
    *memory = found;
    return n[GPU_memory_total_bytes].status ? n[GPU_memory_total_bytes].status : n[GPU_memory_used_bytes].status;
}

/* The first version has no word for what the driver keeps, and counts it as used. */
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    nvmlMemory_v2_t found = {0};
    nvmlReturn_t status = memory ? memory_of(device, &found) : NVML_ERROR_INVALID_ARGUMENT;
    if (!status) {
        *memory = (nvmlMemory_t){found.total, found.free, found.used + found.reserved};
    }
    return status;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    if (memory && memory->version != STRUCT_VERSION(nvmlMemory_v2_t, 2)) {
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    }
    return memory_of(device, memory);
}

nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *memory) {
    struct gpu gpu;
    nvmlReturn_t status = memory ? rig_gpu(device, &gpu) : NVML_ERROR_INVALID_ARGUMENT;
    if (status) {
        return status;
    }
    memory->bar1Total = (unsigned long long)gpu.numbers[GPU_bar1_total_bytes].value;
    memory->bar1Used = (unsigned long long)gpu.numbers[GPU_bar1_used_bytes].value;
    memory->bar1Free = memory->bar1Total - memory->bar1Used;
    return gpu.numbers[GPU_bar1_total_bytes].status;
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates) {
    struct gpu gpu;
    nvmlReturn_t status = rates ? rig_gpu(device, &gpu) : NVML_ERROR_INVALID_ARGUMENT;
    if (status) {
        return status;
    }
    *rates = (nvmlUtilization_t){(unsigned)gpu.numbers[GPU_util_gpu].value,
                                 (unsigned)gpu.numbers[GPU_util_memory].value};
    return gpu.numbers[GPU_util_gpu].status;
}

static nvmlReturn_t engine(nvmlDevice_t device, enum gpu_number key, unsigned *percent, unsigned *period_us) {
    nvmlReturn_t status = period_us ? rig_uint(device, key, percent) : NVML_ERROR_INVALID_ARGUMENT;
    if (!status) {
        *period_us = 167000;
    }
    return status;
}

nvmlReturn_t nvmlDeviceGetEncoderUtilization(nvmlDevice_t device, unsigned *percent, unsigned *period_us) {
    return engine(device, GPU_util_encoder, percent, period_us);
}

nvmlReturn_t nvmlDeviceGetDecoderUtilization(nvmlDevice_t device, unsigned *percent, unsigned *period_us) {
    return engine(device, GPU_util_decoder, percent, period_us);
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned sensor, unsigned *temperature) {
    return sensor ? NVML_ERROR_INVALID_ARGUMENT : rig_uint(device, GPU_temperature_c, temperature);
}

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature) {
    if (!temperature || temperature->sensorType) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    if (temperature->version != STRUCT_VERSION(nvmlTemperature_t, 1)) {
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    }
    return rig_uint(device, GPU_temperature_c, (unsigned *)&temperature->temperature);
}

nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, unsigned type, unsigned *temperature) {
    static const enum gpu_number keys[] = {GPU_threshold_shutdown_c, GPU_threshold_slowdown_c,
                                           GPU_threshold_memory_max_c, GPU_threshold_gpu_max_c};
    if (type >= 8) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    return type < 4 ? rig_uint(device, keys[type], temperature) : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t device, nvmlMarginTemperature_t *margin) {
    if (!margin) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    if (margin->version != STRUCT_VERSION(nvmlMarginTemperature_t, 1)) {
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    }
    struct gpu gpu;
    nvmlReturn_t status = rig_gpu(device, &gpu);
    if (!status) {
        const struct number *limit = &gpu.numbers[GPU_temperature_limit_c];
        margin->marginTemperature = (int)(limit->value - gpu.numbers[GPU_temperature_c].value);
        status = limit->status ? limit->status : gpu.numbers[GPU_temperature_c].status;
    }
    return status;
}

nvmlReturn_t nvmlDeviceGetFanSpeed_v2(nvmlDevice_t device, unsigned fan, unsigned *percent) {
    unsigned fans;
    nvmlReturn_t status = rig_uint(device, GPU_fans, &fans);
    if (status) {
        return status;
    }
    return fan < fans ? rig_uint(device, GPU_fan_percent, percent) : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned type, unsigned *mhz) {
    static const enum gpu_number keys[] = {GPU_clock_graphics_mhz, GPU_clock_sm_mhz, GPU_clock_memory_mhz,
                                           GPU_clock_video_mhz};
    return type <= CLOCK_VIDEO ? rig_uint(device, keys[type], mhz) : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned type, unsigned *mhz) {
    static const enum gpu_number keys[] = {GPU_clock_max_graphics_mhz, GPU_clock_max_sm_mhz,
                                           GPU_clock_max_memory_mhz, GPU_clock_max_video_mhz};
    return type <= CLOCK_VIDEO ? rig_uint(device, keys[type], mhz) : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceGetMaxCustomerBoostClock(nvmlDevice_t device, unsigned type, unsigned *mhz) {
    return type <= CLOCK_SM ? rig_uint(device, GPU_clock_boost_mhz, mhz) : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t nvmlDeviceGetApplicationsClock(nvmlDevice_t device, unsigned type, unsigned *mhz) {
    if (type > CLOCK_VIDEO) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    return rig_uint(device, type == CLOCK_MEM ? GPU_clock_application_memory_mhz : GPU_clock_application_mhz, mhz);
}

nvmlReturn_t nvmlDeviceGetDefaultApplicationsClock(nvmlDevice_t device, unsigned type, unsigned *mhz) {
    return nvmlDeviceGetApplicationsClock(device, type, mhz);
}

nvmlReturn_t nvmlDeviceGetClock(nvmlDevice_t device, unsigned type, unsigned id, unsigned *mhz) {
    switch (id) {
    case 0:
        return nvmlDeviceGetClockInfo(device, type, mhz);
    case 1:
    case 2:
        return nvmlDeviceGetApplicationsClock(device, type, mhz);
    case 3:
        return nvmlDeviceGetMaxCustomerBoostClock(device, type, mhz);
    default:
        return NVML_ERROR_INVALID_ARGUMENT;
    }
}

nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t device, unsigned counter, unsigned *kb_per_s) {
    if (counter > 1) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    return rig_uint(device, counter ? GPU_pcie_rx_kb_per_s : GPU_pcie_tx_kb_per_s, kb_per_s);
}
