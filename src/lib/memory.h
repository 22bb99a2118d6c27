/* memory.h - what a run will take of memory, found by planning it and taking none. */
#ifndef MALA_LIB_MEMORY_H
#define MALA_LIB_MEMORY_H

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

/* A run that is about to begin. */
typedef struct {
    const Config *config;
    Backend *backend;
    int classes;
    bool train;           /* with an evaluation network beside it; else inference */
    int batch;            /* that is asked for */
    int eval_batch;       /* of the evaluation; 0: as batch */
    int eval_most;        /* and no more than this; 0: no evaluation */
    size_t picture_bytes; /* what loaders keep for each picture of a batch */
} MemoryRun;

/* Is there host memory for it? Asked before any is taken, since whoever takes more than there is gets killed. *spare:
 * what is left then, SIZE_MAX where nothing is known. Always true on a GPU, whose allocations fail by themselves.
 * False: EXIT_MEMORY, naming the largest batch that fits; EXIT_USAGE (MALA_MEMORY is no size); EXIT_BUG. */
bool memory_check(size_t *spare, const MemoryRun *r, Err *err);

#endif
