/* Event sets: a waiter gets the Xids that a registered GPU reported after it was registered. */
#include <stdlib.h>

#include "rig.h"

#define MAGIC 0x56435845u

struct event_set {
    unsigned magic;
    long long seen; /* the last sequence number that was handed out */
    bool registered[MAX_GPUS];
    long long since[MAX_GPUS];
};

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *out) {
    struct system system;
    nvmlReturn_t status = out ? rig_system(&system) : NVML_ERROR_INVALID_ARGUMENT;
    if (status) {
        return status;
    }
    struct event_set *set = calloc(1, sizeof *set);
    if (!set) {
        return NVML_ERROR_MEMORY;
    }
    set->magic = MAGIC;
    *out = set;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
    struct system system;
    nvmlReturn_t status = set && set->magic == MAGIC ? rig_system(&system) : NVML_ERROR_INVALID_ARGUMENT;
    if (!status) {
        set->magic = 0;
        free(set);
    }
    return status;
}

nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *types) {
    long long value;
    nvmlReturn_t status = types ? rig_number(device, GPU_event_types, &value) : NVML_ERROR_INVALID_ARGUMENT;
    if (!status) {
        *types = (unsigned long long)value;
    }
    return status;
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set) {
    long long supported, last;
    if (!set || set->magic != MAGIC) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    nvmlReturn_t status = rig_number(device, GPU_event_types, &supported);
    if (status) {
        return status;
    }
    if (types & ~(unsigned long long)supported) {
        return NVML_ERROR_NOT_SUPPORTED;
    }
    status = rig_last_event(&last);
    if (!status && types & EVENT_XID) {
        set->registered[device->gpu] = true;
        set->since[device->gpu] = last;
    }
    return status;
}

static bool wanted(const struct event *event, void *context) {
    const struct event_set *set = context;
    return event->gpu < MAX_GPUS && set->registered[event->gpu] && event->sequence > set->since[event->gpu];
}

/* What was reported comes first; then a registered GPU that is gone ends the wait with its own error. */
static nvmlReturn_t look(struct event_set *set, nvmlEventData_t *data) {
    struct event event;
    nvmlDevice_t device;
    nvmlReturn_t status = rig_next_event(wanted, set, set->seen, &event, &device);
    if (!status) {
        set->seen = event.sequence;
        *data = (nvmlEventData_t){device, EVENT_XID, event.xid, NO_INSTANCE, NO_INSTANCE};
    }
    return status == NVML_ERROR_NOT_FOUND && rig_any_lost(set->registered) ? NVML_ERROR_GPU_IS_LOST : status;
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned timeout_ms) {
    if (!set || set->magic != MAGIC || !data) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    long long until = now_ns() + timeout_ms * 1000000LL;
    for (;;) {
        nvmlReturn_t status = look(set, data);
        if (status != NVML_ERROR_NOT_FOUND) {
            return status;
        }
        long long left_ms = (until - now_ns() + 999999) / 1000000;
        if (left_ms <= 0) {
            return NVML_ERROR_TIMEOUT;
        }
        /* Nothing can change before the scenario is due to be read again. */
        long long due_ms = rig_reread_ms();
        pause_ms(left_ms < due_ms ? left_ms : due_ms);
    }
}

nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *data, unsigned timeout_ms) {
    return nvmlEventSetWait_v2(set, data, timeout_ms);
}
