/* weights.h - model weights between a State and a safetensors file, every tensor accounted for. */
#ifndef MALA_WEIGHTS_H
#define MALA_WEIGHTS_H

#include "io/tensor_file.h"
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
bool weights_check(WeightsReport *report, const State *s, const TensorFile *file, HeadPolicy head, Err *err);

/* weights_check, then reads everything into the state now. A replaced head keeps what state_init drew. */
bool weights_load(WeightsReport *report, State *s, const TensorFile *file, HeadPolicy head, Err *err);

/* weights_check, then lets plans read each tensor when they need it; file must stay open as long as the state. */
bool weights_attach(WeightsReport *report, State *s, const TensorFile *file, Err *err);

/* Writes weights (role ROLE_WEIGHT or ROLE_EMA) and running statistics, float32, atomically. */
bool weights_save(const char *path, const State *s, StateRole role, const StoredPair *metadata, size_t count, Err *err);

#endif
