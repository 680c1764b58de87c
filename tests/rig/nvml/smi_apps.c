/* --query-compute-apps: one line a process. */
#include <stdio.h>
#include <string.h>

#include "smi.h"

enum column { GPU_UUID, GPU_NAME, GPU_BUS_ID, PID, PROCESS_NAME, USED_MEMORY };

static const struct {
    const char *name, *alias, *unit;
    enum column column;
} columns[] = {
    {"gpu_uuid", NULL, NULL, GPU_UUID},          {"gpu_name", NULL, NULL, GPU_NAME},
    {"gpu_bus_id", NULL, NULL, GPU_BUS_ID},      {"pid", NULL, NULL, PID},
    {"process_name", "name", NULL, PROCESS_NAME}, {"used_gpu_memory", "used_memory", "MiB", USED_MEMORY},
};

static int column_called(const char *name) {
    for (unsigned i = 0; i < sizeof columns / sizeof *columns; i++) {
        if (strcmp(columns[i].name, name) == 0 || (columns[i].alias && strcmp(columns[i].alias, name) == 0)) {
            return (int)i;
        }
    }
    return -1;
}

static void print_column(enum column column, nvmlDevice_t device, const nvmlProcessInfo_t *process, bool units) {
    char out[256] = "";
    nvmlPciInfo_t pci = {0};
    switch (column) {
    case GPU_UUID:
        nvml.nvmlDeviceGetUUID(device, out, sizeof out);
        break;
    case GPU_NAME:
        nvml.nvmlDeviceGetName(device, out, sizeof out);
        break;
    case GPU_BUS_ID:
        nvml.nvmlDeviceGetPciInfo_v3(device, &pci);
        snprintf(out, sizeof out, "%s", pci.busId);
        break;
    case PID:
        snprintf(out, sizeof out, "%u", process->pid);
        break;
    case PROCESS_NAME:
        if (nvml.nvmlSystemGetProcessName(process->pid, out, sizeof out)) {
            snprintf(out, sizeof out, "[Not Found]");
        }
        break;
    case USED_MEMORY:
        snprintf(out, sizeof out, "%llu%s", process->usedGpuMemory >> 20, units ? " MiB" : "");
        break;
    }
    fputs(out, stdout);
}

int smi_apps(const char *names, struct format format, const struct device *devices, unsigned count) {
    unsigned chosen[MAX_LISTED], width = 0;
    char copy[2048];
    char *list = copy, *word;
    snprintf(copy, sizeof copy, "%s", names);
    while ((word = smi_next(&list))) {
        int column = column_called(word);
        if (column < 0 || width == MAX_LISTED) {
            printf("Field \"%s\" is not a valid field to query.\n\n", word);
            return EXIT_USAGE;
        }
        chosen[width++] = (unsigned)column;
    }
    for (unsigned j = 0; format.header && j < width; j++) {
        bool unit = format.units && columns[chosen[j]].unit;
        printf("%s%s%s", j ? ", " : "", columns[chosen[j]].name, unit ? " [MiB]" : "");
    }
    if (format.header) {
        putchar('\n');
    }
    for (unsigned i = 0; i < count; i++) {
        nvmlProcessInfo_t processes[MAX_LISTED];
        unsigned found = MAX_LISTED;
        if (nvml.nvmlDeviceGetComputeRunningProcesses_v3(devices[i].handle, &found, processes)) {
            continue;
        }
        for (unsigned k = 0; k < found; k++) {
            for (unsigned j = 0; j < width; j++) {
                fputs(j ? ", " : "", stdout);
                print_column(columns[chosen[j]].column, devices[i].handle, &processes[k], format.units);
            }
            putchar('\n');
        }
    }
    return 0;
}
