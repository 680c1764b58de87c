/* How many GPUs, which is which, and where it sits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "rig.h"

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) {
    return count ? rig_count(count) : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceGetCount(unsigned *count) {
    return nvmlDeviceGetCount_v2(count);
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
    return device ? rig_by_index(index, device) : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned index, nvmlDevice_t *device) {
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

static bool has_uuid(const struct gpu *gpu, const void *wanted) {
    return strcasecmp(gpu->texts[GPU_TEXT_uuid].value, wanted) == 0;
}

static bool has_serial(const struct gpu *gpu, const void *wanted) {
    return !gpu->texts[GPU_TEXT_serial].status && strcmp(gpu->texts[GPU_TEXT_serial].value, wanted) == 0;
}

/* `00000000:01:00.0`, or with the four digits of the kernel's own spelling. */
void read_bus_id(const char *text, unsigned *domain, unsigned *bus, unsigned *device) {
    char *end;
    *domain = (unsigned)strtoul(text, &end, 16);
    *bus = *end ? (unsigned)strtoul(end + 1, &end, 16) : 0;
    *device = *end ? (unsigned)strtoul(end + 1, &end, 16) : 0;
}

static bool has_bus_id(const struct gpu *gpu, const void *wanted) {
    unsigned here[3], there[3];
    read_bus_id(gpu->texts[GPU_TEXT_bus_id].value, &here[0], &here[1], &here[2]);
    read_bus_id(wanted, &there[0], &there[1], &there[2]);
    return memcmp(here, there, sizeof here) == 0;
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
    return uuid && device ? rig_by_match(has_uuid, uuid, device) : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice_t *device) {
    return serial && device ? rig_by_match(has_serial, serial, device) : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device) {
    return bus_id && device ? rig_by_match(has_bus_id, bus_id, device) : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *bus_id, nvmlDevice_t *device) {
    return nvmlDeviceGetHandleByPciBusId_v2(bus_id, device);
}

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned *index) {
    return index ? rig_index(device, index) : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci) {
    struct gpu gpu;
    nvmlReturn_t status = pci ? rig_gpu(device, &gpu) : NVML_ERROR_INVALID_ARGUMENT;
    if (status) {
        return status;
    }
    const struct text *bus_id = &gpu.texts[GPU_TEXT_bus_id];
    if (bus_id->status) {
        return bus_id->status;
    }
    memset(pci, 0, sizeof *pci);
    read_bus_id(bus_id->value, &pci->domain, &pci->bus, &pci->device);
    pci->pciDeviceId = (unsigned)gpu.numbers[GPU_pci_device_id].value;
    pci->pciSubSystemId = (unsigned)gpu.numbers[GPU_pci_subsystem_id].value;
    snprintf(pci->busId, sizeof pci->busId, "%.31s", bus_id->value);
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0", pci->domain & 0xFFFF, pci->bus & 0xFF,
             pci->device & 0xFF);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_t *pci) {
    return nvmlDeviceGetPciInfo_v3(device, pci);
}
