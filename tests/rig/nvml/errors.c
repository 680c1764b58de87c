/* What has gone wrong on a GPU: ECC counts, remapped rows, and how long clocks were held down. */
#include "rig.h"

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned type, unsigned counter,
                                         unsigned long long *count) {
    static const enum gpu_number keys[2][2] = {{GPU_ecc_corrected, GPU_ecc_corrected_total},
                                               {GPU_ecc_uncorrected, GPU_ecc_uncorrected_total}};
    long long value;
    if (type > 1 || counter > 1 || !count) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    nvmlReturn_t status = rig_number(device, keys[type][counter], &value);
    if (!status) {
        *count = (unsigned long long)value;
    }
    return status;
}

/* All errors of a simulated GPU are in its memory. */
nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, unsigned type, unsigned counter, unsigned location,
                                             unsigned long long *count) {
    nvmlReturn_t status = nvmlDeviceGetTotalEccErrors(device, type, counter, count);
    if (!status && location != 2) {
        *count = 0;
    }
    return status;
}

nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned *corrected, unsigned *uncorrected,
                                       unsigned *pending, unsigned *failed) {
    struct gpu gpu;
    if (!corrected || !uncorrected || !pending || !failed) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    nvmlReturn_t status = rig_gpu(device, &gpu);
    if (status) {
        return status;
    }
    *corrected = (unsigned)gpu.numbers[GPU_remapped_corrected].value;
    *uncorrected = (unsigned)gpu.numbers[GPU_remapped_uncorrected].value;
    *pending = (unsigned)gpu.numbers[GPU_remapped_pending].value;
    *failed = (unsigned)gpu.numbers[GPU_remapped_failed].value;
    return gpu.numbers[GPU_remapped_corrected].status;
}

nvmlReturn_t nvmlDeviceGetViolationStatus(nvmlDevice_t device, unsigned policy, nvmlViolationTime_t *time) {
    static const enum gpu_number keys[] = {GPU_violation_power_ns, GPU_violation_thermal_ns,
                                           GPU_violation_sync_boost_ns};
    long long value;
    if (!time || policy > 11) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    if (policy > 2) {
        return NVML_ERROR_NOT_SUPPORTED;
    }
    nvmlReturn_t status = rig_number(device, keys[policy], &value);
    if (!status) {
        *time = (nvmlViolationTime_t){(unsigned long long)wall_us(), (unsigned long long)value};
    }
    return status;
}
