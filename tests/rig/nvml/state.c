/* The library's one state: the scenario as last read, who initialised, which GPUs this process may see. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rig.h"

/* Where the hook and the CDI spec mount the box and say which GPUs a container was given. */
#define DEFAULT_BOX "/run/vaultcube-rig"
#define DEFAULT_MARKERS "/run/vaultcube-rig-gpus"
#define LARGEST_SCENARIO (256 * 1024)
#define DEFAULT_REREAD_MS 1000

int vaultcube_rig_simulated = 1;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct scenario buffers[2];
static struct scenario *current; /* NULL until a whole scenario was read */
static struct stat seen;
static long long checked_ns;
static unsigned references;
static unsigned visible[MAX_GPUS], visible_count;
static bool lost_at_init[MAX_GPUS];
static struct handle handles[MAX_GPUS][1 + MAX_MIG];

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static bool marked(const char *markers, const struct gpu *gpu) {
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/%s", markers, gpu->texts[GPU_TEXT_uuid].value);
    return length > 0 && (size_t)length < sizeof path && access(path, F_OK) == 0;
}

/* In a container only the pinned GPUs are there, counted from 0. Without markers, all are. */
static void find_visible(void) {
    const char *markers = setting("VAULTCUBE_RIG_GPUS", DEFAULT_MARKERS);
    bool all = access(markers, F_OK) != 0;
    visible_count = 0;
    for (unsigned i = 0; i < current->gpu_count; i++) {
        if (all || marked(markers, &current->gpus[i])) {
            visible[visible_count++] = i;
        }
    }
}

static bool same_file(const struct stat *a, const struct stat *b) {
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* The file's text, with a 0 at its end; NULL when it cannot be read whole. */
static char *read_file(const char *path, struct stat *found) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return NULL;
    }
    char *text = NULL;
    size_t length = 0;
    if (fstat(file, found) == 0 && found->st_size <= LARGEST_SCENARIO) {
        size_t size = (size_t)found->st_size;
        text = malloc(size + 1);
        while (text && length < size) {
            ssize_t got = read(file, text + length, size - length);
            if (got < 0 && errno == EINTR) {
                continue;
            }
            if (got <= 0) {
                break;
            }
            length += (size_t)got;
        }
        if (text) {
            text[length] = '\0';
        }
    }
    close(file);
    return text;
}

static long long reread_ms(void) {
    long long wanted = current ? current->system.numbers[SYSTEM_reread_ms].value : 0;
    return wanted > 0 ? wanted : DEFAULT_REREAD_MS;
}

/* Reads the scenario again when it is due and has changed. A file that is gone or not whole changes nothing. */
static void reread(bool force) {
    long long now = now_ns();
    if (!force && now - checked_ns < reread_ms() * 1000000) {
        return;
    }
    checked_ns = now;
    char path[4096];
    struct stat found;
    int length = snprintf(path, sizeof path, "%s/state/scenario.ini", setting("VAULTCUBE_RIG", DEFAULT_BOX));
    if (length < 0 || (size_t)length >= sizeof path || stat(path, &found) || (current && same_file(&found, &seen))) {
        return;
    }
    char *text = read_file(path, &found);
    struct scenario *other = current == &buffers[0] ? &buffers[1] : &buffers[0];
    if (text && scenario_parse(text, other)) {
        current = other;
        seen = found;
        find_visible();
    }
    free(text);
}

static nvmlReturn_t ready(void) {
    if (!references) {
        return NVML_ERROR_UNINITIALIZED;
    }
    reread(false);
    return (nvmlReturn_t)current->system.numbers[SYSTEM_query_error].value;
}

static bool is_lost(unsigned gpu) {
    return gpu >= current->gpu_count || current->gpus[gpu].numbers[GPU_lost].value;
}

nvmlReturn_t rig_init(void) {
    nvmlReturn_t status = NVML_ERROR_DRIVER_NOT_LOADED;
    pthread_mutex_lock(&lock);
    if (!references) {
        current = NULL;
        reread(true);
    } else {
        reread(false);
    }
    if (current) {
        status = (nvmlReturn_t)current->system.numbers[SYSTEM_init_error].value;
    }
    if (!status && !references++) {
        for (unsigned i = 0; i < MAX_GPUS; i++) {
            lost_at_init[i] = i < current->gpu_count && is_lost(i);
            for (unsigned mig = 0; mig <= MAX_MIG; mig++) {
                handles[i][mig] = (struct handle){i, mig};
            }
        }
    }
    pthread_mutex_unlock(&lock);
    return status;
}

nvmlReturn_t rig_shutdown(void) {
    pthread_mutex_lock(&lock);
    nvmlReturn_t status = references ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
    if (references) {
        references--;
    }
    pthread_mutex_unlock(&lock);
    return status;
}

/* A pointer that did not come from here is an argument error, as in the real library, not a crash. */
static const struct handle *checked(nvmlDevice_t device) {
    const char *base = (const char *)handles, *at = (const char *)device;
    if (!device || at < base || at >= base + sizeof handles || (size_t)(at - base) % sizeof **handles) {
        return NULL;
    }
    return device;
}

/* Waits out a driver that hangs and the latency that was asked for, both without the lock. */
static nvmlReturn_t query(nvmlDevice_t device, struct system *system, struct gpu *copy, unsigned *mig) {
    for (;;) {
        long long latency = 0;
        bool hang = false;
        pthread_mutex_lock(&lock);
        nvmlReturn_t status = ready();
        if (!status) {
            const struct system *now = &current->system;
            hang = now->numbers[SYSTEM_hang].value;
            latency = now->numbers[SYSTEM_latency_ms].value;
            if (system) {
                *system = *now;
            }
        }
        if (!status && copy) {
            const struct handle *handle = checked(device);
            if (!handle) {
                status = NVML_ERROR_INVALID_ARGUMENT;
            } else if (is_lost(handle->gpu)) {
                status = NVML_ERROR_GPU_IS_LOST;
            } else {
                *copy = current->gpus[handle->gpu];
                *mig = handle->mig;
                hang |= copy->numbers[GPU_hang].value != 0;
                latency += copy->numbers[GPU_latency_ms].value;
                at_this_moment(copy, &current->system, now_ns());
                if (*mig > (unsigned)copy->numbers[GPU_mig_devices].value) {
                    status = NVML_ERROR_NOT_FOUND;
                }
            }
        }
        pthread_mutex_unlock(&lock);
        if (status || !hang) {
            if (latency > 0) {
                pause_ms(latency);
            }
            return status;
        }
        pause_ms(20);
    }
}

nvmlReturn_t rig_system(struct system *copy) {
    return query(NULL, copy, NULL, NULL);
}

/* For what the real library answers before nvmlInit too. */
void rig_system_uninitialised(struct system *copy) {
    memset(copy, 0, sizeof *copy);
    pthread_mutex_lock(&lock);
    reread(!current);
    if (current) {
        *copy = current->system;
    }
    pthread_mutex_unlock(&lock);
}

nvmlReturn_t rig_gpu_or_mig(nvmlDevice_t device, struct gpu *copy, unsigned *mig) {
    return query(device, NULL, copy, mig);
}

nvmlReturn_t rig_gpu(nvmlDevice_t device, struct gpu *copy) {
    unsigned mig;
    nvmlReturn_t status = query(device, NULL, copy, &mig);
    return status ? status : mig ? NVML_ERROR_NOT_SUPPORTED : NVML_SUCCESS;
}

nvmlReturn_t rig_count(unsigned *count) {
    pthread_mutex_lock(&lock);
    nvmlReturn_t status = ready();
    if (!status) {
        *count = visible_count;
    }
    pthread_mutex_unlock(&lock);
    return status;
}

/* A GPU that was lost before nvmlInit could not be attached, which the driver calls an unknown error;
 * one lost since is known to be lost. */
static nvmlReturn_t hand_out(unsigned gpu, nvmlDevice_t *device) {
    if (is_lost(gpu)) {
        return lost_at_init[gpu] ? NVML_ERROR_UNKNOWN : NVML_ERROR_GPU_IS_LOST;
    }
    *device = &handles[gpu][0];
    return NVML_SUCCESS;
}

/* Where a GPU sits whose handle cannot be had: the real nvidia-smi knows, and ours asks here. */
nvmlReturn_t vaultcube_rig_bus_id(unsigned index, char *out, unsigned length) {
    pthread_mutex_lock(&lock);
    nvmlReturn_t status = ready();
    if (!status) {
        status = index < visible_count ? copy_text(&current->gpus[visible[index]].texts[GPU_TEXT_bus_id], out, length)
                                       : NVML_ERROR_INVALID_ARGUMENT;
    }
    pthread_mutex_unlock(&lock);
    return status;
}

nvmlReturn_t rig_by_index(unsigned index, nvmlDevice_t *device) {
    pthread_mutex_lock(&lock);
    nvmlReturn_t status = ready();
    if (!status) {
        status = index < visible_count ? hand_out(visible[index], device) : NVML_ERROR_INVALID_ARGUMENT;
    }
    pthread_mutex_unlock(&lock);
    return status;
}

nvmlReturn_t rig_by_match(bool (*match)(const struct gpu *, const void *), const void *wanted, nvmlDevice_t *device) {
    pthread_mutex_lock(&lock);
    nvmlReturn_t status = ready();
    if (!status) {
        status = NVML_ERROR_NOT_FOUND;
        for (unsigned i = 0; i < visible_count && status == NVML_ERROR_NOT_FOUND; i++) {
            if (match(&current->gpus[visible[i]], wanted)) {
                status = hand_out(visible[i], device);
            }
        }
    }
    pthread_mutex_unlock(&lock);
    return status;
}

nvmlReturn_t rig_index(nvmlDevice_t device, unsigned *index) {
    pthread_mutex_lock(&lock);
    nvmlReturn_t status = ready();
    const struct handle *handle = checked(device);
    if (!status && !handle) {
        status = NVML_ERROR_INVALID_ARGUMENT;
    }
    if (!status && is_lost(handle->gpu)) {
        status = NVML_ERROR_GPU_IS_LOST;
    }
    for (unsigned i = 0; !status && i < visible_count; i++) {
        if (visible[i] == handle->gpu) {
            *index = i;
        }
    }
    pthread_mutex_unlock(&lock);
    return status;
}

/* MIG device `mig` (0 is the GPU itself) of the GPU that a handle belongs to. */
nvmlReturn_t rig_mig_handle(nvmlDevice_t device, unsigned mig, nvmlDevice_t *out) {
    struct gpu gpu;
    unsigned own;
    nvmlReturn_t status = rig_gpu_or_mig(device, &gpu, &own);
    if (status) {
        return status;
    }
    if (mig > (unsigned)gpu.numbers[GPU_mig_devices].value) {
        return NVML_ERROR_NOT_FOUND;
    }
    *out = &handles[device->gpu][mig];
    return NVML_SUCCESS;
}

nvmlReturn_t rig_next_event(bool (*wanted)(const struct event *, void *), void *context, long long sequence,
                            struct event *event, nvmlDevice_t *device) {
    pthread_mutex_lock(&lock);
    nvmlReturn_t status = ready();
    if (!status) {
        status = NVML_ERROR_NOT_FOUND;
        for (unsigned i = 0; i < current->event_count && status == NVML_ERROR_NOT_FOUND; i++) {
            const struct event *one = &current->events[i];
            if (one->sequence > sequence && one->gpu < current->gpu_count && wanted(one, context)) {
                *event = *one;
                *device = &handles[one->gpu][0];
                status = NVML_SUCCESS;
            }
        }
    }
    pthread_mutex_unlock(&lock);
    return status;
}

bool rig_any_lost(const bool gpus[MAX_GPUS]) {
    bool lost = false;
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < MAX_GPUS; i++) {
        lost |= gpus[i] && is_lost(i);
    }
    pthread_mutex_unlock(&lock);
    return lost;
}

long long rig_reread_ms(void) {
    pthread_mutex_lock(&lock);
    long long wanted = reread_ms();
    pthread_mutex_unlock(&lock);
    return wanted;
}

nvmlReturn_t rig_last_event(long long *sequence) {
    pthread_mutex_lock(&lock);
    nvmlReturn_t status = ready();
    *sequence = 0;
    for (unsigned i = 0; !status && i < current->event_count; i++) {
        if (current->events[i].sequence > *sequence) {
            *sequence = current->events[i].sequence;
        }
    }
    pthread_mutex_unlock(&lock);
    return status;
}
