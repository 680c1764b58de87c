/* nvidia-smi without arguments: the table that everyone knows, with a line that says what it is. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "smi.h"

#define RULE "+-----------------------------------------+------------------------+----------------------+"
#define WIDE "+-----------------------------------------------------------------------------------------+"

/* A number with what stands around it, or N/A. */
static const char *shown(char *out, unsigned size, nvmlReturn_t status, unsigned value, const char *before,
                         const char *after) {
    if (status == NVML_ERROR_NOT_SUPPORTED) {
        snprintf(out, size, "N/A");
    } else if (status) {
        snprintf(out, size, "ERR!");
    } else {
        snprintf(out, size, "%s%u%s", before, value, after);
    }
    return out;
}

static const char *reading(char *out, unsigned size, const char *call, nvmlDevice_t device, unsigned divisor,
                           const char *before, const char *after) {
    unsigned value = 0;
    nvmlReturn_t status = nvml.uint(call, device, &value);
    return shown(out, size, status, value / divisor, before, after);
}

static void row(const struct device *device) {
    char name[96] = "", fan[16], temperature[16], pstate[16], draw[16], cap[16], ecc[24], mig[16], util[16], memory[48];
    unsigned value = 0, other = 0, persistence = 0, active = 0;
    unsigned long long errors = 0;
    nvmlPciInfo_t pci = {0};
    nvmlUtilization_t rates = {0, 0};
    nvmlMemory_v2_t used = {.version = STRUCT_VERSION(nvmlMemory_v2_t, 2)};
    nvmlDevice_t gpu = device->handle;
    nvml.nvmlDeviceGetName(gpu, name, sizeof name);
    nvml.nvmlDeviceGetPciInfo_v3(gpu, &pci);
    nvml.uint("nvmlDeviceGetPersistenceMode", gpu, &persistence);
    nvml.uint("nvmlDeviceGetDisplayActive", gpu, &active);
    nvmlReturn_t status = nvml.nvmlDeviceGetTotalEccErrors(gpu, 1, 0, &errors);
    shown(ecc, sizeof ecc, status, (unsigned)errors, "", "");
    printf("|%4u  %-27.27s %6s | %18s %3s | %20s |\n", device->index, name, persistence ? "On" : "Off", pci.busId,
           active ? "On" : "Off", ecc);

    status = nvml.nvmlDeviceGetTemperature(gpu, 0, &value);
    shown(temperature, sizeof temperature, status, value, "", "C");
    status = nvml.nvmlDeviceGetUtilizationRates(gpu, &rates);
    shown(util, sizeof util, status, rates.gpu, "", "%");
    nvml.nvmlDeviceGetMemoryInfo_v2(gpu, &used);
    snprintf(memory, sizeof memory, "%6lluMiB / %6lluMiB", used.used >> 20, used.total >> 20);
    printf("|%4s %5s %5s %15s / %5s | %22s | %7s %12s |\n",
           reading(fan, sizeof fan, "nvmlDeviceGetFanSpeed", gpu, 1, "", "%"), temperature,
           reading(pstate, sizeof pstate, "nvmlDeviceGetPerformanceState", gpu, 1, "P", ""),
           reading(draw, sizeof draw, "nvmlDeviceGetPowerUsage", gpu, 1000, "", "W"),
           reading(cap, sizeof cap, "nvmlDeviceGetEnforcedPowerLimit", gpu, 1000, "", "W"), memory, util, "Default");

    status = nvml.nvmlDeviceGetMigMode(gpu, &value, &other);
    shown(mig, sizeof mig, status, value, "", "");
    printf("|%41s|%24s| %20s |\n%s\n", "", "", status ? mig : value ? "Enabled" : "Disabled", RULE);
}

static unsigned processes(const struct device *device, const char *type,
                          nvmlReturn_t (*list)(nvmlDevice_t, unsigned *, nvmlProcessInfo_t *)) {
    nvmlProcessInfo_t found[MAX_LISTED];
    unsigned count = MAX_LISTED;
    if (list(device->handle, &count, found)) {
        return 0;
    }
    for (unsigned i = 0; i < count; i++) {
        char name[64] = "";
        nvml.nvmlSystemGetProcessName(found[i].pid, name, sizeof name);
        printf("|%5u   N/A  N/A %16u %6s   %-33.33s %8lluMiB |\n", device->index, found[i].pid, type, name,
               found[i].usedGpuMemory >> 20);
    }
    return count;
}

void smi_table(const struct device *devices, unsigned count) {
    char driver[80] = "", now[64];
    int cuda = 0;
    unsigned found = 0;
    time_t seconds = time(NULL);
    struct tm parts;
    strftime(now, sizeof now, "%a %b %e %H:%M:%S %Y", localtime_r(&seconds, &parts));
    nvml.nvmlSystemGetDriverVersion(driver, sizeof driver);
    nvml.nvmlSystemGetCudaDriverVersion_v2(&cuda);
    printf("%s       \n%s\n", now, WIDE);
    printf("| NVIDIA-SMI %-22s Driver Version: %-14s CUDA Version: %d.%-5d |\n%s\n", driver, driver, cuda / 1000,
           cuda % 1000 / 10, RULE);
    puts("| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |");
    puts("| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |");
    puts("|                                         |                        |               MIG M. |");
    puts("|=========================================+========================+======================|");
    for (unsigned i = 0; i < count; i++) {
        row(&devices[i]);
    }
    printf("\n%s\n", WIDE);
    puts("| Processes:                                                                              |");
    puts("|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |");
    puts("|        ID   ID                                                               Usage      |");
    puts("|=========================================================================================|");
    for (unsigned i = 0; i < count; i++) {
        found += processes(&devices[i], "C", nvml.nvmlDeviceGetComputeRunningProcesses_v3);
        found += processes(&devices[i], "G", nvml.nvmlDeviceGetGraphicsRunningProcesses_v3);
    }
    if (!found) {
        puts("|  No running processes found                                                             |");
    }
    puts(WIDE);
    puts("Simulated: there is no such hardware here.");
}
