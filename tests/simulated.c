#include "simulated.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "rule.h"

ClassifySpec half_spec(DType compute) {
    return (ClassifySpec){.model = {.dims = {16, 32, 48, 64},
                                    .depths = {1, 1, 2, 1},
                                    .heads = {1, 2, 3, 4},
                                    .attention = {ATTN_MALA, ATTN_LINEAR, ATTN_INLINE, ATTN_SOFTMAX},
                                    .layer_scale = {1, 1, 1, 1},
                                    .mlp_ratio = 3.5,
                                    .drop_path = 0.1f,
                                    .projection = 96,
                                    .classes = HALF_CLASSES},
                          .mean = {0.5f, 0.5f, 0.5f},
                          .std = {0.25f, 0.25f, 0.25f},
                          .smoothing = 0.1f,
                          .ema = true,
                          .compute = compute};
}

ClassifySpec half_plain_spec(DType compute) {
    ClassifySpec spec = half_spec(compute);
    spec.model.drop_path = 0;
    spec.float_images = true;
    return spec;
}

void half_hyper(float hyper[HYPER_COUNT], int64_t step, float loss_scale) {
    OptimizerConfig o = {.lr = 1e-3f, .min_lr = 1e-3f, .weight_decay = 0.05f, .beta1 = 0.9f, .beta2 = 0.999f,
                         .eps = 1e-8f, .clip = 1, .ema_decay = 0.9f};
    optimizer_hyper(&o, step, hyper);
    hyper[HYPER_INV_SCALE] = 1 / loss_scale;
}

/* ---- simulated ---- */

static void set_parameters(Interpreter *it) {
    const Graph *g = it->graph;
    for (int32_t p = 0; p < g->n_params; p++) {
        const ParamSpec *spec = &g->params[p];
        int64_t n = shape_count(&spec->shape);
        float *host = mem_zalloc((size_t)n, sizeof(float));
        rule_parameter(spec->name, &spec->shape, host);
        double *to = it->state[spec->buffer ? ROLE_BUFFER : ROLE_WEIGHT] + it->layout.offset[p];
        for (int64_t i = 0; i < n; i++) to[i] = host[i];
        free(host);
    }
}

Simulated simulated_new(ClassifyGraph c) {
    Simulated s = {.c = c, .it = interpreter_new(c.graph)};
    set_parameters(&s.it);
    return s;
}

void simulated_free(Simulated *s) {
    interpreter_free(&s->it);
    classify_graph_free(&s->c);
}

void simulated_images(Simulated *s, const char *name) {
    const Shape *shape = &graph_value(s->c.graph, s->c.images)->shape;
    float *host = mem_zalloc((size_t)shape_count(shape), sizeof(float));
    rule_images(name, host, (int)shape->dim[0], (int)shape->dim[1], (int)shape->dim[2]);
    for (int64_t i = 0; i < shape_count(shape); i++) s->it.x[s->c.images][i] = host[i];
    free(host);
}

Simulated simulated_step(DType compute, float loss_scale) {
    ClassifySpec spec = half_plain_spec(compute);
    Simulated s = simulated_new(classify_train_graph(&spec, HALF_BATCH, HALF_SIZE, HALF_SIZE));
    float hyper[HYPER_COUNT];
    simulated_images(&s, "image");
    s.it.x[s.c.targets][0] = 3, s.it.x[s.c.targets][1] = 7;
    s.it.x[s.c.scale][0] = loss_scale;
    half_hyper(hyper, 0, loss_scale);
    for (int i = 0; i < HYPER_COUNT; i++) s.it.x[s.c.hyper][i] = hyper[i];
    interpreter_run(&s.it, 0, s.c.graph->n_nodes);
    return s;
}

void simulated_logits(double logits[HALF_CLASSES], DType compute, unsigned fusion) {
    ClassifySpec spec = half_plain_spec(compute);
    Simulated s = simulated_new(classify_eval_graph(&spec, 1, HALF_SIZE, HALF_SIZE, fusion));
    simulated_images(&s, "image");
    interpreter_run(&s.it, 0, s.c.graph->n_nodes);
    for (int i = 0; i < HALF_CLASSES; i++) logits[i] = s.it.x[s.c.logits][i];
    simulated_free(&s);
}

/* ---- comparisons ---- */

double relative_l2(const double *want, const double *got, int64_t n) {
    double d = 0, s = 0;
    for (int64_t i = 0; i < n; i++) {
        d += (want[i] - got[i]) * (want[i] - got[i]);
        s += want[i] * want[i];
    }
    return sqrt(d / s);
}

void check_error(const char *what, double error, double least, double most) {
    if (!(error >= least && error <= most))
        fail_msg("%s: relative L2 error %.3g outside %g .. %g", what, error, least, most);
}

void check_gradients(const Simulated *exact, const double *got, const char *what, double least, double all,
                     double each) {
    const double *want = exact->it.state[ROLE_GRAD];
    check_error(what, relative_l2(want, got, exact->it.layout.total), least, all);
    for (int32_t p = 0; p < exact->c.graph->n_params; p++) {
        const ParamSpec *spec = &exact->c.graph->params[p];
        int64_t at = exact->it.layout.offset[p], n = shape_count(&spec->shape);
        double size = 0;
        for (int64_t i = 0; i < n; i++) size += fabs(want[at + i]);
        if (spec->buffer || size == 0) continue; /* 0 by mathematics: a bias in front of a batch norm */
        check_error(spec->name, relative_l2(want + at, got + at, n), 0, each);
    }
}
