/* weights.h - model weights between a State and a safetensors file, every tensor accounted for. */
#ifndef MALA_WEIGHTS_H
#define MALA_WEIGHTS_H

#include "io/safetensors.h"
#include "run/state.h"

/* What a load does with a classifier of another number of classes. */
typedef enum { HEAD_STRICT, HEAD_REPLACE } HeadPolicy;

typedef struct {
    int32_t tensors;       /* tensors that came in */
    int64_t parameters;    /* scalars that came in */
    bool head_replaced;    /* HEAD_REPLACE: the file's head had another shape and was left out */
} WeightsReport;

/* Compares names and shapes of the file with the state's. "...RoPE.angle" and "...num_batches_tracked" of released
 * checkpoints are known and not needed. Missing, unexpected or mis-shaped tensors: false, EXIT_INPUT, naming them. */
bool weights_check(WeightsReport *report, const State *s, const SafeTensors *file, HeadPolicy head, Err *err);

/* weights_check, then reads everything into the state now. A replaced head keeps what state_init drew. */
bool weights_load(WeightsReport *report, State *s, const SafeTensors *file, HeadPolicy head, Err *err);

/* weights_check, then lets plans read each tensor when they need it; file must stay open as long as the state. */
bool weights_attach(WeightsReport *report, State *s, const SafeTensors *file, Err *err);

/* When plans have read what they wanted: lets the file's pages go, neighbours that the system read ahead included. */
void weights_drop_pages(const SafeTensors *file);

/* Writes weights (role ROLE_WEIGHT or ROLE_EMA) and running statistics, float32, atomically. */
bool weights_save(const char *path, const State *s, StateRole role, const SafePair *metadata, size_t count, Err *err);

#endif
