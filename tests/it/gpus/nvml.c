/* A library with NVML's entry points, of a machine with eight GPUs. Those whose numbers stand in the file GPUS_GONE names have
   fallen off the bus. Shapes of the structures: NVIDIA's nvml.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, GPU_IS_LOST = 15 };

typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory;
typedef struct { unsigned gpu, memory; } utilization;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } pci;

static unsigned number(void *device) { return (unsigned)((size_t)device - 1); }

static int state(void *device) {
    const char *path = getenv("GPUS_GONE");
    FILE *file = path ? fopen(path, "r") : NULL;
    int found = OK, gone;
    while (file && fscanf(file, "%d", &gone) == 1)
        if ((unsigned)gone == number(device)) found = GPU_IS_LOST;
    if (file) fclose(file);
    return found;
}

int nvmlInit_v2(void) { return OK; }
int nvmlShutdown(void) { return OK; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 8; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(size_t)(index + 1); return OK; }

int nvmlDeviceGetMemoryInfo_v2(void *device, memory *info) {
    info->total = 16ULL << 30;
    info->used = 1ULL << 30;
    info->free = 15ULL << 30;
    info->reserved = 0;
    return state(device);
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) {
    snprintf(uuid, length, "GPU-00000000-0000-0000-0000-00000000000%u", number(device));
    return OK;
}

int nvmlDeviceGetName(void *device, char *name, unsigned length) {
    (void)device;
    snprintf(name, length, "Described GPU");
    return OK;
}

int nvmlDeviceGetPciInfo_v3(void *device, pci *info) {
    memset(info, 0, sizeof *info);
    info->bus = 0xf0 + number(device);
    snprintf(info->bus_id, sizeof info->bus_id, "0000FFFF:%02X:00.0", info->bus);
    return OK;
}

int nvmlDeviceGetUtilizationRates(void *device, utilization *rates) { rates->gpu = 50; rates->memory = 5; return state(device); }
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) { (void)sensor; *celsius = 40; return state(device); }
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) { *milliwatts = 70000; return state(device); }
