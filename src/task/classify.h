/* classify.h - image classification: the training and evaluation graphs around a backbone, and their metrics. */
#ifndef MALA_CLASSIFY_H
#define MALA_CLASSIFY_H

#include "model/mavit.h"
#include "run/plan.h"
#include "task/optimizer.h"

typedef struct {
    MavitConfig model;
    float mean[3], std[3]; /* of the pixels, scaled to 0..1 */
    float smoothing;       /* label smoothing */
    bool soft_targets;     /* targets f32 (B,K) instead of labels i32 (B) */
    bool ema;
    bool recompute;        /* training: less memory, more arithmetic, the same bits (pass/autodiff.h) */
    bool unfused;          /* training: the graph as the model wrote it */
    bool float_images;     /* images arrive normalised, f32, instead of u8 */
    DType compute;         /* of features: f32, bf16 or f16 (graph/op.h); what a caller reads is f32 in any case */
} ClassifySpec;

/* A graph and the values a caller reads and writes. */
typedef struct {
    Graph *graph;
    Val images;  /* u8 (B,H,W,3), or f32 with float_images */
    Val targets; /* i32 (B) or f32 (B,K); training */
    Val counter; /* u64 (2): seed, step; training */
    Val hyper;   /* f32 (HYPER_COUNT); training */
    Val scale;   /* f32 (1): the loss's own gradient, 1 unless losses are scaled; training */
    Val stage[MAVIT_STAGES]; /* evaluation without fusion */
    Val logits;  /* f32 (B,K) */
    Val prob;    /* f32 (B,K); evaluation */
    Val loss;    /* f32 (1); training */
    Val norm;    /* f32 (1): gradient norm before clipping; training */
} ClassifyGraph;

/* Forward, backward and update in one graph; roles of state it needs: classify_train_roles. */
ClassifyGraph classify_train_graph(const ClassifySpec *spec, int batch, int height, int width);
unsigned classify_train_roles(const ClassifySpec *spec);

/* Forward only, running statistics; fusion: FUSE_* patterns, 0 for the graph as written. */
ClassifyGraph classify_eval_graph(const ClassifySpec *spec, int batch, int height, int width, unsigned fusion);
/* The patterns that serve a backend best. */
unsigned classify_eval_fusion(const Backend *backend);
void classify_graph_free(ClassifyGraph *c);

/* ---- metrics, on the host ---- */

typedef struct {
    int classes;
    int64_t images, top1, top5;
    int64_t not_finite;                     /* images with a logit that is no number: never right */
    double loss;                            /* sum over images of -log p(label); NaN with one of those */
    int64_t *class_images, *class_top1;     /* [classes] */
} ClassifyMetrics;

/* Whether the five best say anything: of five classes or fewer they are always right, and nobody is told. */
static inline bool classify_has_top5(int classes) { return classes > 5; }

void classify_metrics_init(ClassifyMetrics *m, int classes);
void classify_metrics_free(ClassifyMetrics *m);
/* logits[count * classes]; labels[count] in 0 .. classes-1. Equal scores rank by lower class index. */
void classify_metrics_add(ClassifyMetrics *m, const float *logits, const int32_t *labels, int count);

/* Are all of them numbers? Answers of a network that are not are no answers. */
bool classify_finite(const float *scores, int64_t count);

/* The k classes with the highest scores, best first; ties by lower index; no more than there are. */
void classify_top(int32_t *top, const float *scores, int classes, int k);

#endif
