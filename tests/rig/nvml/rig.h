/* What the mock's files share: a box's scenario as data, and how to get at one GPU of it. */
#ifndef RIG_RIG_H
#define RIG_RIG_H

#include <stdbool.h>

#include "abi.h"

enum { MAX_GPUS = 32, MAX_PROCESSES = 32, MAX_EVENTS = 64, MAX_MIG = 7, TEXT_SIZE = 96, BUS_ID_SIZE = 32 };

/* The keys of a [gpu N] section. One that is not in the file is not supported by that GPU.
 * tests/rig/fields.py says what each means and its unit; a test holds the two lists together. */
#define GPU_NUMBERS(X)                                                                              \
    X(minor) X(board_id) X(pci_device_id) X(pci_subsystem_id) X(brand) X(architecture)              \
    X(cc_major) X(cc_minor) X(cores) X(bus_width_bits)                                              \
    X(memory_total_bytes) X(memory_used_bytes) X(memory_reserved_bytes)                             \
    X(bar1_total_bytes) X(bar1_used_bytes)                                                          \
    X(util_gpu) X(util_memory) X(util_encoder) X(util_decoder)                                      \
    X(power_mw) X(power_limit_mw) X(power_default_mw) X(power_min_mw) X(power_max_mw) X(energy_mj)  \
    X(temperature_c) X(memory_temperature_c) X(temperature_limit_c)                                 \
    X(threshold_shutdown_c) X(threshold_slowdown_c) X(threshold_gpu_max_c) X(threshold_memory_max_c)\
    X(tlimit_shutdown_c) X(tlimit_slowdown_c) X(tlimit_gpu_max_c) X(tlimit_memory_max_c)            \
    X(fan_percent) X(fans) X(pstate) X(reasons) X(reasons_supported)                                \
    X(flicker_reasons) X(flicker_percent) X(flicker_period_ms)                                      \
    X(violation_power_ns) X(violation_thermal_ns) X(violation_sync_boost_ns)                        \
    X(violation_sw_thermal_ns) X(violation_hw_thermal_ns) X(violation_power_brake_ns)               \
    X(clock_graphics_mhz) X(clock_sm_mhz) X(clock_memory_mhz) X(clock_video_mhz)                    \
    X(clock_max_graphics_mhz) X(clock_max_sm_mhz) X(clock_max_memory_mhz) X(clock_max_video_mhz)    \
    X(clock_boost_mhz) X(clock_application_mhz) X(clock_application_memory_mhz)                     \
    X(pcie_gen) X(pcie_width) X(pcie_gen_max) X(pcie_width_max) X(pcie_gen_device)                  \
    X(pcie_replay) X(pcie_replay_per_minute) X(pcie_replay_rollover)                                \
    X(pcie_tx_kb_per_s) X(pcie_rx_kb_per_s)                                                         \
    X(persistence) X(compute_mode) X(display_mode) X(display_active) X(multi_gpu_board)             \
    X(ecc_mode) X(ecc_pending) X(ecc_corrected) X(ecc_uncorrected)                                  \
    X(ecc_corrected_total) X(ecc_uncorrected_total)                                                 \
    X(remapped_corrected) X(remapped_uncorrected) X(remapped_pending) X(remapped_failed)            \
    X(recovery_action) X(mig_mode) X(mig_pending) X(mig_devices) X(mig_memory_bytes)                \
    X(mig_multiprocessors) X(numa_node) X(pcie_switch) X(pcie_root)                                 \
    X(nvlinks) X(nvlink_version) X(nvlink_mb_per_s) X(gsp_mode) X(event_types) X(field_values)      \
    X(load) X(lost) X(hang) X(latency_ms) X(counters_at_ns)
#define GPU_TEXTS(X)                                                                                \
    X(name) X(uuid) X(bus_id) X(serial) X(vbios) X(gsp_version) X(part_number) X(cpus)              \
    X(mig_profile) X(nvlink_bus_id)
#define SYSTEM_NUMBERS(X)                                                                           \
    X(cuda_version) X(p2p_status) X(init_error) X(query_error) X(hang) X(latency_ms) X(reread_ms)   \
    X(jitter) X(seed) X(epoch_ns)
#define SYSTEM_TEXTS(X) X(driver_version) X(nvml_version)

#define AS_GPU_NUMBER(key) GPU_##key,
#define AS_GPU_TEXT(key) GPU_TEXT_##key,
#define AS_SYSTEM_NUMBER(key) SYSTEM_##key,
#define AS_SYSTEM_TEXT(key) SYSTEM_TEXT_##key,
enum gpu_number { GPU_NUMBERS(AS_GPU_NUMBER) GPU_NUMBER_COUNT };
enum gpu_text { GPU_TEXTS(AS_GPU_TEXT) GPU_TEXT_COUNT };
enum system_number { SYSTEM_NUMBERS(AS_SYSTEM_NUMBER) SYSTEM_NUMBER_COUNT };
enum system_text { SYSTEM_TEXTS(AS_SYSTEM_TEXT) SYSTEM_TEXT_COUNT };

/* A reading is a number or a text, or the error that asking for it gives. */
struct number {
    nvmlReturn_t status;
    long long value;
};

struct text {
    nvmlReturn_t status;
    char value[TEXT_SIZE];
};

enum process_kind { COMPUTE, GRAPHICS, MPS };

struct process {
    enum process_kind kind;
    unsigned pid, sm_percent, memory_percent;
    unsigned long long bytes;
};

struct gpu {
    struct number numbers[GPU_NUMBER_COUNT];
    struct text texts[GPU_TEXT_COUNT];
    unsigned process_count;
    struct process processes[MAX_PROCESSES];
};

struct system {
    struct number numbers[SYSTEM_NUMBER_COUNT];
    struct text texts[SYSTEM_TEXT_COUNT];
};

/* One Xid; sequence numbers only grow, so that a waiter knows what it has seen. */
struct event {
    long long sequence;
    unsigned gpu, xid;
};

struct scenario {
    struct system system;
    unsigned gpu_count, event_count;
    struct gpu gpus[MAX_GPUS];
    struct event events[MAX_EVENTS];
};

/* What a caller holds: a GPU's place in the scenario, and 0 for the whole GPU or 1.. for a MIG device. */
struct handle {
    unsigned gpu, mig;
};

/* scenario.c: cuts the text up while reading; false when it is not whole and valid. */
bool scenario_parse(char *text, struct scenario *out);

/* clock.c */
long long now_ns(void);
long long wall_us(void);
void pause_ms(long long milliseconds);
void at_this_moment(struct gpu *gpu, const struct system *system, long long now);

/* state.c: every call takes the lock for itself and returns a copy. */
nvmlReturn_t rig_init(void);
nvmlReturn_t rig_shutdown(void);
nvmlReturn_t rig_system(struct system *copy);
void rig_system_uninitialised(struct system *copy);
nvmlReturn_t rig_gpu(nvmlDevice_t device, struct gpu *copy);
nvmlReturn_t rig_gpu_or_mig(nvmlDevice_t device, struct gpu *copy, unsigned *mig);
nvmlReturn_t rig_count(unsigned *count);
nvmlReturn_t rig_by_index(unsigned index, nvmlDevice_t *device);
nvmlReturn_t rig_by_match(bool (*match)(const struct gpu *, const void *), const void *wanted, nvmlDevice_t *device);
nvmlReturn_t rig_index(nvmlDevice_t device, unsigned *index);
nvmlReturn_t rig_mig_handle(nvmlDevice_t device, unsigned mig, nvmlDevice_t *out);
/* The first event after `sequence` of a GPU for which wanted() says true; NOT_FOUND when there is none yet. */
nvmlReturn_t rig_next_event(bool (*wanted)(const struct event *, void *), void *context, long long sequence,
                            struct event *event, nvmlDevice_t *device);
nvmlReturn_t rig_last_event(long long *sequence);
bool rig_any_lost(const bool gpus[MAX_GPUS]);
long long rig_reread_ms(void);

/* getters.c: one reading of one GPU, with the checks that every query makes. */
nvmlReturn_t rig_number(nvmlDevice_t device, enum gpu_number key, long long *out);
nvmlReturn_t rig_uint(nvmlDevice_t device, enum gpu_number key, unsigned *out);
nvmlReturn_t rig_text(nvmlDevice_t device, enum gpu_text key, char *out, unsigned length);
nvmlReturn_t copy_text(const struct text *text, char *out, unsigned length);

/* handles.c */
void read_bus_id(const char *text, unsigned *domain, unsigned *bus, unsigned *device);

#endif
