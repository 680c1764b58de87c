/*
 * Reads <box>/state/scenario.ini. An example with everything that has a form of its own:
 *
 *     [system]
 *     driver_version = 580.95.05
 *     cuda_version = 13000
 *     init_error = none              # or mismatch, permission, not_loaded, unknown: what nvmlInit answers
 *     query_error = none             # the same for every later call of a process that is already running
 *     reread_ms = 1000               # how old what a caller sees may be
 *     [gpu 0]
 *     name = NVIDIA GeForce RTX 5090
 *     power_mw = 12000               # numbers are integers, 0x4 is fine too
 *     ecc_mode = unsupported         # the same as leaving the line out
 *     fan_percent = permission       # this reading fails, the others do not; also lost, timeout, unknown
 *     process = compute 4242 1073741824 97 40     # kind, pid, bytes, SM %, memory %
 *     [gpu 1]
 *     ...                            # numbered from 0, in order
 *     [events]
 *     xid = 17 0 79                  # a sequence number that only grows, the GPU, the Xid
 *     [end]
 *
 * A file without its [end] is half written, one with an unknown key or a broken number is a mistake: both
 * are refused whole, so that a caller goes on seeing the last good state.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rig.h"

#define AS_NAME(key) #key,
static const char *const gpu_numbers[] = {GPU_NUMBERS(AS_NAME)};
static const char *const gpu_texts[] = {GPU_TEXTS(AS_NAME)};
static const char *const system_numbers[] = {SYSTEM_NUMBERS(AS_NAME)};
static const char *const system_texts[] = {SYSTEM_TEXTS(AS_NAME)};

static const struct {
    const char *word;
    nvmlReturn_t status;
} words[] = {
    {"none", NVML_SUCCESS},
    {"unsupported", NVML_ERROR_NOT_SUPPORTED},
    {"permission", NVML_ERROR_NO_PERMISSION},
    {"not_loaded", NVML_ERROR_DRIVER_NOT_LOADED},
    {"timeout", NVML_ERROR_TIMEOUT},
    {"lost", NVML_ERROR_GPU_IS_LOST},
    {"reset_required", NVML_ERROR_RESET_REQUIRED},
    {"mismatch", NVML_ERROR_LIB_RM_VERSION_MISMATCH},
    {"unknown", NVML_ERROR_UNKNOWN},
};

enum section { NOWHERE, IN_SYSTEM, IN_GPU, IN_EVENTS, AT_END };

static bool status_word(const char *text, nvmlReturn_t *status) {
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(text, words[i].word) == 0) {
            *status = words[i].status;
            return true;
        }
    }
    return false;
}

static int position(const char *const *keys, int count, const char *key) {
    for (int i = 0; i < count; i++) {
        if (strcmp(keys[i], key) == 0) {
            return i;
        }
    }
    return -1;
}

/* Takes one integer off the text; the rest must be nothing or begin with a space. */
static bool take_integer(char **text, long long *out) {
    char *end;
    errno = 0;
    *out = strtoll(*text, &end, 0);
    if (end == *text || errno || (*end != '\0' && *end != ' ')) {
        return false;
    }
    *text = end + strspn(end, " ");
    return true;
}

static bool set_number(struct number *number, char *value) {
    long long found;
    nvmlReturn_t status;
    if (status_word(value, &status)) {
        number->status = status;
        return status != NVML_SUCCESS;
    }
    if (!take_integer(&value, &found) || *value) {
        return false;
    }
    *number = (struct number){NVML_SUCCESS, found};
    return true;
}

static bool set_text(struct text *text, const char *value) {
    nvmlReturn_t status;
    if (status_word(value, &status)) {
        text->status = status;
        return status != NVML_SUCCESS;
    }
    if (strlen(value) >= sizeof text->value) {
        return false;
    }
    text->status = NVML_SUCCESS;
    strcpy(text->value, value);
    return true;
}

static bool add_process(struct gpu *gpu, char *value) {
    static const char *const kinds[] = {"compute", "graphics", "mps"};
    long long pid, bytes, sm = 0, memory = 0;
    size_t length = strcspn(value, " ");
    char kind[16] = "";
    if (gpu->process_count == MAX_PROCESSES || length >= sizeof kind) {
        return false;
    }
    memcpy(kind, value, length);
    value += length + strspn(value + length, " ");
    int which = position(kinds, 3, kind);
    if (which < 0 || !take_integer(&value, &pid) || !take_integer(&value, &bytes)) {
        return false;
    }
    if (*value && (!take_integer(&value, &sm) || !take_integer(&value, &memory) || *value)) {
        return false;
    }
    gpu->processes[gpu->process_count++] = (struct process){
        .kind = (enum process_kind)which,
        .pid = (unsigned)pid,
        .sm_percent = (unsigned)sm,
        .memory_percent = (unsigned)memory,
        .bytes = (unsigned long long)bytes,
    };
    return true;
}

static bool add_event(struct scenario *scenario, char *value) {
    long long sequence, gpu, xid;
    if (scenario->event_count == MAX_EVENTS || !take_integer(&value, &sequence) || !take_integer(&value, &gpu) ||
        !take_integer(&value, &xid) || *value) {
        return false;
    }
    scenario->events[scenario->event_count++] = (struct event){sequence, (unsigned)gpu, (unsigned)xid};
    return true;
}

/* A system's error words are values; elsewhere they are what reading the value gives. */
static bool set_system(struct system *system, const char *key, char *value) {
    int at = position(system_numbers, SYSTEM_NUMBER_COUNT, key);
    nvmlReturn_t status;
    if (at == SYSTEM_init_error || at == SYSTEM_query_error) {
        if (!status_word(value, &status)) {
            return false;
        }
        system->numbers[at] = (struct number){NVML_SUCCESS, status};
        return true;
    }
    if (at >= 0) {
        return set_number(&system->numbers[at], value);
    }
    at = position(system_texts, SYSTEM_TEXT_COUNT, key);
    return at >= 0 && set_text(&system->texts[at], value);
}

static bool set_gpu(struct gpu *gpu, const char *key, char *value) {
    if (strcmp(key, "process") == 0) {
        return add_process(gpu, value);
    }
    int at = position(gpu_numbers, GPU_NUMBER_COUNT, key);
    if (at >= 0) {
        return set_number(&gpu->numbers[at], value);
    }
    at = position(gpu_texts, GPU_TEXT_COUNT, key);
    return at >= 0 && set_text(&gpu->texts[at], value);
}

static bool begin_gpu(struct scenario *scenario, char *number) {
    char *close = strchr(number, ']');
    long long index;
    if (!close || close[1]) {
        return false;
    }
    *close = '\0';
    if (!take_integer(&number, &index) || *number || index != scenario->gpu_count || index == MAX_GPUS) {
        return false;
    }
    struct gpu *gpu = &scenario->gpus[scenario->gpu_count++];
    memset(gpu, 0, sizeof *gpu);
    for (int i = 0; i < GPU_NUMBER_COUNT; i++) {
        gpu->numbers[i].status = NVML_ERROR_NOT_SUPPORTED;
    }
    for (int i = 0; i < GPU_TEXT_COUNT; i++) {
        gpu->texts[i].status = NVML_ERROR_NOT_SUPPORTED;
    }
    return true;
}

static char *trimmed(char *text) {
    text += strspn(text, " \t\r");
    size_t length = strlen(text);
    while (length && strchr(" \t\r", text[length - 1])) {
        length--;
    }
    text[length] = '\0';
    return text;
}

static bool take_line(char *line, enum section *section, struct scenario *out) {
    line[strcspn(line, "#")] = '\0';
    line = trimmed(line);
    if (!*line) {
        return true;
    }
    if (strcmp(line, "[system]") == 0) {
        *section = IN_SYSTEM;
        return true;
    }
    if (strcmp(line, "[events]") == 0) {
        *section = IN_EVENTS;
        return true;
    }
    if (strcmp(line, "[end]") == 0) {
        *section = AT_END;
        return true;
    }
    if (strncmp(line, "[gpu ", 5) == 0) {
        *section = IN_GPU;
        return begin_gpu(out, line + 5);
    }
    char *equals = strchr(line, '=');
    if (!equals) {
        return false;
    }
    *equals = '\0';
    const char *key = trimmed(line);
    char *value = trimmed(equals + 1);
    switch (*section) {
    case IN_SYSTEM:
        return set_system(&out->system, key, value);
    case IN_GPU:
        return set_gpu(&out->gpus[out->gpu_count - 1], key, value);
    case IN_EVENTS:
        return strcmp(key, "xid") == 0 && add_event(out, value);
    default:
        return false;
    }
}

bool scenario_parse(char *text, struct scenario *out) {
    enum section section = NOWHERE;
    memset(&out->system, 0, sizeof out->system);
    for (int i = 0; i < SYSTEM_TEXT_COUNT; i++) {
        out->system.texts[i].status = NVML_ERROR_NOT_SUPPORTED;
    }
    out->gpu_count = out->event_count = 0;
    while (text && section != AT_END) {
        char *next = strchr(text, '\n');
        if (next) {
            *next++ = '\0';
        }
        if (!take_line(text, &section, out)) {
            return false;
        }
        text = next;
    }
    return section == AT_END;
}
