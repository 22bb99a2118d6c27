#include "task/classify.h"

#include <math.h>
#include <stdlib.h>

#include "pass/autodiff.h"
#include "pass/fuse.h"
#include "pass/precision.h"

static Val images_input(ClassifyGraph *c, const ClassifySpec *spec, int batch, int height, int width) {
    Shape shape = SHAPE(batch, height, width, 3);
    c->images = graph_input(c->graph, "images", spec->float_images ? DT_F32 : DT_U8, shape);
    return spec->float_images ? c->images : op_normalize(c->graph, c->images, spec->mean, spec->std);
}

static ClassifyGraph graph_empty(void) {
    ClassifyGraph c = {.graph = graph_new(),
                       .images = NO_VAL,
                       .targets = NO_VAL,
                       .counter = NO_VAL,
                       .hyper = NO_VAL,
                       .scale = NO_VAL,
                       .logits = NO_VAL,
                       .prob = NO_VAL,
                       .loss = NO_VAL,
                       .norm = NO_VAL};
    for (int i = 0; i < MAVIT_STAGES; i++) c.stage[i] = NO_VAL;
    return c;
}

/* Fuses the graph of c, forward only, and puts it into its compute type. */
static void rewrite(ClassifyGraph *c, unsigned fusion, DType compute, bool training) {
    Val *all[] = {&c->images, &c->targets, &c->counter, &c->hyper, &c->scale, &c->logits, &c->prob, &c->loss,
                  &c->stage[0], &c->stage[1], &c->stage[2], &c->stage[3]};
    Val keep[COUNTOF(all)];
    int n = 0;
    for (size_t i = 0; i < COUNTOF(all); i++)
        if (*all[i] != NO_VAL) keep[n++] = *all[i];
    if (fusion) {
        Graph *fused = fuse(c->graph, fusion, keep, n);
        graph_free(c->graph);
        c->graph = fused;
    }
    if (compute != DT_F32) {
        Graph *lowered = precision_lower(c->graph, compute, training, keep, n);
        graph_free(c->graph);
        c->graph = lowered;
    }
    n = 0;
    for (size_t i = 0; i < COUNTOF(all); i++)
        if (*all[i] != NO_VAL) *all[i] = keep[n++];
}

ClassifyGraph classify_train_graph(const ClassifySpec *spec, int batch, int height, int width) {
    ClassifyGraph c = graph_empty();
    Graph *g = c.graph;
    Val x = images_input(&c, spec, batch, height, width);
    c.targets = spec->soft_targets ? graph_input(g, "targets", DT_F32, SHAPE(batch, spec->model.classes))
                                   : graph_input(g, "labels", DT_I32, SHAPE(batch));
    c.counter = graph_input(g, "counter", DT_U64, SHAPE(2));
    c.hyper = graph_input(g, "hyper", DT_F32, SHAPE(HYPER_COUNT));
    c.scale = graph_input(g, "loss scale", DT_F32, SHAPE(1));

    Nn nn = {.g = g, .train = true, .counter = c.counter};
    mavit_features(&nn, &spec->model, x, c.stage);
    c.logits = mavit_classifier(&nn, &spec->model, c.stage[MAVIT_STAGES - 1]);
    c.loss = op_cross_entropy(g, c.logits, c.targets, spec->smoothing);
    rewrite(&c, spec->unfused ? 0 : FUSE_TRAINING, spec->compute, true);
    g = c.graph;

    int32_t n_values = g->n_values;
    Val *grad = mem_zalloc((size_t)n_values, sizeof *grad);
    autodiff(g, &c.loss, &c.scale, 1, spec->recompute, grad);
    autodiff_bind_parameters(g, grad, n_values);
    free(grad);
    c.norm = optimizer_emit(g, c.hyper, spec->ema);
    return c;
}

unsigned classify_train_roles(const ClassifySpec *spec) {
    unsigned roles = 1u << ROLE_WEIGHT | 1u << ROLE_GRAD | 1u << ROLE_MOMENT1 | 1u << ROLE_MOMENT2 | 1u << ROLE_BUFFER;
    if (spec->compute != DT_F32) roles |= 1u << ROLE_CAST;
    return spec->ema ? roles | 1u << ROLE_EMA : roles;
}

ClassifyGraph classify_eval_graph(const ClassifySpec *spec, int batch, int height, int width, unsigned fusion) {
    ClassifyGraph c = graph_empty();
    Nn nn = {.g = c.graph, .counter = NO_VAL};
    mavit_features(&nn, &spec->model, images_input(&c, spec, batch, height, width), c.stage);
    c.logits = mavit_classifier(&nn, &spec->model, c.stage[MAVIT_STAGES - 1]);
    c.prob = op_softmax(c.graph, c.logits);
    for (int i = 0; fusion && i < MAVIT_STAGES; i++) c.stage[i] = NO_VAL;
    rewrite(&c, fusion, spec->compute, false);
    return c;
}

/* The CPU's products take a GELU on tiles that lie in cache: there, none is taken twice at the edges of a convolution's
 * bands. */
unsigned classify_eval_fusion(const Backend *backend) {
    return backend->host_memory ? FUSE_ALL & ~(unsigned)FUSE_GELU_DWCONV : FUSE_ALL;
}

void classify_graph_free(ClassifyGraph *c) {
    graph_free(c->graph);
    c->graph = NULL;
}

void classify_metrics_init(ClassifyMetrics *m, int classes) {
    *m = (ClassifyMetrics){.classes = classes,
                           .class_images = mem_zalloc((size_t)classes, sizeof(int64_t)),
                           .class_top1 = mem_zalloc((size_t)classes, sizeof(int64_t))};
}

void classify_metrics_free(ClassifyMetrics *m) {
    free(m->class_images);
    free(m->class_top1);
    *m = (ClassifyMetrics){0};
}

/* How many classes rank before `label`. */
static int rank_of(const float *score, int classes, int label) {
    int rank = 0;
    for (int k = 0; k < classes; k++) rank += score[k] > score[label] || (score[k] == score[label] && k < label);
    return rank;
}

bool classify_finite(const float *scores, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(scores[i])) return false;
    return true;
}

void classify_metrics_add(ClassifyMetrics *m, const float *logits, const int32_t *labels, int count) {
    for (int i = 0; i < count; i++) {
        const float *x = logits + (int64_t)i * m->classes;
        int label = labels[i];
        CHECK(label >= 0 && label < m->classes, "label %d of %d classes", label, m->classes);
        m->images++;
        m->class_images[label]++;
        if (!classify_finite(x, m->classes)) {
            m->not_finite++;
            m->loss = NAN;
            continue;
        }
        double high = x[0], sum = 0;
        for (int k = 1; k < m->classes; k++) high = MAX(high, (double)x[k]);
        for (int k = 0; k < m->classes; k++) sum += exp(x[k] - high);
        m->loss += high - x[label] + log(sum); /* in this order: beside a large score a logarithm is lost */
        int rank = rank_of(x, m->classes, label);
        m->top1 += rank < 1;
        m->class_top1[label] += rank < 1;
        m->top5 += rank < 5;
    }
}

void classify_top(int32_t *top, const float *scores, int classes, int k) {
    int count = 0;
    for (int c = 0; c < classes; c++) {
        int at = count;
        while (at > 0 && scores[c] > scores[top[at - 1]]) at--;
        if (at >= k) continue;
        if (count < k) count++;
        for (int j = count - 1; j > at; j--) top[j] = top[j - 1];
        top[at] = c;
    }
}
