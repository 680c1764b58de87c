/* nvmlDeviceGetFieldValues: readings by number, each with a status of its own. */
#include "rig.h"

/* NVML_FI_DEV_*; TEMPERATURE_*_TLIMIT are degrees from the temperature at which clocks go down. */
static const struct {
    unsigned field, type;
    enum gpu_number key;
} fields[] = {
    {1, VALUE_UINT, GPU_ecc_mode},
    {2, VALUE_UINT, GPU_ecc_pending},
    {3, VALUE_ULONGLONG, GPU_ecc_corrected},
    {4, VALUE_ULONGLONG, GPU_ecc_uncorrected},
    {5, VALUE_ULONGLONG, GPU_ecc_corrected_total},
    {6, VALUE_ULONGLONG, GPU_ecc_uncorrected_total},
    {74, VALUE_ULONGLONG, GPU_violation_power_ns},
    {75, VALUE_ULONGLONG, GPU_violation_thermal_ns},
    {76, VALUE_ULONGLONG, GPU_violation_sync_boost_ns},
    {82, VALUE_UINT, GPU_memory_temperature_c},
    {83, VALUE_ULONGLONG, GPU_energy_mj},
    {90, VALUE_UINT, GPU_nvlink_mb_per_s},
    {91, VALUE_UINT, GPU_nvlinks},
    {94, VALUE_UINT, GPU_pcie_replay},
    {95, VALUE_UINT, GPU_pcie_replay_rollover},
    {142, VALUE_UINT, GPU_remapped_corrected},
    {143, VALUE_UINT, GPU_remapped_uncorrected},
    {144, VALUE_UINT, GPU_remapped_pending},
    {145, VALUE_UINT, GPU_remapped_failed},
    {164, VALUE_UINT, GPU_nvlink_mb_per_s},
    {185, VALUE_UINT, GPU_power_mw},
    {186, VALUE_UINT, GPU_power_mw},
    {187, VALUE_UINT, GPU_power_min_mw},
    {188, VALUE_UINT, GPU_power_max_mw},
    {189, VALUE_UINT, GPU_power_default_mw},
    {190, VALUE_UINT, GPU_power_limit_mw},
    {192, VALUE_UINT, GPU_power_limit_mw},
    {193, VALUE_INT, GPU_tlimit_shutdown_c},
    {194, VALUE_INT, GPU_tlimit_slowdown_c},
    {195, VALUE_INT, GPU_tlimit_memory_max_c},
    {196, VALUE_INT, GPU_tlimit_gpu_max_c},
    {230, VALUE_UINT, GPU_recovery_action},
    {269, VALUE_ULONGLONG, GPU_violation_sw_thermal_ns},
    {270, VALUE_ULONGLONG, GPU_violation_hw_thermal_ns},
    {271, VALUE_ULONGLONG, GPU_violation_power_brake_ns},
};

static void answer(const struct gpu *gpu, nvmlFieldValue_t *value) {
    value->nvmlReturn = NVML_ERROR_NOT_SUPPORTED;
    value->timestamp = wall_us();
    value->latencyUsec = 0;
    value->value.ullVal = 0;
    if (gpu->numbers[GPU_field_values].status) {
        return;
    }
    for (unsigned i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (fields[i].field != value->fieldId) {
            continue;
        }
        const struct number *number = &gpu->numbers[fields[i].key];
        value->nvmlReturn = number->status;
        value->valueType = fields[i].type;
        if (number->status) {
            return;
        }
        if (fields[i].type == VALUE_INT) {
            value->value.siVal = (int)number->value;
        } else if (fields[i].type == VALUE_UINT) {
            value->value.uiVal = (unsigned)number->value;
        } else {
            value->value.ullVal = (unsigned long long)number->value;
        }
        return;
    }
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values) {
    struct gpu gpu;
    if (count < 1 || !values) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    nvmlReturn_t status = rig_gpu(device, &gpu);
    for (int i = 0; !status && i < count; i++) {
        answer(&gpu, &values[i]);
    }
    return status;
}
