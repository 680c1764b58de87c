/* --query-gpu: one line a GPU, one column a field, under NVIDIA's names. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "smi.h"

enum kind {
    TIMESTAMP, DRIVER, COUNT, INDEX, NAME, UUID, SERIAL, VBIOS, BUS_ID, COMPUTE_CAP,
    MEMORY_TOTAL, MEMORY_USED, MEMORY_FREE, MEMORY_RESERVED, UTIL_GPU, UTIL_MEMORY,
    TEMPERATURE, FIELD_UINT, MIN_LIMIT, MAX_LIMIT, CLOCK, CLOCK_MAX, REASONS,
    ECC_MODE, MIG_MODE, ECC_VOLATILE, PLAIN, MILLIWATTS, PSTATE, ON_OFF, COMPUTE_MODE
};

/* `call` is for readings of one number; `argument` is a clock, a field, or the kind of an ECC error. */
static const struct field {
    const char *name, *alias, *unit;
    enum kind kind;
    unsigned argument;
    const char *call;
} fields[] = {
    {"timestamp", NULL, NULL, TIMESTAMP, 0, NULL},
    {"driver_version", NULL, NULL, DRIVER, 0, NULL},
    {"count", NULL, NULL, COUNT, 0, NULL},
    {"index", NULL, NULL, INDEX, 0, NULL},
    {"name", "gpu_name", NULL, NAME, 0, NULL},
    {"uuid", "gpu_uuid", NULL, UUID, 0, NULL},
    {"serial", "gpu_serial", NULL, SERIAL, 0, NULL},
    {"vbios_version", NULL, NULL, VBIOS, 0, NULL},
    {"pci.bus_id", "gpu_bus_id", NULL, BUS_ID, 0, NULL},
    {"compute_cap", NULL, NULL, COMPUTE_CAP, 0, NULL},
    {"memory.total", NULL, "MiB", MEMORY_TOTAL, 0, NULL},
    {"memory.reserved", NULL, "MiB", MEMORY_RESERVED, 0, NULL},
    {"memory.used", NULL, "MiB", MEMORY_USED, 0, NULL},
    {"memory.free", NULL, "MiB", MEMORY_FREE, 0, NULL},
    {"utilization.gpu", NULL, "%", UTIL_GPU, 0, NULL},
    {"utilization.memory", NULL, "%", UTIL_MEMORY, 0, NULL},
    {"temperature.gpu", NULL, NULL, TEMPERATURE, 0, NULL},
    {"temperature.memory", NULL, NULL, FIELD_UINT, 82, NULL},
    {"power.draw", NULL, "W", MILLIWATTS, 0, "nvmlDeviceGetPowerUsage"},
    {"power.limit", NULL, "W", MILLIWATTS, 0, "nvmlDeviceGetPowerManagementLimit"},
    {"enforced.power.limit", NULL, "W", MILLIWATTS, 0, "nvmlDeviceGetEnforcedPowerLimit"},
    {"power.default_limit", NULL, "W", MILLIWATTS, 0, "nvmlDeviceGetPowerManagementDefaultLimit"},
    {"power.min_limit", NULL, "W", MIN_LIMIT, 0, NULL},
    {"power.max_limit", NULL, "W", MAX_LIMIT, 0, NULL},
    {"clocks.current.graphics", "clocks.gr", "MHz", CLOCK, CLOCK_GRAPHICS, NULL},
    {"clocks.current.sm", "clocks.sm", "MHz", CLOCK, CLOCK_SM, NULL},
    {"clocks.current.memory", "clocks.mem", "MHz", CLOCK, CLOCK_MEM, NULL},
    {"clocks.current.video", "clocks.video", "MHz", CLOCK, CLOCK_VIDEO, NULL},
    {"clocks.max.graphics", "clocks.max.gr", "MHz", CLOCK_MAX, CLOCK_GRAPHICS, NULL},
    {"clocks.max.sm", NULL, "MHz", CLOCK_MAX, CLOCK_SM, NULL},
    {"clocks.max.memory", "clocks.max.mem", "MHz", CLOCK_MAX, CLOCK_MEM, NULL},
    {"clocks_event_reasons.active", "clocks_throttle_reasons.active", NULL, REASONS, 0, NULL},
    {"fan.speed", NULL, "%", PLAIN, 0, "nvmlDeviceGetFanSpeed"},
    {"pstate", NULL, NULL, PSTATE, 0, "nvmlDeviceGetPerformanceState"},
    {"pcie.link.gen.current", "pcie.link.gen.gpucurrent", NULL, PLAIN, 0, "nvmlDeviceGetCurrPcieLinkGeneration"},
    {"pcie.link.gen.max", NULL, NULL, PLAIN, 0, "nvmlDeviceGetMaxPcieLinkGeneration"},
    {"pcie.link.width.current", NULL, NULL, PLAIN, 0, "nvmlDeviceGetCurrPcieLinkWidth"},
    {"pcie.link.width.max", NULL, NULL, PLAIN, 0, "nvmlDeviceGetMaxPcieLinkWidth"},
    {"persistence_mode", NULL, NULL, ON_OFF, 0, "nvmlDeviceGetPersistenceMode"},
    {"display_active", NULL, NULL, ON_OFF, 0, "nvmlDeviceGetDisplayActive"},
    {"compute_mode", NULL, NULL, COMPUTE_MODE, 0, "nvmlDeviceGetComputeMode"},
    {"ecc.mode.current", NULL, NULL, ECC_MODE, 0, NULL},
    {"mig.mode.current", NULL, NULL, MIG_MODE, 0, NULL},
    {"ecc.errors.corrected.volatile.total", NULL, NULL, ECC_VOLATILE, 0, NULL},
    {"ecc.errors.uncorrected.volatile.total", NULL, NULL, ECC_VOLATILE, 1, NULL},
};

static const struct field *field_called(const char *name) {
    for (unsigned i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (strcmp(fields[i].name, name) == 0 || (fields[i].alias && strcmp(fields[i].alias, name) == 0)) {
            return &fields[i];
        }
    }
    return NULL;
}

static nvmlReturn_t as_text(const struct field *field, const struct device *device, char *out, unsigned size) {
    nvmlReturn_t status = NVML_SUCCESS;
    nvmlPciInfo_t pci;
    int major, minor;
    unsigned all;
    switch (field->kind) {
    case TIMESTAMP: {
        struct timespec now;
        struct tm parts;
        clock_gettime(CLOCK_REALTIME, &now);
        localtime_r(&now.tv_sec, &parts);
        size_t length = strftime(out, size, "%Y/%m/%d %H:%M:%S", &parts);
        snprintf(out + length, size - length, ".%03d", (int)(now.tv_nsec / 1000000));
        return status;
    }
    case DRIVER:
        return nvml.nvmlSystemGetDriverVersion(out, size);
    case COUNT:
        status = nvml.nvmlDeviceGetCount_v2(&all);
        snprintf(out, size, "%u", all);
        return status;
    case INDEX:
        snprintf(out, size, "%u", device->index);
        return status;
    case NAME:
        return nvml.nvmlDeviceGetName(device->handle, out, size);
    case UUID:
        return nvml.nvmlDeviceGetUUID(device->handle, out, size);
    case SERIAL:
        return nvml.nvmlDeviceGetSerial(device->handle, out, size);
    case VBIOS:
        return nvml.nvmlDeviceGetVbiosVersion(device->handle, out, size);
    case BUS_ID:
        status = nvml.nvmlDeviceGetPciInfo_v3(device->handle, &pci);
        if (!status) {
            snprintf(out, size, "%s", pci.busId);
        }
        return status;
    default:
        status = nvml.nvmlDeviceGetCudaComputeCapability(device->handle, &major, &minor);
        if (!status) {
            snprintf(out, size, "%d.%d", major, minor);
        }
        return status;
    }
}

static nvmlReturn_t memory_of(const struct field *field, nvmlDevice_t device, unsigned long long *out) {
    nvmlMemory_v2_t memory = {.version = STRUCT_VERSION(nvmlMemory_v2_t, 2)};
    nvmlReturn_t status = nvml.nvmlDeviceGetMemoryInfo_v2(device, &memory);
    *out = (field->kind == MEMORY_TOTAL      ? memory.total
            : field->kind == MEMORY_USED     ? memory.used
            : field->kind == MEMORY_RESERVED ? memory.reserved
                                             : memory.free) >>
           20;
    return status;
}

static nvmlReturn_t as_number(const struct field *field, nvmlDevice_t device, unsigned long long *out) {
    unsigned value = 0, other = 0;
    nvmlReturn_t status;
    nvmlUtilization_t rates = {0, 0};
    nvmlFieldValue_t reading = {.fieldId = field->argument};
    switch (field->kind) {
    case MEMORY_TOTAL:
    case MEMORY_USED:
    case MEMORY_FREE:
    case MEMORY_RESERVED:
        return memory_of(field, device, out);
    case REASONS:
        return nvml.nvmlDeviceGetCurrentClocksEventReasons(device, out);
    case ECC_VOLATILE:
        return nvml.nvmlDeviceGetTotalEccErrors(device, field->argument, 0, out);
    case UTIL_GPU:
    case UTIL_MEMORY:
        status = nvml.nvmlDeviceGetUtilizationRates(device, &rates);
        value = field->kind == UTIL_GPU ? rates.gpu : rates.memory;
        break;
    case TEMPERATURE:
        status = nvml.nvmlDeviceGetTemperature(device, 0, &value);
        break;
    case FIELD_UINT:
        status = nvml.nvmlDeviceGetFieldValues(device, 1, &reading);
        status = status ? status : reading.nvmlReturn;
        value = reading.value.uiVal;
        break;
    case MIN_LIMIT:
        status = nvml.nvmlDeviceGetPowerManagementLimitConstraints(device, &value, &other);
        break;
    case MAX_LIMIT:
        status = nvml.nvmlDeviceGetPowerManagementLimitConstraints(device, &other, &value);
        break;
    case CLOCK:
        status = nvml.nvmlDeviceGetClockInfo(device, field->argument, &value);
        break;
    case CLOCK_MAX:
        status = nvml.nvmlDeviceGetMaxClockInfo(device, field->argument, &value);
        break;
    case ECC_MODE:
        status = nvml.nvmlDeviceGetEccMode(device, &value, &other);
        break;
    case MIG_MODE:
        status = nvml.nvmlDeviceGetMigMode(device, &value, &other);
        break;
    default:
        status = nvml.uint(field->call, device, &value);
    }
    *out = value;
    return status;
}

static void print_number(const struct field *field, unsigned long long value, char *out, unsigned size) {
    static const char *const modes[] = {"Default", "Exclusive_Thread", "Prohibited", "Exclusive_Process"};
    switch (field->kind) {
    case MILLIWATTS:
    case MIN_LIMIT:
    case MAX_LIMIT:
        snprintf(out, size, "%llu.%02llu", value / 1000, value % 1000 / 10);
        return;
    case REASONS:
        snprintf(out, size, "0x%016llX", value);
        return;
    case PSTATE:
        snprintf(out, size, "P%llu", value);
        return;
    case ON_OFF:
    case ECC_MODE:
    case MIG_MODE:
        snprintf(out, size, "%s", value ? "Enabled" : "Disabled");
        return;
    case COMPUTE_MODE:
        snprintf(out, size, "%s", modes[value & 3]);
        return;
    default:
        snprintf(out, size, "%llu", value);
    }
}

static void print_field(const struct field *field, const struct device *device, bool units) {
    char out[128];
    unsigned long long value = 0;
    nvmlReturn_t status = field->kind <= COMPUTE_CAP ? as_text(field, device, out, sizeof out)
                                                     : as_number(field, device->handle, &value);
    if (status) {
        smi_error(status, out, sizeof out);
    } else if (field->kind > COMPUTE_CAP) {
        print_number(field, value, out, sizeof out);
    }
    printf("%s%s%s", out, units && !status && field->unit ? " " : "", units && !status && field->unit ? field->unit : "");
}

int smi_query(const char *names, struct format format, const struct device *devices, unsigned count) {
    const struct field *chosen[MAX_LISTED];
    char copy[2048];
    char *list = copy, *word;
    unsigned columns = 0;
    snprintf(copy, sizeof copy, "%s", names);
    while ((word = smi_next(&list))) {
        const struct field *field = field_called(word);
        if (!field || columns == MAX_LISTED) {
            printf("Field \"%s\" is not a valid field to query.\n\n", word);
            return EXIT_USAGE;
        }
        chosen[columns++] = field;
    }
    for (unsigned j = 0; format.header && j < columns; j++) {
        const struct field *field = chosen[j];
        bool unit = format.units && field->unit;
        printf("%s%s%s%s%s", j ? ", " : "", field->name, unit ? " [" : "", unit ? field->unit : "", unit ? "]" : "");
    }
    if (format.header) {
        putchar('\n');
    }
    for (unsigned i = 0; i < count; i++) {
        for (unsigned j = 0; j < columns; j++) {
            fputs(j ? ", " : "", stdout);
            print_field(chosen[j], &devices[i], format.units);
        }
        putchar('\n');
    }
    return EXIT_SUCCESS;
}
