/* One reading of one GPU. */
#include <stdio.h>
#include <string.h>

#include "rig.h"

nvmlReturn_t rig_number(nvmlDevice_t device, enum gpu_number key, long long *out) {
    struct gpu gpu;
    nvmlReturn_t status = out ? rig_gpu(device, &gpu) : NVML_ERROR_INVALID_ARGUMENT;
    if (status) {
        return status;
    }
    *out = gpu.numbers[key].value;
    return gpu.numbers[key].status;
}

nvmlReturn_t rig_uint(nvmlDevice_t device, enum gpu_number key, unsigned *out) {
    long long value;
    nvmlReturn_t status = out ? rig_number(device, key, &value) : NVML_ERROR_INVALID_ARGUMENT;
    if (!status) {
        *out = (unsigned)value;
    }
    return status;
}

nvmlReturn_t copy_text(const struct text *text, char *out, unsigned length) {
    if (!out) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    if (text->status) {
        return text->status;
    }
    if (strlen(text->value) >= length) {
        return NVML_ERROR_INSUFFICIENT_SIZE;
    }
    strcpy(out, text->value);
    return NVML_SUCCESS;
}

nvmlReturn_t rig_text(nvmlDevice_t device, enum gpu_text key, char *out, unsigned length) {
    struct gpu gpu;
    nvmlReturn_t status = rig_gpu(device, &gpu);
    return status ? status : copy_text(&gpu.texts[key], out, length);
}
