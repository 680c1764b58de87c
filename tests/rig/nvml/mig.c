/* Multi-instance GPUs: a GPU with mig_devices has that many slices, each with a handle of its own. */
#include "rig.h"

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *mode, unsigned *pending) {
    nvmlReturn_t status = rig_uint(device, GPU_mig_mode, mode);
    return status ? status : rig_uint(device, GPU_mig_pending, pending);
}

nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned *is_mig) {
    struct gpu gpu;
    unsigned mig;
    nvmlReturn_t status = is_mig ? rig_gpu_or_mig(device, &gpu, &mig) : NVML_ERROR_INVALID_ARGUMENT;
    if (!status) {
        *is_mig = mig != 0;
    }
    return status;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned *count) {
    unsigned mode;
    nvmlReturn_t status = count ? rig_uint(device, GPU_mig_mode, &mode) : NVML_ERROR_INVALID_ARGUMENT;
    if (!status) {
        *count = MAX_MIG;
    }
    return status;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned index, nvmlDevice_t *mig) {
    unsigned mode;
    nvmlReturn_t status = mig ? rig_uint(device, GPU_mig_mode, &mode) : NVML_ERROR_INVALID_ARGUMENT;
    if (status) {
        return status;
    }
    if (index >= MAX_MIG) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    return mode ? rig_mig_handle(device, index + 1, mig) : NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t mig, nvmlDevice_t *device) {
    return device ? rig_mig_handle(mig, 0, device) : NVML_ERROR_INVALID_ARGUMENT;
}

/* GPU instances are numbered from 1, each with one compute instance 0. */
nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned *id) {
    struct gpu gpu;
    unsigned mig;
    nvmlReturn_t status = id ? rig_gpu_or_mig(device, &gpu, &mig) : NVML_ERROR_INVALID_ARGUMENT;
    if (!status) {
        *id = mig;
    }
    return status || mig ? status : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned *id) {
    nvmlReturn_t status = nvmlDeviceGetGpuInstanceId(device, id);
    if (!status) {
        *id = 0;
    }
    return status;
}

nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes) {
    struct gpu gpu;
    unsigned mig;
    nvmlReturn_t status = attributes ? rig_gpu_or_mig(device, &gpu, &mig) : NVML_ERROR_INVALID_ARGUMENT;
    if (status || !mig) {
        return status ? status : NVML_ERROR_NOT_SUPPORTED;
    }
    *attributes = (nvmlDeviceAttributes_t){
        .multiprocessorCount = (unsigned)gpu.numbers[GPU_mig_multiprocessors].value,
        .sharedCopyEngineCount = 1,
        .gpuInstanceSliceCount = 1,
        .computeInstanceSliceCount = 1,
        .memorySizeMB = (unsigned long long)gpu.numbers[GPU_mig_memory_bytes].value >> 20,
    };
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetAttributes(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes) {
    return nvmlDeviceGetAttributes_v2(device, attributes);
}
