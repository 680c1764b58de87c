/* Initialisation, versions and names: what is asked of the driver and not of a GPU. */
#include <stdio.h>
#include <string.h>

#include "rig.h"

nvmlReturn_t nvmlInit(void) {
    return rig_init();
}

nvmlReturn_t nvmlInit_v2(void) {
    return rig_init();
}

nvmlReturn_t nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    return rig_init();
}

nvmlReturn_t nvmlShutdown(void) {
    return rig_shutdown();
}

const char *nvmlErrorString(nvmlReturn_t status) {
    switch ((int)status) {
    case 0:
        return "Success";
    case 1:
        return "Uninitialized";
    case 2:
        return "Invalid Argument";
    case 3:
        return "Not Supported";
    case 4:
        return "Insufficient Permissions";
    case 5:
        return "Already Initialized";
    case 6:
        return "Not Found";
    case 7:
        return "Insufficient Size";
    case 8:
        return "Insufficient External Power";
    case 9:
        return "Driver Not Loaded";
    case 10:
        return "Timeout";
    case 11:
        return "Interrupt Request Issue";
    case 12:
        return "NVML Shared Library Not Found";
    case 13:
        return "Function Not Found";
    case 14:
        return "Corrupted infoROM";
    case 15:
        return "GPU is lost";
    case 16:
        return "GPU requires reset";
    case 17:
        return "GPU access blocked by the operating system";
    case 18:
        return "Driver/library version mismatch";
    case 19:
        return "In use by another client";
    case 20:
        return "Insufficient Memory";
    case 21:
        return "No data";
    case 25:
        return "Argument version mismatch";
    default:
        return "Unknown Error";
    }
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length) {
    struct system system;
    nvmlReturn_t status = rig_system(&system);
    return status ? status : copy_text(&system.texts[SYSTEM_TEXT_driver_version], version, length);
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned length) {
    struct system system;
    rig_system_uninitialised(&system);
    return copy_text(&system.texts[SYSTEM_TEXT_nvml_version], version, length);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) {
    struct system system;
    if (!version) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    rig_system_uninitialised(&system);
    *version = (int)system.numbers[SYSTEM_cuda_version].value;
    return system.numbers[SYSTEM_cuda_version].status;
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) {
    return nvmlSystemGetCudaDriverVersion(version);
}

/* A process of another PID namespace cannot be found, as with the real library in a container. */
nvmlReturn_t nvmlSystemGetProcessName(unsigned pid, char *name, unsigned length) {
    struct system system;
    nvmlReturn_t status = name && length ? rig_system(&system) : NVML_ERROR_INVALID_ARGUMENT;
    if (status) {
        return status;
    }
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    FILE *file = fopen(path, "re");
    if (!file) {
        return NVML_ERROR_NOT_FOUND;
    }
    size_t got = fread(name, 1, length - 1, file);
    fclose(file);
    name[got] = '\0';
    return NVML_SUCCESS;
}
