/* Which GPUs and processors are near each other, and how GPUs reach one another. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rig.h"

enum { TOPOLOGY_INTERNAL = 0, TOPOLOGY_SINGLE = 10, TOPOLOGY_HOSTBRIDGE = 30, TOPOLOGY_NODE = 40, TOPOLOGY_SYSTEM = 50 };
enum { P2P_CAPS_NVLINK = 2, P2P_CAPS_COUNT = 5, P2P_NOT_SUPPORTED = 5 };
enum { NVLINK_TO_SWITCH = 2 };

static nvmlReturn_t both(nvmlDevice_t one, nvmlDevice_t other, struct gpu *first, struct gpu *second) {
    nvmlReturn_t status = rig_gpu(one, first);
    return status ? status : rig_gpu(other, second);
}

static bool share(const struct gpu *one, const struct gpu *other, enum gpu_number key) {
    const struct number *a = &one->numbers[key], *b = &other->numbers[key];
    return !a->status && !b->status && a->value == b->value;
}

nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t one, nvmlDevice_t other, unsigned *level) {
    struct gpu a, b;
    nvmlReturn_t status = level ? both(one, other, &a, &b) : NVML_ERROR_INVALID_ARGUMENT;
    if (!status) {
        *level = one == other                       ? TOPOLOGY_INTERNAL
                 : share(&a, &b, GPU_pcie_switch) ? TOPOLOGY_SINGLE
                 : share(&a, &b, GPU_pcie_root)   ? TOPOLOGY_HOSTBRIDGE
                 : share(&a, &b, GPU_numa_node)   ? TOPOLOGY_NODE
                                                  : TOPOLOGY_SYSTEM;
    }
    return status;
}

nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t one, nvmlDevice_t other, unsigned capability, unsigned *p2p) {
    struct gpu a, b;
    struct system system;
    if (!p2p || one == other || capability >= P2P_CAPS_COUNT) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    nvmlReturn_t status = both(one, other, &a, &b);
    if (!status) {
        status = rig_system(&system);
    }
    if (status) {
        return status;
    }
    bool linked = a.numbers[GPU_nvlinks].value && b.numbers[GPU_nvlinks].value;
    *p2p = capability == P2P_CAPS_NVLINK ? (linked ? 0 : P2P_NOT_SUPPORTED)
                                         : (unsigned)system.numbers[SYSTEM_p2p_status].value;
    return NVML_SUCCESS;
}

static void set_bit(unsigned long *set, unsigned words, unsigned long bit) {
    const unsigned long width = sizeof *set * CHAR_BIT;
    if (bit / width < words) {
        set[bit / width] |= 1UL << (bit % width);
    }
}

/* Reads `0-11,24-35`. */
static void set_ranges(unsigned long *set, unsigned words, const char *text) {
    while (*text) {
        char *end;
        unsigned long first = strtoul(text, &end, 10), last = first;
        if (*end == '-') {
            last = strtoul(end + 1, &end, 10);
        }
        for (unsigned long bit = first; bit <= last && bit < 8192; bit++) {
            set_bit(set, words, bit);
        }
        if (*end != ',') {
            return;
        }
        text = end + 1;
    }
}

nvmlReturn_t nvmlDeviceGetCpuAffinity(nvmlDevice_t device, unsigned words, unsigned long *set) {
    struct gpu gpu;
    nvmlReturn_t status = set && words ? rig_gpu(device, &gpu) : NVML_ERROR_INVALID_ARGUMENT;
    if (status || (status = gpu.texts[GPU_TEXT_cpus].status)) {
        return status;
    }
    memset(set, 0, words * sizeof *set);
    set_ranges(set, words, gpu.texts[GPU_TEXT_cpus].value);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCpuAffinityWithinScope(nvmlDevice_t device, unsigned words, unsigned long *set,
                                                 unsigned scope) {
    return scope > 1 ? NVML_ERROR_INVALID_ARGUMENT : nvmlDeviceGetCpuAffinity(device, words, set);
}

nvmlReturn_t nvmlDeviceGetMemoryAffinity(nvmlDevice_t device, unsigned words, unsigned long *set, unsigned scope) {
    long long node;
    if (!set || !words || scope > 1) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    nvmlReturn_t status = rig_number(device, GPU_numa_node, &node);
    if (!status) {
        memset(set, 0, words * sizeof *set);
        set_bit(set, words, (unsigned long)node);
    }
    return status;
}

/* The links of a board without any are not supported; those past its last one are not there. */
static nvmlReturn_t link_of(nvmlDevice_t device, unsigned link, struct gpu *gpu) {
    nvmlReturn_t status = link < NVLINK_MAX_LINKS ? rig_gpu(device, gpu) : NVML_ERROR_INVALID_ARGUMENT;
    return status ? status : gpu->numbers[GPU_nvlinks].status;
}

nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned link, unsigned *active) {
    struct gpu gpu;
    nvmlReturn_t status = active ? link_of(device, link, &gpu) : NVML_ERROR_INVALID_ARGUMENT;
    if (!status) {
        *active = link < gpu.numbers[GPU_nvlinks].value;
    }
    return status;
}

nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t device, unsigned link, unsigned *version) {
    struct gpu gpu;
    nvmlReturn_t status = version ? link_of(device, link, &gpu) : NVML_ERROR_INVALID_ARGUMENT;
    if (!status) {
        *version = (unsigned)gpu.numbers[GPU_nvlink_version].value;
    }
    return status;
}

/* P2P, access to the host's memory, atomics on both: yes. An SLI bridge: no. Valid: yes. */
nvmlReturn_t nvmlDeviceGetNvLinkCapability(nvmlDevice_t device, unsigned link, unsigned capability, unsigned *yes) {
    struct gpu gpu;
    nvmlReturn_t status = yes && capability < 6 ? link_of(device, link, &gpu) : NVML_ERROR_INVALID_ARGUMENT;
    if (!status) {
        *yes = capability != 4;
    }
    return status;
}

nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, unsigned link, unsigned *type) {
    struct gpu gpu;
    nvmlReturn_t status = type ? link_of(device, link, &gpu) : NVML_ERROR_INVALID_ARGUMENT;
    if (!status) {
        *type = NVLINK_TO_SWITCH;
    }
    return status;
}

nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned link, nvmlPciInfo_t *pci) {
    struct gpu gpu;
    nvmlReturn_t status = pci ? link_of(device, link, &gpu) : NVML_ERROR_INVALID_ARGUMENT;
    if (status || (status = gpu.texts[GPU_TEXT_nvlink_bus_id].status)) {
        return status;
    }
    if (link >= gpu.numbers[GPU_nvlinks].value) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    memset(pci, 0, sizeof *pci);
    read_bus_id(gpu.texts[GPU_TEXT_nvlink_bus_id].value, &pci->domain, &pci->bus, &pci->device);
    snprintf(pci->busId, sizeof pci->busId, "%08X:%02X:%02X.0", pci->domain, pci->bus, pci->device);
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0", pci->domain & 0xFFFF, pci->bus & 0xFF,
             pci->device & 0xFF);
    return NVML_SUCCESS;
}
