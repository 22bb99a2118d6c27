/* control.h - how a test sets up the emulated device (device.cpp): its size, its delays, its failures. */
#ifndef MALA_EMULATE_CONTROL_H
#define MALA_EMULATE_CONTROL_H

#include "base/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Whether the device is emulated, and not a GPU. */
bool emu_present(void);

/* gelu and gelu_pair of backend/cuda/gelu.cuh. */
void emu_gelu(float x, float *alone, float *value, float *slope);

/* 0: threads and blocks of a kernel in order; 1: backwards, with other rubbish in shared memory. */
void emu_set_mode(int mode);

typedef struct {
    int count;        /* GPUs; 0: none */
    bool driver;      /* is there a driver at all? */
    int major, minor; /* compute capability */
    size_t memory;    /* bytes; taking more fails */
    const char *architectures; /* what the program was "compiled" for: "75" */
} EmuGpu;

/* NULL: one GPU of compute capability 9.0 with 16 GiB, as at the start. Nothing may be open. */
void emu_set_gpu(const EmuGpu *gpu);

/* Of these GPUs (a bit for each) other programs hold; none at the start. */
void emu_hold(unsigned gpus);

/* Work queued on a late stream (0 computes, 1 uploads) is done at the last moment: when the host waits for it or other
 * work is ordered behind it. What a program forgot to order then shows as wrong numbers. */
void emu_set_late(int stream, bool late);

typedef enum { EMU_FAIL_NOTHING, EMU_FAIL_UPLOAD, EMU_FAIL_WAIT, EMU_FAIL_CAPTURE } EmuFailure;
/* The next such call fails as the runtime would, once. */
void emu_fail_next(EmuFailure what);

/* bytes of device memory taken now, and at most since the last emu_set_gpu; allocations, waits and launches so far */
typedef struct {
    size_t now, most;
    int64_t allocations, waits, graph_launches, submitted;
} EmuCounts;
EmuCounts emu_counts(void);

#ifdef __cplusplus
}
#endif

#endif
