/* What a GPU is: its name, build and settings. None of it changes under load. */
#include <stdio.h>
#include <string.h>

#include "rig.h"

#define UINT_GETTER(function, key)                                                                  \
    nvmlReturn_t function(nvmlDevice_t device, unsigned *out) {                                     \
        return rig_uint(device, GPU_##key, out);                                                    \
    }
#define TEXT_GETTER(function, key)                                                                  \
    nvmlReturn_t function(nvmlDevice_t device, char *out, unsigned length) {                        \
        return rig_text(device, GPU_TEXT_##key, out, length);                                       \
    }
#define PAIR_GETTER(function, first, second)                                                        \
    nvmlReturn_t function(nvmlDevice_t device, unsigned *one, unsigned *other) {                    \
        nvmlReturn_t status = rig_uint(device, GPU_##first, one);                                   \
        return status ? status : rig_uint(device, GPU_##second, other);                             \
    }

TEXT_GETTER(nvmlDeviceGetSerial, serial)
TEXT_GETTER(nvmlDeviceGetVbiosVersion, vbios)
TEXT_GETTER(nvmlDeviceGetBoardPartNumber, part_number)
UINT_GETTER(nvmlDeviceGetMinorNumber, minor)
UINT_GETTER(nvmlDeviceGetBoardId, board_id)
UINT_GETTER(nvmlDeviceGetMultiGpuBoard, multi_gpu_board)
UINT_GETTER(nvmlDeviceGetBrand, brand)
UINT_GETTER(nvmlDeviceGetArchitecture, architecture)
UINT_GETTER(nvmlDeviceGetNumGpuCores, cores)
UINT_GETTER(nvmlDeviceGetMemoryBusWidth, bus_width_bits)
UINT_GETTER(nvmlDeviceGetPersistenceMode, persistence)
UINT_GETTER(nvmlDeviceGetComputeMode, compute_mode)
UINT_GETTER(nvmlDeviceGetDisplayMode, display_mode)
UINT_GETTER(nvmlDeviceGetDisplayActive, display_active)
UINT_GETTER(nvmlDeviceGetNumaNodeId, numa_node)
PAIR_GETTER(nvmlDeviceGetEccMode, ecc_mode, ecc_pending)
PAIR_GETTER(nvmlDeviceGetGspFirmwareMode, gsp_mode, gsp_mode)

nvmlReturn_t nvmlDeviceGetGspFirmwareVersion(nvmlDevice_t device, char *out) {
    return rig_text(device, GPU_TEXT_gsp_version, out, 64);
}

/* On PCI Express there is one answer. */
nvmlReturn_t nvmlDeviceGetBusType(nvmlDevice_t device, unsigned *type) {
    unsigned gen;
    nvmlReturn_t status = type ? rig_uint(device, GPU_pcie_gen_max, &gen) : NVML_ERROR_INVALID_ARGUMENT;
    if (!status) {
        *type = 2;
    }
    return status;
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
    struct gpu gpu;
    unsigned mig;
    nvmlReturn_t status = major && minor ? rig_gpu_or_mig(device, &gpu, &mig) : NVML_ERROR_INVALID_ARGUMENT;
    if (!status) {
        *major = (int)gpu.numbers[GPU_cc_major].value;
        *minor = (int)gpu.numbers[GPU_cc_minor].value;
        status = gpu.numbers[GPU_cc_major].status;
    }
    return status;
}

/* A MIG device's name says its profile too; its UUID is the GPU's with another first digit. */
nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *out, unsigned length) {
    struct gpu gpu;
    unsigned mig;
    nvmlReturn_t status = rig_gpu_or_mig(device, &gpu, &mig);
    if (!status && mig) {
        struct text *name = &gpu.texts[GPU_TEXT_name];
        size_t used = strlen(name->value);
        snprintf(name->value + used, sizeof name->value - used, " MIG %s", gpu.texts[GPU_TEXT_mig_profile].value);
    }
    return status ? status : copy_text(&gpu.texts[GPU_TEXT_name], out, length);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *out, unsigned length) {
    struct gpu gpu;
    unsigned mig;
    nvmlReturn_t status = rig_gpu_or_mig(device, &gpu, &mig);
    if (!status && mig) {
        char *uuid = gpu.texts[GPU_TEXT_uuid].value;
        memcpy(uuid, "MIG", 3);
        uuid[4] = (char)('0' + mig);
    }
    return status ? status : copy_text(&gpu.texts[GPU_TEXT_uuid], out, length);
}

/* Accounting and retired pages are off or of older boards on every profile. */
#define NOT_SUPPORTED_PAIR(function)                                                                \
    nvmlReturn_t function(nvmlDevice_t device, unsigned *one, void *other) {                        \
        struct gpu gpu;                                                                             \
        nvmlReturn_t status = rig_gpu(device, &gpu);                                                \
        (void)one;                                                                                  \
        (void)other;                                                                                \
        return status ? status : NVML_ERROR_NOT_SUPPORTED;                                          \
    }

NOT_SUPPORTED_PAIR(nvmlDeviceGetAccountingMode)
NOT_SUPPORTED_PAIR(nvmlDeviceGetAccountingBufferSize)
NOT_SUPPORTED_PAIR(nvmlDeviceGetAccountingPids)
NOT_SUPPORTED_PAIR(nvmlDeviceGetRetiredPagesPendingStatus)
NOT_SUPPORTED_PAIR(nvmlDeviceGetDriverModel)
NOT_SUPPORTED_PAIR(nvmlDeviceGetDriverModel_v2)
