// A stand-in for the CUDA driver, libcuda.so.1: as much of it as TensorFlow asks before it computes anything.
// GPUS says how many GPUs there are, SMALL which of them has too few multiprocessors, FULL that no memory is left.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, UNKNOWN = 999 };
enum { MULTIPROCESSORS = 16, MAJOR = 75, MINOR = 76 };

static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

int cuInit(unsigned flags) { return (void)flags, SUCCESS; }
int cuDriverGetVersion(int *version) { return *version = 12040, SUCCESS; }
int cuDeviceGetCount(int *count) { return *count = number("GPUS", 1), SUCCESS; }
int cuDeviceGet(int *device, int index) {
    *device = index;
    return index < number("GPUS", 1) ? SUCCESS : INVALID_DEVICE;
}
int cuDeviceGetName(char *name, int size, int device) { return snprintf(name, size, "Stand-in %d", device), SUCCESS; }
int cuDeviceGetUuid(unsigned char *uuid, int device) { return memset(uuid, device + 1, 16), SUCCESS; }
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) { return cuDeviceGetUuid(uuid, device); }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { return (void)device, *bytes = (size_t)16 << 30, SUCCESS; }
int cuDeviceGetPCIBusId(char *id, int size, int device) {
    return snprintf(id, size, "0000:%02x:00.0", device + 1), SUCCESS;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case MAJOR: *value = 8; break;
    case MINOR: *value = 0; break;
    case MULTIPROCESSORS: *value = number("SMALL", -1) == device ? 4 : 80; break;
    default: *value = 1024;
    }
    return SUCCESS;
}
int cuDeviceGetProperties(void *properties, int device) { return (void)device, memset(properties, 0, 32), SUCCESS; }
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    return (void)device, *flags = 0, *active = 0, SUCCESS;
}
int cuDevicePrimaryCtxSetFlags_v2(int device, unsigned flags) { return (void)device, (void)flags, SUCCESS; }
int cuDevicePrimaryCtxRetain(void **context, int device) {
    return (void)device, *context = NULL, number("FULL", 0) ? OUT_OF_MEMORY : UNKNOWN;
}
int cuCtxGetCurrent(void **context) { return *context = NULL, SUCCESS; }
int cuCtxSetCurrent(void *context) { return (void)context, SUCCESS; }
int cuCtxGetDevice(int *device) { return *device = 0, SUCCESS; }
int cuGetErrorName(int error, const char **name) {
    return *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_UNKNOWN", SUCCESS;
}
int cuGetErrorString(int error, const char **text) {
    return *text = error == OUT_OF_MEMORY ? "out of memory" : "unknown error", SUCCESS;
}
