/* Finds the library, starts it and lists its GPUs; what goes wrong there is said as NVIDIA says it. */
#include <ctype.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "smi.h"

struct api nvml;
static void *library;

/* ISO C has no conversion from what dlsym gives to a function; POSIX promises that the bytes are the same. */
static void find(void *pointer, const char *name) {
    void *symbol = dlsym(library, name);
    memcpy(pointer, &symbol, sizeof symbol);
}

static nvmlReturn_t uint_reading(const char *call, nvmlDevice_t device, unsigned *out) {
    nvmlReturn_t (*function)(nvmlDevice_t, unsigned *);
    find(&function, call);
    return function ? function(device, out) : NVML_ERROR_FUNCTION_NOT_FOUND;
}

static int failed_init(nvmlReturn_t status) {
    char version[80];
    if (status == NVML_ERROR_DRIVER_NOT_LOADED) {
        puts("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
             "Make sure that the latest NVIDIA driver is installed and running.\n");
        return EXIT_NO_DRIVER;
    }
    printf("Failed to initialize NVML: %s\n", nvml.nvmlErrorString(status));
    if (status == NVML_ERROR_LIB_RM_VERSION_MISMATCH && !nvml.nvmlSystemGetNVMLVersion(version, sizeof version)) {
        /* Without the CUDA major in front and the patch level behind: 580.95. */
        char *driver = strchr(version, '.');
        char *patch = driver ? strrchr(driver + 1, '.') : NULL;
        if (patch && patch != strchr(driver + 1, '.')) {
            *patch = '\0';
        }
        printf("NVML library version: %s\n", driver ? driver + 1 : version);
    }
    return status < NVML_ERROR_UNKNOWN ? (int)status : EXIT_OTHER;
}

int smi_start(void) {
    library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (!library) {
        puts("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. Please make sure that the NVIDIA "
             "Display Driver is properly installed and present in your system.\n"
             "Please also try adding directory that contains libnvidia-ml.so to your system PATH.");
        return EXIT_NO_LIBRARY;
    }
#define AS_FOUND(name, arguments)                                                                   \
    find(&nvml.name, #name);                                                                        \
    if (!nvml.name) {                                                                               \
        puts("This nvidia-smi belongs to the simulated box, and the library it found does not.");   \
        return EXIT_NO_LIBRARY;                                                                     \
    }
    SMI_API(AS_FOUND)
    AS_FOUND(nvmlErrorString, )
    nvml.uint = uint_reading;
    nvmlReturn_t status = nvml.nvmlInit_v2();
    return status ? failed_init(status) : EXIT_SUCCESS;
}

void smi_error(nvmlReturn_t status, char *out, unsigned size) {
    if (status == NVML_ERROR_NOT_SUPPORTED || status == NVML_ERROR_FUNCTION_NOT_FOUND) {
        snprintf(out, size, "[N/A]");
    } else {
        snprintf(out, size, "[%s]", nvml.nvmlErrorString(status));
    }
}

char *smi_next(char **list) {
    char *word = *list;
    if (!word) {
        return NULL;
    }
    char *comma = strchr(word, ',');
    if (comma) {
        *comma = '\0';
    }
    *list = comma ? comma + 1 : NULL;
    word += strspn(word, " ");
    size_t length = strlen(word);
    while (length && word[length - 1] == ' ') {
        word[--length] = '\0';
    }
    return word;
}

static bool is_number(const char *text) {
    return *text && strspn(text, "0123456789") == strlen(text);
}

static bool is_wanted(const char *wanted, const struct device *device) {
    char uuid[96] = "", copy[512];
    char *list = copy, *word;
    nvmlPciInfo_t pci = {0};
    if (!wanted) {
        return true;
    }
    nvml.nvmlDeviceGetUUID(device->handle, uuid, sizeof uuid);
    nvml.nvmlDeviceGetPciInfo_v3(device->handle, &pci);
    snprintf(copy, sizeof copy, "%s", wanted);
    while ((word = smi_next(&list))) {
        if (is_number(word) ? (unsigned)atoi(word) == device->index
                            : !strcasecmp(word, uuid) || !strcasecmp(word, pci.busId) ||
                                  !strcasecmp(word, pci.busIdLegacy)) {
            return true;
        }
    }
    return false;
}

int smi_devices(const char *wanted, struct device *devices, unsigned *count) {
    unsigned all;
    nvmlReturn_t status = nvml.nvmlDeviceGetCount_v2(&all);
    *count = 0;
    if (status) {
        return failed_init(status);
    }
    for (unsigned i = 0; i < all && i < MAX_DEVICES; i++) {
        struct device one = {i, NULL};
        status = nvml.nvmlDeviceGetHandleByIndex_v2(i, &one.handle);
        if (status) {
            char bus_id[32] = "00000000:00:00.0";
            nvml.vaultcube_rig_bus_id(i, bus_id, sizeof bus_id);
            printf("Unable to determine the device handle for GPU%s: %s\n", bus_id + 4, nvml.nvmlErrorString(status));
            return status < NVML_ERROR_UNKNOWN ? (int)status : EXIT_OTHER;
        }
        if (is_wanted(wanted, &one)) {
            devices[(*count)++] = one;
        }
    }
    if (!*count) {
        puts("No devices were found");
        return EXIT_NO_DEVICES;
    }
    return EXIT_SUCCESS;
}

void smi_list(const struct device *devices, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        char name[96] = "", uuid[96] = "";
        unsigned most = 0;
        nvmlDevice_t mig;
        nvml.nvmlDeviceGetName(devices[i].handle, name, sizeof name);
        nvml.nvmlDeviceGetUUID(devices[i].handle, uuid, sizeof uuid);
        printf("GPU %u: %s (UUID: %s)\n", devices[i].index, name, uuid);
        nvml.nvmlDeviceGetMaxMigDeviceCount(devices[i].handle, &most);
        for (unsigned j = 0; j < most && !nvml.nvmlDeviceGetMigDeviceHandleByIndex(devices[i].handle, j, &mig); j++) {
            nvml.nvmlDeviceGetName(mig, name, sizeof name);
            nvml.nvmlDeviceGetUUID(mig, uuid, sizeof uuid);
            const char *profile = strstr(name, "MIG ");
            printf("  MIG %-11s Device  %u: (UUID: %s)\n", profile ? profile + 4 : name, j, uuid);
        }
    }
}
