/* retrace.h - a training run done once more by a second hand: the loader, the graph and the kernels are the program's,
 * but what a run decides - seeds, epochs, learning rates, decay, clipping, averages, what is judged and what is kept -
 * is written down here again, in double precision and from numbers of the test's own. Weights and figures that the
 * program leaves are compared with these. */
#ifndef MALA_TEST_RETRACE_H
#define MALA_TEST_RETRACE_H

#include "data/dataset.h"
#include "run/plan.h"
#include "task/classify.h"

enum { RETRACE_EPOCHS = 16, RETRACE_STEPS = 128 };

typedef struct {
    const char *data; /* of colours.h */
    int64_t seed;
    int batch, epochs, pad, warmup_epochs;
    double flip, crop_pct;
    double scale[2], ratio[2]; /* of random crops; scale 0, 0: moved by up to pad pixels instead, or not at all */
    bool bilinear;
    double lr, lr_base, warmup_lr, min_lr; /* lr_base 0: lr is not scaled */
    double decay, beta1, beta2, eps, clip;
    double smoothing, drop_path, layer_scale;
    double ema_decay; /* 0: no average */
    bool ema_ramp;
    int64_t stop; /* the weights after so many steps are kept, too; 0: none */
} Recipe;

typedef struct {
    double train_loss, lr; /* lr: of its last step */
    double top1, top5, val_loss;
    double unsure1, unsure5; /* shares of answers that rounding decides: another batch's kernels round otherwise */
    float *weights, *buffers; /* what is judged and kept, flat */
} RetracedEpoch;

typedef struct {
    Recipe recipe;
    Dataset train, val;
    ClassifyGraph graph;
    State state;
    Plan *plan;
    LossScale scale;
    int64_t steps; /* of an epoch */
    float *start;  /* weights before the first step */
    float *stopped, *stopped_buffers;
    RetracedEpoch epoch[RETRACE_EPOCHS];                                                         /* from 0 */
    double loss[RETRACE_STEPS], norm[RETRACE_STEPS], rate[RETRACE_STEPS], scales[RETRACE_STEPS]; /* of all steps */
} Retraced;

/* The recipe as the program's settings, apart by blanks and quoted for a shell. */
void recipe_settings(char *out, size_t size, const Recipe *r);

/* Does the run; the first best epoch is returned, from 0. Fails the test where the best is also the last one, or
 * where epochs or what is averaged differ too little for a comparison to notice another. */
int retrace(Retraced *out, const Recipe *recipe, Backend *backend);
void retrace_free(Retraced *r);

/* Fails unless the weights and statistics in a file are those after an epoch, or after recipe.stop steps; says how far
 * away they are, in parts of the way from the start. */
void expect_retraced(const Retraced *r, int epoch, const char *path);
void expect_retraced_stop(const Retraced *r, const char *path);

#endif
