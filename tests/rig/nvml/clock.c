/* Time: what grows by itself, and what wavers around the scenario's value as a real sensor does. */
#include <time.h>

#include "rig.h"

long long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

long long wall_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

void pause_ms(long long milliseconds) {
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    nanosleep(&time, NULL);
}

static unsigned long long hash(const char *text, long long seed) {
    unsigned long long value = 14695981039346656037ULL ^ (unsigned long long)seed;
    while (*text) {
        value = (value ^ (unsigned char)*text++) * 1099511628211ULL;
    }
    return value;
}

/* From -amplitude to amplitude and back, in straight lines: its mean is 0, and it needs no libm. */
static long long triangle(long long time, long long period, long long amplitude) {
    long long phase = (time % period + period) % period * 4 / (period / 1000);
    long long height = phase < 1000 ? phase : phase < 3000 ? 2000 - phase : phase - 4000;
    return height * amplitude / 1000;
}

/* A slow and a quick wave, each GPU and reading with its own offset: the same moment always gives the same value. */
static long long waver(unsigned long long seed, long long time, long long amplitude) {
    long long slow = triangle(time + (long long)(seed % 7919) * 1000000, 7300000000LL, amplitude * 2);
    long long quick = triangle(time + (long long)(seed % 6101) * 1000000, 1700000000LL, amplitude);
    return (slow + quick) / 3;
}

static long long clamp(long long value, long long low, long long high) {
    return value < low ? low : value > high ? high : value;
}

static void jitter(struct gpu *gpu, unsigned long long seed, long long time) {
    struct number *n = gpu->numbers;
    long long limit = n[GPU_power_limit_mw].status ? n[GPU_power_mw].value * 2 : n[GPU_power_limit_mw].value;
    n[GPU_power_mw].value =
        clamp(n[GPU_power_mw].value + waver(seed, time, n[GPU_power_mw].value / 50), 0, limit);
    n[GPU_temperature_c].value += waver(seed >> 8, time / 4, 3) / 2;
    n[GPU_memory_temperature_c].value += waver(seed >> 12, time / 4, 3) / 2;
    if (!n[GPU_load].value) {
        return;
    }
    /* Boost moves in steps of 15 MHz; utilisation stays within its bounds. */
    long long step = waver(seed >> 16, time, 3) * 15;
    n[GPU_clock_graphics_mhz].value += step;
    n[GPU_clock_sm_mhz].value += step;
    n[GPU_util_gpu].value = clamp(n[GPU_util_gpu].value + waver(seed >> 20, time, 2), 0, 100);
    n[GPU_util_memory].value = clamp(n[GPU_util_memory].value + waver(seed >> 24, time, 4), 0, 100);
    n[GPU_pcie_tx_kb_per_s].value += waver(seed >> 28, time, n[GPU_pcie_tx_kb_per_s].value / 10);
    n[GPU_pcie_rx_kb_per_s].value += waver(seed >> 32, time, n[GPU_pcie_rx_kb_per_s].value / 10);
}

/* The nanosecond counters count what the reasons say; a flickering reason counts for its share of the time. */
static void grow(struct gpu *gpu, long long elapsed) {
    static const struct {
        enum gpu_number counter;
        long long reasons;
    } violations[] = {
        {GPU_violation_power_ns, REASON_SW_POWER_CAP},
        {GPU_violation_thermal_ns, REASON_SW_THERMAL | REASON_HW_THERMAL},
        {GPU_violation_sync_boost_ns, REASON_SYNC_BOOST},
        {GPU_violation_sw_thermal_ns, REASON_SW_THERMAL},
        {GPU_violation_hw_thermal_ns, REASON_HW_THERMAL},
        {GPU_violation_power_brake_ns, REASON_POWER_BRAKE},
    };
    struct number *n = gpu->numbers;
    for (unsigned i = 0; i < sizeof violations / sizeof *violations; i++) {
        long long share = n[GPU_reasons].value & violations[i].reasons           ? 100
                          : n[GPU_flicker_reasons].value & violations[i].reasons ? n[GPU_flicker_percent].value
                                                                                 : 0;
        n[violations[i].counter].value += elapsed / 100 * share;
    }
    /* mW times seconds is mJ; microseconds first, or 64 bits overflow after hours. */
    n[GPU_energy_mj].value += elapsed / 1000 * n[GPU_power_mw].value / 1000000;
    n[GPU_pcie_replay].value += elapsed / 1000000 * n[GPU_pcie_replay_per_minute].value / 60000;
}

/* Turns the scenario's GPU into what its sensors say now. The energy counter follows the power without its jitter. */
void at_this_moment(struct gpu *gpu, const struct system *system, long long now) {
    struct number *n = gpu->numbers;
    long long elapsed = n[GPU_counters_at_ns].status ? 0 : now - n[GPU_counters_at_ns].value;
    grow(gpu, elapsed > 0 ? elapsed : 0);
    long long time = now - system->numbers[SYSTEM_epoch_ns].value;
    long long period = n[GPU_flicker_period_ms].value * 1000000;
    if (period > 0 && (time % period + period) % period < period / 100 * n[GPU_flicker_percent].value) {
        n[GPU_reasons].value |= n[GPU_flicker_reasons].value;
    }
    if (system->numbers[SYSTEM_jitter].value) {
        jitter(gpu, hash(gpu->texts[GPU_TEXT_uuid].value, system->numbers[SYSTEM_seed].value), time);
    }
}
