/* nvidia-smi over the mock: what its files share. It is linked with nothing but libc, so that it runs in any container. */
#ifndef RIG_SMI_H
#define RIG_SMI_H

#include <stdbool.h>

#include "abi.h"

/* The part of NVML that it calls, found by dlopen as the real one does. */
#define SMI_API(X)                                                                                  \
    X(nvmlInit_v2, (void))                                                                          \
    X(nvmlSystemGetDriverVersion, (char *, unsigned))                                               \
    X(nvmlSystemGetNVMLVersion, (char *, unsigned))                                                 \
    X(nvmlSystemGetCudaDriverVersion_v2, (int *))                                                   \
    X(nvmlSystemGetProcessName, (unsigned, char *, unsigned))                                       \
    X(nvmlDeviceGetCount_v2, (unsigned *))                                                          \
    X(nvmlDeviceGetHandleByIndex_v2, (unsigned, nvmlDevice_t *))                                    \
    X(nvmlDeviceGetName, (nvmlDevice_t, char *, unsigned))                                          \
    X(nvmlDeviceGetUUID, (nvmlDevice_t, char *, unsigned))                                          \
    X(nvmlDeviceGetSerial, (nvmlDevice_t, char *, unsigned))                                        \
    X(nvmlDeviceGetVbiosVersion, (nvmlDevice_t, char *, unsigned))                                  \
    X(nvmlDeviceGetPciInfo_v3, (nvmlDevice_t, nvmlPciInfo_t *))                                     \
    X(nvmlDeviceGetCudaComputeCapability, (nvmlDevice_t, int *, int *))                             \
    X(nvmlDeviceGetMemoryInfo_v2, (nvmlDevice_t, nvmlMemory_v2_t *))                                \
    X(nvmlDeviceGetUtilizationRates, (nvmlDevice_t, nvmlUtilization_t *))                           \
    X(nvmlDeviceGetTemperature, (nvmlDevice_t, unsigned, unsigned *))                               \
    X(nvmlDeviceGetFieldValues, (nvmlDevice_t, int, nvmlFieldValue_t *))                            \
    X(nvmlDeviceGetClockInfo, (nvmlDevice_t, unsigned, unsigned *))                                 \
    X(nvmlDeviceGetMaxClockInfo, (nvmlDevice_t, unsigned, unsigned *))                              \
    X(nvmlDeviceGetCurrentClocksEventReasons, (nvmlDevice_t, unsigned long long *))                 \
    X(nvmlDeviceGetTotalEccErrors, (nvmlDevice_t, unsigned, unsigned, unsigned long long *))        \
    X(nvmlDeviceGetEccMode, (nvmlDevice_t, unsigned *, unsigned *))                                 \
    X(nvmlDeviceGetMigMode, (nvmlDevice_t, unsigned *, unsigned *))                                 \
    X(nvmlDeviceGetPowerManagementLimitConstraints, (nvmlDevice_t, unsigned *, unsigned *))         \
    X(nvmlDeviceGetMaxMigDeviceCount, (nvmlDevice_t, unsigned *))                                   \
    X(nvmlDeviceGetMigDeviceHandleByIndex, (nvmlDevice_t, unsigned, nvmlDevice_t *))                \
    X(nvmlDeviceGetComputeRunningProcesses_v3, (nvmlDevice_t, unsigned *, nvmlProcessInfo_t *))     \
    X(nvmlDeviceGetGraphicsRunningProcesses_v3, (nvmlDevice_t, unsigned *, nvmlProcessInfo_t *))    \
    X(vaultcube_rig_bus_id, (unsigned, char *, unsigned))

#define AS_POINTER(name, arguments) nvmlReturn_t(*name) arguments;
struct api {
    SMI_API(AS_POINTER)
    const char *(*nvmlErrorString)(nvmlReturn_t);
    /* For readings that are one number each: by the name of the call. */
    nvmlReturn_t (*uint)(const char *call, nvmlDevice_t device, unsigned *out);
};
extern struct api nvml;

enum { EXIT_USAGE = 2, EXIT_NO_DEVICES = 6, EXIT_NO_DRIVER = 9, EXIT_NO_LIBRARY = 12, EXIT_OTHER = 255 };
enum { MAX_DEVICES = 32, MAX_LISTED = 64 };

struct device {
    unsigned index;
    nvmlDevice_t handle;
};

struct format {
    bool header, units;
};

/* smi_nvml.c: these print what the real one prints, and give its exit code; 0 is success. */
int smi_start(void);
int smi_devices(const char *wanted, struct device *devices, unsigned *count);

/* smi_query.c, smi_apps.c, smi_table.c */
int smi_query(const char *fields, struct format format, const struct device *devices, unsigned count);
int smi_apps(const char *fields, struct format format, const struct device *devices, unsigned count);
void smi_table(const struct device *devices, unsigned count);
void smi_list(const struct device *devices, unsigned count);
/* "[N/A]" for what is not supported, else the error in brackets. */
void smi_error(nvmlReturn_t status, char *out, unsigned size);
/* Cuts the next name off a list at its comma; NULL at its end. */
char *smi_next(char **list);

#endif
