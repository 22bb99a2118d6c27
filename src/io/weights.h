/* weights.h - model weights between a State and a file of tensors, every tensor accounted for. Nothing is left out in
 * silence: what does not fit is listed and refused, unless it was named beforehand. */
#ifndef MALA_WEIGHTS_H
#define MALA_WEIGHTS_H

#include "base/log.h"
#include "io/tensor_file.h"
#include "run/state.h"

/* What a classifier has and the backbone of the released detection and segmentation code has not, and the reverse. */
#define CLASSIFIER_ONLY "proj.*,norm.*,head.*"
#define BACKBONE_ONLY "extra_norms.*"

/* What a load does with the file's classifier: take it; take it unless its number of classes is another or the file is
 * a backbone's; start anew. */
typedef enum { HEAD_STRICT, HEAD_REPLACE, HEAD_NEW } HeadPolicy;

typedef struct {
    HeadPolicy head;
    const char *allow; /* patterns (text_matches_any) of names that may be missing, unexpected or of another shape */
    Log *log;          /* gets the table of what does not fit */
} WeightsPolicy;

typedef struct {
    int32_t tensors, wanted_tensors;       /* that came in, of the model's */
    int64_t parameters, wanted_parameters; /* trainable scalars, likewise */
    int32_t allowed;                       /* misfits that the policy named */
    bool head_new;                         /* the file's head was left out, or it has none: */
    bool backbone;                         /* proj and norm start anew, too, and extra_norms are left out */
} WeightsReport;

/* Has the file no tensor of a MAViT's name only because an unknown prefix stands before all of them? False: EXIT_INPUT
 * with the prefix. */
bool weights_check_names(const TensorFile *file, Err *err);
/* weights_check_names, and whether there is a tensor that every MAViT has. */
bool weights_check_kind(const TensorFile *file, Err *err);

/* Compares names and shapes of the file with the state's. "...num_batches_tracked" of released checkpoints is known and
 * not needed; "...RoPE.angle" neither, but has to hold the angles of this model's rotary embedding. Missing, mis-shaped
 * and unexpected tensors are listed in one table; false, EXIT_INPUT. */
bool weights_check(WeightsReport *report, const State *s, const TensorFile *file, const WeightsPolicy *policy,
                   Err *err);

/* Can values of the file at `path` be those of a tensor of this name: finite, and no variance below 0, which computes
 * NaN in evaluation alone? False: EXIT_INPUT. */
bool weights_check_values(const float *values, int64_t count, const char *name, const char *path, Err *err);

/* "loaded 612 of 612 tensors, 24.7 M parameters (100 %)" and what was left out. */
void weights_describe(const WeightsReport *report, Log *log);

/* weights_check, then reads everything into the state now, values checked. What is left out keeps what state_init
 * drew. */
bool weights_load(WeightsReport *report, State *s, const TensorFile *file, const WeightsPolicy *policy, Err *err);

/* weights_check, then lets plans read each tensor when they need it; file must stay open as long as the state. What the
 * policy lets be missing is what state_init draws from seed 0. */
bool weights_attach(WeightsReport *report, State *s, const TensorFile *file, const WeightsPolicy *policy, Err *err);

/* Writes weights (role ROLE_WEIGHT or ROLE_EMA) and running statistics, float32, sealed (seal.h), atomically. */
bool weights_save(const char *path, const State *s, StateRole role, const StoredPair *metadata, size_t count, Err *err);

#endif
