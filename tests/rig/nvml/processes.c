/* Who uses a GPU. The three versions of one call differ only in the size of what they fill in. */
#include <stddef.h>

#include "rig.h"

static nvmlReturn_t list(nvmlDevice_t device, enum process_kind kind, unsigned *count, nvmlProcessInfo_t *wide,
                         nvmlProcessInfo_v1_t *narrow) {
    struct gpu gpu;
    unsigned mig, found = 0;
    nvmlReturn_t status = count ? rig_gpu_or_mig(device, &gpu, &mig) : NVML_ERROR_INVALID_ARGUMENT;
    if (status) {
        return status;
    }
    unsigned room = wide || narrow ? *count : 0;
    for (unsigned i = 0; i < gpu.process_count; i++) {
        const struct process *one = &gpu.processes[i];
        if (one->kind != kind) {
            continue;
        }
        if (found < room && wide) {
            wide[found] = (nvmlProcessInfo_t){one->pid, one->bytes, NO_INSTANCE, NO_INSTANCE};
        } else if (found < room) {
            narrow[found] = (nvmlProcessInfo_v1_t){one->pid, one->bytes};
        }
        found++;
    }
    *count = found;
    return found > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

#define PROCESSES(name, kind)                                                                       \
    nvmlReturn_t name##_v3(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *infos) {        \
        return list(device, kind, count, infos, NULL);                                              \
    }                                                                                               \
    nvmlReturn_t name##_v2(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *infos) {        \
        return list(device, kind, count, infos, NULL);                                              \
    }                                                                                               \
    nvmlReturn_t name(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_v1_t *infos) {          \
        return list(device, kind, count, NULL, infos);                                              \
    }

PROCESSES(nvmlDeviceGetComputeRunningProcesses, COMPUTE)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses, GRAPHICS)
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses, MPS)

/* One sample a process and call: its utilisation of now. */
nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *samples,
                                             unsigned *count, unsigned long long last_seen_us) {
    struct gpu gpu;
    nvmlReturn_t status = count ? rig_gpu(device, &gpu) : NVML_ERROR_INVALID_ARGUMENT;
    if (status) {
        return status;
    }
    unsigned long long now = (unsigned long long)wall_us();
    if (!gpu.process_count || last_seen_us >= now) {
        *count = 0;
        return NVML_ERROR_NOT_FOUND;
    }
    unsigned room = samples ? *count : 0;
    *count = gpu.process_count;
    if (gpu.process_count > room) {
        return NVML_ERROR_INSUFFICIENT_SIZE;
    }
    for (unsigned i = 0; i < gpu.process_count; i++) {
        const struct process *one = &gpu.processes[i];
        samples[i] = (nvmlProcessUtilizationSample_t){one->pid, now, one->sm_percent, one->memory_percent, 0, 0};
    }
    return NVML_SUCCESS;
}
