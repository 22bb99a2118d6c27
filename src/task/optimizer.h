/* optimizer.h - the update at the end of every training graph, and the numbers it reads each step. */
#ifndef MALA_OPTIMIZER_H
#define MALA_OPTIMIZER_H

#include "graph/op.h"

/* AdamW as in the released recipe: decay on parameters of two or more dimensions only. */
typedef struct {
    float lr;           /* peak, after scaling by the batch size */
    float weight_decay, beta1, beta2, eps;
    float clip;         /* largest global gradient norm; 0: no clipping */
    float ema_decay;    /* 0: no moving average */
    bool ema_ramp;      /* at most (1 + step) / (10 + step): TensorFlow's ExponentialMovingAverage with num_updates */
    float warmup_lr, min_lr;
    int64_t warmup_steps, total_steps;
} OptimizerConfig;

/* Cosine from lr to min_lr after a linear warm-up from warmup_lr; step counts updates from 0. */
float optimizer_lr(const OptimizerConfig *c, int64_t step);

/* Fills the hyper-parameter tensor for the update of step (from 0). */
void optimizer_hyper(const OptimizerConfig *c, int64_t step, float hyper[HYPER_COUNT]);

/* Dynamic loss scaling, for float16: gradients are computed times a scale so large that few of them vanish, and divided
 * by it in the update (HYPER_INV_SCALE). A step whose gradient went beyond float16 is skipped by the update itself and
 * halves the scale; LOSS_SCALE_PATIENCE good ones in a row double it. */
#define LOSS_SCALE_FIRST 65536.0f
#define LOSS_SCALE_LEAST 1.0f
#define LOSS_SCALE_MOST 0x1p32f /* even in the largest batch, the loss's own gradients reach beyond float16 */
#define LOSS_SCALE_PATIENCE 2000
typedef struct {
    float scale; /* of the next step; a power of 2, so that scaling is exact */
    int good;    /* steps since it changed */
} LossScale;

/* Takes the outcome of a step that ran with scale `used`. Outcomes may be known late: one of another scale than the
 * present is not counted, so that a burst of overflows halves once. */
void loss_scale_update(LossScale *s, float used, bool finite);

/* Appends clipping by global norm, AdamW over the flat buffers, and the moving average when ema. All parameters must
 * be declared and their gradients bound. Returns the gradient norm before clipping (1). */
Val optimizer_emit(Graph *g, Val hyper, bool ema);

#endif
