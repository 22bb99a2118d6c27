/* memory.h - what a run will take of a device's memory, found by planning it and taking none. */
#ifndef MALA_APP_MEMORY_H
#define MALA_APP_MEMORY_H

#include "lib/config.h"
#include "backend/backend.h"

/* One network with its plan; all in bytes. */
typedef struct {
    int batch;
    size_t weights, gradients, moments, average, cast, statistics; /* state, run/state.h */
    size_t activations, constants, workspace;                      /* of the plan, run/plan.h */
    size_t inputs, staging; /* staging: the second copy that the next step's inputs are uploaded to */
    size_t transfers;       /* on the host, page-locked; no part of the total */
} NetworkMemory;

typedef struct {
    NetworkMemory training;   /* all 0 without training */
    NetworkMemory evaluation; /* beside it, or by itself for inference */
    size_t total;
} MemoryNeeds;

size_t network_memory_total(const NetworkMemory *n);

/* A training run (with its evaluation network, eval.batch_size) or inference by batches of `batch`, on a backend that
 * need only have kernels (config_open_measuring) and says the compute type. False: EXIT_BUG naming an op without a
 * kernel. */
bool memory_predict(MemoryNeeds *out, const Config *c, int classes, int batch, bool train, Backend *backend, Err *err);

#endif
