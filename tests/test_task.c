/* test_task.c - the numbers of a classification task, beside ones worked out by hand: metrics and ranks, learning
 * rates, what an update is told and does, which parameters decay, which paths are dropped, when a run is given up. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/health.h"
#include "rule.h"
#include "task/classify.h"

static Err err;

#define OK(call) \
    do { \
        if (!(call)) fail_msg("%s: %s", #call, err.text); \
    } while (0)

static void expect_near(const char *what, int64_t number, double got, double want, double tolerance) {
    if (!(fabs(got - want) <= tolerance)) fail_msg("%s %lld: %.9g instead of %.9g", what, (long long)number, got, want);
}

/* ---- metrics ---- */

/* Six answers among seven classes. Of equal scores the lower class comes first. */
static void test_metrics_of_six_rows_with_ties(void **state) {
    (void)state;
    enum { K = 7 };
    const float logits[6][K] = {{0, 0, 0, 0, 0, 0, 0},         /* 0: first of seven equal ones */
                                {0, 0, 0, 0, 0, 0, 0},         /* 4: the fifth of them, just among five */
                                {0, 0, 0, 0, 0, 0, 0},         /* 5: the sixth, just not */
                                {3, 9, 9, 1, 2, 9, 0},         /* 2: second, behind class 1 */
                                {1, 2, 3, 4, 5, 6, 7},         /* 6: best */
                                {-1, -2, -3, -4, -5, -6, -7}}; /* 6: last */
    const int32_t labels[6] = {0, 4, 5, 2, 6, 6};
    ClassifyMetrics m;
    classify_metrics_init(&m, K);
    classify_metrics_add(&m, &logits[0][0], labels, 4); /* in two parts, as batches come */
    classify_metrics_add(&m, &logits[4][0], labels + 4, 2);
    assert_int_equal(m.images, 6);
    assert_int_equal(m.top1, 2);
    assert_int_equal(m.top5, 4);
    assert_int_equal(m.not_finite, 0);
    const int64_t images[K] = {1, 0, 1, 0, 1, 1, 2}, top1[K] = {1, 0, 0, 0, 0, 0, 1};
    for (int k = 0; k < K; k++) {
        assert_int_equal(m.class_images[k], images[k]);
        assert_int_equal(m.class_top1[k], top1[k]);
    }
    const double steps = 1 + exp(-1) + exp(-2) + exp(-3) + exp(-4) + exp(-5) + exp(-6),
                 fourth = log(3 * exp(9) + exp(3) + exp(2) + exp(1) + 1) - 9;
    expect_near("loss of row", 6, m.loss, 3 * log(7) + fourth + log(steps) + log(steps) + 6, 1e-5);
    classify_metrics_free(&m);
    for (int k = 4; k < 8; k++) assert_int_equal(classify_has_top5(k), k > 5);
}

/* Scores far from zero: a loss by exp alone would be infinite. */
static void test_loss_of_large_scores(void **state) {
    (void)state;
    const float logits[3][2] = {{1000, 998}, {-1000, -999}, {2000, 0}};
    const int32_t labels[3] = {1, 0, 1};
    ClassifyMetrics m;
    classify_metrics_init(&m, 2);
    classify_metrics_add(&m, &logits[0][0], labels, 3);
    expect_near("loss of rows", 3, m.loss, log(1 + exp(-2)) + 2 + log(1 + exp(-1)) + 1 + 2000, 1e-9);
    classify_metrics_free(&m);
}

static void expect_top(const float *scores, int classes, int k, const int32_t *want) {
    int32_t top[9];
    for (int i = 0; i < 9; i++) top[i] = -7;
    classify_top(top, scores, classes, k);
    for (int i = 0; i < 9; i++)
        if (top[i] != (i < k ? want[i] : -7)) fail_msg("place %d of %d is class %d", i + 1, k, top[i]);
}

static void test_best_classes_and_their_ties(void **state) {
    (void)state;
    const float equal[5] = {2, 2, 2, 2, 2}, mixed[6] = {1, 5, 3, 5, 3, 9}, rising[4] = {1, 2, 3, 4};
    expect_top(equal, 5, 5, (int32_t[]){0, 1, 2, 3, 4});
    expect_top(equal, 5, 2, (int32_t[]){0, 1});
    expect_top(mixed, 6, 6, (int32_t[]){5, 1, 3, 2, 4, 0});
    expect_top(mixed, 6, 4, (int32_t[]){5, 1, 3, 2});
    expect_top(mixed, 6, 1, (int32_t[]){5});
    expect_top(rising, 4, 3, (int32_t[]){3, 2, 1});
}

static void test_numbers_that_are_finite(void **state) {
    (void)state;
    const float bad[] = {0, -INFINITY, INFINITY, NAN};
    assert_true(classify_finite(bad, 1) && classify_finite(bad, 0));
    for (int i = 1; i < 4; i++) {
        float row[3] = {1, 2, bad[i]};
        assert_false(classify_finite(row, 3));
        assert_true(classify_finite(row, 2));
    }
}

/* ---- learning rates ---- */

/* 4 steps of warm-up of 20: linear, so step 0 has the first rate and step 4 the peak; the middle of the cosine, step
 * 12, has the mean of peak and least; the end, and what comes after it, the least. */
static void test_learning_rate_of_every_part(void **state) {
    (void)state;
    const OptimizerConfig c = {.lr = 1, .warmup_lr = 0.2f, .min_lr = 0.1f, .warmup_steps = 4, .total_steps = 20};
    const struct {
        int64_t step;
        double rate;
    } points[] = {{0, 0.2},
                  {1, 0.4},
                  {3, 0.8},
                  {4, 1},
                  {8, 0.55 + 0.45 * sqrt(0.5)},
                  {12, 0.55},
                  {16, 0.55 - 0.45 * sqrt(0.5)},
                  {20, 0.1},
                  {21, 0.1},
                  {1000, 0.1}};
    for (size_t i = 0; i < COUNTOF(points); i++)
        expect_near("rate of step", points[i].step, optimizer_lr(&c, points[i].step), points[i].rate, 1e-6);
}

static void test_learning_rate_without_warm_up(void **state) {
    (void)state;
    const OptimizerConfig c = {.lr = 3, .warmup_lr = 0.2f, .min_lr = 1, .total_steps = 6};
    const double rates[] = {3, 2 + 0.5 * sqrt(3), 2.5, 2, 1.5, 2 - 0.5 * sqrt(3), 1};
    for (int i = 0; i < 7; i++) expect_near("rate of step", i, optimizer_lr(&c, i), rates[i], 1e-6);
}

/* A warm-up that fills the run, or is longer, ends at the peak and stays there. */
static void test_learning_rate_of_warm_up_alone(void **state) {
    (void)state;
    const OptimizerConfig c = {.lr = 2, .warmup_lr = 1, .min_lr = 0.5f, .warmup_steps = 4, .total_steps = 4};
    const double rates[] = {1, 1.25, 1.5, 1.75, 2, 2};
    for (int i = 0; i < 6; i++) expect_near("rate of step", i, optimizer_lr(&c, i), rates[i], 1e-6);
}

static void test_what_an_update_is_told(void **state) {
    (void)state;
    OptimizerConfig c = {.lr = 0.5f,
                         .weight_decay = 0.25f,
                         .beta1 = 0.5f,
                         .beta2 = 0.75f,
                         .eps = 0.125f,
                         .clip = 3,
                         .ema_decay = 0.6f,
                         .min_lr = 0.5f,
                         .total_steps = 100};
    float h[HYPER_COUNT];
    for (int64_t step = 0; step < 3; step++) {
        memset(h, 0x7f, sizeof h);
        optimizer_hyper(&c, step, h);
        const float want[HYPER_COUNT] = {[HYPER_LR] = 0.5f,
                                         [HYPER_WEIGHT_DECAY] = 0.25f,
                                         [HYPER_BETA1] = 0.5f,
                                         [HYPER_BETA2] = 0.75f,
                                         [HYPER_EPS] = 0.125f,
                                         [HYPER_CLIP] = 3,
                                         [HYPER_EMA_DECAY] = 0.6f,
                                         [HYPER_INV_SCALE] = 1,
                                         [HYPER_CORRECTION1] = (float[]){0.5f, 0.75f, 0.875f}[step],
                                         [HYPER_CORRECTION2] = (float[]){0.25f, 0.4375f, 0.578125f}[step]};
        for (int i = 0; i < HYPER_COUNT; i++) expect_near("number", i, h[i], want[i], 0);
    }
    c.ema_ramp = true;
    const struct {
        int64_t step;
        double decay;
    } ramp[] = {{0, 0.1}, {2, 0.25}, {5, 0.4}, {12, 13.0 / 22}, {13, 0.6}, {1000, 0.6}};
    for (size_t i = 0; i < COUNTOF(ramp); i++) {
        optimizer_hyper(&c, ramp[i].step, h);
        expect_near("decay of the average at step", ramp[i].step, h[HYPER_EMA_DECAY], ramp[i].decay, 1e-7);
    }
}

/* ---- an update, by hand in double ---- */

enum { SIDE = 32, BATCH = 2, STEPS = 3 };

static ClassifySpec small_spec(void) {
    return (ClassifySpec){.model = {.dims = {4, 4, 8, 8},
                                    .depths = {1, 2, 1, 1},
                                    .heads = {1, 1, 2, 2},
                                    .attention = {ATTN_MALA, ATTN_LINEAR, ATTN_SOFTMAX, ATTN_SOFTMAX},
                                    .layer_scale = {1, 1, 1, 1},
                                    .mlp_ratio = 2,
                                    .drop_path = 0.3f,
                                    .projection = 8,
                                    .classes = 3},
                          .float_images = true,
                          .ema = true,
                          .unfused = true};
}

typedef struct {
    ClassifyGraph c;
    Backend backend;
    State state;
    Plan *plan;
} Updates;

static const StateRole kept[] = {ROLE_WEIGHT, ROLE_MOMENT1, ROLE_MOMENT2, ROLE_EMA};
enum { KEPT = 4 };

static void open_updates(Updates *u) {
    ClassifySpec spec = small_spec();
    u->c = classify_train_graph(&spec, BATCH, SIDE, SIDE);
    OK(backend_open_cpu(&u->backend, 1, &err));
    OK(state_new(&u->state, u->c.graph, &u->backend, classify_train_roles(&spec), &err));
    rule_state(&u->state, "");
    OK(state_copy_role(&u->state, ROLE_EMA, ROLE_WEIGHT, &err));
    const Val keep[] = {u->c.loss, u->c.norm};
    OK(plan_new(&u->plan, u->c.graph, &u->backend, &u->state, keep, 2, (PlanOptions){0}, &err));
}

static void close_updates(Updates *u) {
    plan_free(u->plan);
    state_free(&u->state);
    classify_graph_free(&u->c);
    u->backend.close(&u->backend);
}

/* Runs a step of the graph; the norm that it says. */
static double run_step(Updates *u, const float hyper[HYPER_COUNT], uint64_t step, float scale) {
    static float images[BATCH * SIDE * SIDE * 3];
    const int32_t labels[BATCH] = {(int32_t)(step % 3), 2};
    const uint64_t counter[2] = {9, step};
    float norm;
    rule_images(step % 2 ? "odd" : "even", images, BATCH, SIDE, SIDE);
    OK(plan_upload(u->plan, u->c.images, images, sizeof images, &err));
    OK(plan_upload(u->plan, u->c.targets, labels, sizeof labels, &err));
    OK(plan_upload(u->plan, u->c.counter, counter, sizeof counter, &err));
    OK(plan_upload(u->plan, u->c.hyper, hyper, HYPER_COUNT * sizeof *hyper, &err));
    OK(plan_upload(u->plan, u->c.scale, &scale, sizeof scale, &err));
    plan_run(u->plan);
    OK(plan_download(u->plan, u->c.norm, &norm, sizeof norm, &err));
    return norm;
}

typedef struct {
    double lr, decay, beta1, beta2, eps, clip, average, scale;
} Told;

/* AdamW with decoupled decay, as its paper has it, of element i in the step `t`, from 1. x: weight, moments, average.
 */
static void update_by_hand(double x[KEPT], double g, bool decays, const Told *h, int t, double norm) {
    g /= h->scale;
    if (h->clip > 0) g *= fmin(1, h->clip / (norm + 1e-6));
    x[1] = h->beta1 * x[1] + (1 - h->beta1) * g;
    x[2] = h->beta2 * x[2] + (1 - h->beta2) * g * g;
    const double m = x[1] / (1 - pow(h->beta1, t)), v = x[2] / (1 - pow(h->beta2, t));
    if (decays) x[0] *= 1 - h->lr * h->decay;
    x[0] -= h->lr * m / (sqrt(v) + h->eps);
    x[3] = h->average * x[3] + (1 - h->average) * x[0];
}

static float *parameter_copy(const Updates *u, StateRole role, int32_t p) {
    float *out = mem_zalloc((size_t)state_count(&u->state, p), sizeof *out);
    OK(state_read(&u->state, role, p, out, &err));
    return out;
}

/* The norm over all parameters' gradients, as they are after a step. */
static double norm_by_hand(const Updates *u, double scale) {
    double sum = 0;
    for (int32_t p = 0; p < u->state.n_params; p++) {
        if (u->state.params[p].buffer) continue;
        float *g = parameter_copy(u, ROLE_GRAD, p);
        for (int64_t i = 0; i < state_count(&u->state, p); i++) sum += pow((double)g[i] / scale, 2);
        free(g);
    }
    return sqrt(sum);
}

static void expect_update(const Updates *u, int32_t p, float *const before[KEPT], const Told *h, int t, double norm) {
    float *g = parameter_copy(u, ROLE_GRAD, p), *after[KEPT];
    const ParamSpec *spec = &u->state.params[p];
    for (int r = 0; r < KEPT; r++) after[r] = parameter_copy(u, kept[r], p);
    for (int64_t i = 0; i < state_count(&u->state, p); i++) {
        double x[KEPT];
        for (int r = 0; r < KEPT; r++) x[r] = before[r][i];
        update_by_hand(x, g[i], spec->shape.rank > 1, h, t, norm); /* the released recipe: no decay of vectors */
        for (int r = 0; r < KEPT; r++)
            if (!(fabs(after[r][i] - x[r]) <= 1e-6 * (fabs(x[r]) + h->lr)))
                fail_msg("%s: role %d of element %lld after step %d: %.9g instead of %.9g", spec->name, r, (long long)i,
                         t, (double)after[r][i], x[r]);
    }
    for (int r = 0; r < KEPT; r++) free(after[r]);
    free(g);
}

static void check_steps(const Told *h) {
    Updates u;
    open_updates(&u);
    float *(*before)[KEPT] = mem_zalloc((size_t)u.state.n_params, sizeof *before);
    for (int t = 1; t <= STEPS; t++) {
        OptimizerConfig c = {.lr = (float)h->lr,
                             .min_lr = (float)h->lr,
                             .weight_decay = (float)h->decay,
                             .clip = (float)h->clip,
                             .beta1 = (float)h->beta1,
                             .beta2 = (float)h->beta2,
                             .eps = (float)h->eps,
                             .ema_decay = (float)h->average};
        float hyper[HYPER_COUNT];
        optimizer_hyper(&c, t - 1, hyper);
        hyper[HYPER_INV_SCALE] = (float)(1 / h->scale);
        for (int32_t p = 0; p < u.state.n_params; p++)
            for (int r = 0; r < KEPT && !u.state.params[p].buffer; r++) before[p][r] = parameter_copy(&u, kept[r], p);
        const double norm = run_step(&u, hyper, (uint64_t)t, (float)h->scale), want = norm_by_hand(&u, h->scale);
        expect_near("norm of step", t, norm, want, 1e-5 * want);
        if (h->clip > 0) assert_true(want > 2 * h->clip); /* it is a large one, which clipping has to change */
        for (int32_t p = 0; p < u.state.n_params; p++) {
            if (u.state.params[p].buffer) continue;
            expect_update(&u, p, before[p], h, t, want);
            for (int r = 0; r < KEPT; r++) free(before[p][r]);
        }
    }
    free(before);
    close_updates(&u);
}

static void test_updates_by_hand(void **state) {
    (void)state;
    check_steps(
        &(Told){.lr = 0.01, .decay = 0.5, .beta1 = 0.5, .beta2 = 0.75, .eps = 0.0625, .average = 0.75, .scale = 1});
}

static void test_clipped_and_scaled_updates_by_hand(void **state) {
    (void)state;
    check_steps(&(Told){.lr = 0.03125,
                        .decay = 0.125,
                        .beta1 = 0.75,
                        .beta2 = 0.5,
                        .eps = 0.001953125,
                        .clip = 0.25,
                        .average = 0.5,
                        .scale = 64});
}

/* ---- the network's own decisions ---- */

/* Two streams a block, the first block has none: every residual branch draws its own. */
static void test_every_branch_is_dropped_by_itself(void **state) {
    (void)state;
    ClassifySpec spec = small_spec();
    ClassifyGraph c = classify_train_graph(&spec, BATCH, SIDE, SIDE);
    int branches = 0, draws = 0;
    for (int32_t i = 0; i < c.graph->n_nodes; i++) {
        const Node *n = &c.graph->nodes[i];
        if (n->op == OP_drop_path) {
            draws++;
            assert_int_equal(n->attr.drop_path.streams, 8);
            assert_int_equal(n->attr.drop_path.batch, BATCH);
            assert_true(n->attr.drop_path.rate == 0.3f);
        }
        if (n->op != OP_residual) continue;
        assert_int_equal(node_in(c.graph, n, 3) == NO_VAL, branches < 2);
        if (branches >= 2) assert_int_equal(n->attr.residual.stream, branches - 2);
        branches++;
    }
    assert_int_equal(branches, 10);
    assert_int_equal(draws, 1);
    classify_graph_free(&c);
    spec.model.drop_path = 0;
    c = classify_train_graph(&spec, BATCH, SIDE, SIDE);
    for (int32_t i = 0; i < c.graph->n_nodes; i++) assert_int_not_equal(c.graph->nodes[i].op, OP_drop_path);
    classify_graph_free(&c);
    spec.model.drop_path = 0.3f; /* nor where nothing is trained, which takes running statistics */
    c = classify_eval_graph(&spec, BATCH, SIDE, SIDE, 0);
    for (int32_t i = 0; i < c.graph->n_nodes; i++) {
        assert_int_not_equal(c.graph->nodes[i].op, OP_drop_path);
        assert_int_not_equal(c.graph->nodes[i].op, OP_batch_norm);
    }
    classify_graph_free(&c);
}

/* What a new network starts with: the released initialisation. */
static void test_what_parameters_start_as(void **state) {
    (void)state;
    ClassifySpec spec = small_spec();
    for (int i = 0; i < MAVIT_STAGES; i++) spec.model.layer_scale[i] = 0.25f * (float)(i + 1);
    ClassifyGraph c = classify_train_graph(&spec, BATCH, SIDE, SIDE);
    int gammas = 0;
    for (int32_t p = 0; p < c.graph->n_params; p++) {
        const ParamSpec *s = &c.graph->params[p];
        const char *dot = strrchr(s->name, '.'), *leaf = dot ? dot + 1 : s->name;
        const bool statistic = strncmp(leaf, "running_", 8) == 0;
        InitKind want = strcmp(leaf, "running_var") == 0 ? INIT_ONE : INIT_ZERO;
        float value = 0;
        if (strncmp(leaf, "gamma_", 6) == 0) want = INIT_CONST, value = 0.25f * (float)(s->name[7] - '0' + 1), gammas++;
        if (strcmp(leaf, "weight") == 0) want = s->shape.rank > 1 ? INIT_TRUNC_NORMAL : INIT_ONE;
        if (want == INIT_TRUNC_NORMAL) value = 0.02f;
        if (s->init != want || (value != 0 && s->init_value != value) || s->buffer != statistic ||
            s->decay != (s->shape.rank > 1))
            fail_msg("%s starts as %d (%g), buffer %d, decay %d", s->name, s->init, (double)s->init_value, s->buffer,
                     s->decay);
    }
    assert_int_equal(gammas, 10);
    classify_graph_free(&c);
}

static void test_roles_that_a_run_keeps(void **state) {
    (void)state;
    ClassifySpec spec = small_spec();
    const unsigned plain =
        1u << ROLE_WEIGHT | 1u << ROLE_GRAD | 1u << ROLE_MOMENT1 | 1u << ROLE_MOMENT2 | 1u << ROLE_BUFFER;
    assert_int_equal(classify_train_roles(&spec), plain | 1u << ROLE_EMA);
    spec.ema = false;
    assert_int_equal(classify_train_roles(&spec), plain);
    spec.compute = DT_F16;
    assert_int_equal(classify_train_roles(&spec), plain | 1u << ROLE_CAST);
}

/* ---- when a run is given up ---- */

static bool bad_step(Health *h, int64_t step, float used) { return health_step(h, step, used, NAN, NAN, NULL, &err); }

/* 20 bad steps in a row; one that counts begins the count anew. */
static void test_twenty_bad_steps_in_a_row_end_a_run(void **state) {
    (void)state;
    Health h = {.scale = {1, 0}};
    int64_t step = 0;
    for (int i = 0; i < 19; i++) assert_true(bad_step(&h, step++, 1));
    assert_true(health_step(&h, step++, 1, 2.5f, 1, NULL, &err));
    for (int i = 0; i < 19; i++) assert_true(bad_step(&h, step++, 1));
    assert_false(bad_step(&h, step, 1));
    assert_int_equal(err.code, EXIT_HEALTH);
    assert_non_null(strstr(err.text, "20 steps in a row"));
    h = (Health){.scale = {1, 0}}; /* the scale is for float16 alone */
    for (int i = 0; i <= LOSS_SCALE_PATIENCE; i++) assert_true(health_step(&h, i, 1, 1, 1, NULL, &err));
    assert_true(h.scale.scale == 1);
}

/* Either number tells; a loss that is finite with a gradient that is not counts as bad, too, where nothing is scaled.
 */
static void test_what_a_bad_step_is(void **state) {
    (void)state;
    const float outcomes[][2] = {{NAN, 1}, {1, NAN}, {INFINITY, 1}, {1, INFINITY}, {1, -INFINITY}};
    for (size_t i = 0; i < COUNTOF(outcomes); i++) {
        Health h = {.scale = {1, 0}};
        assert_true(health_step(&h, 0, 1, outcomes[i][0], outcomes[i][1], NULL, &err));
        assert_int_equal(h.bad_steps, 1);
    }
}

/* With float16 a gradient that goes too far halves the scale and is no bad step, until the scale is the least one; a
 * loss that is no number is always bad. */
static void test_scaled_losses_may_go_too_far(void **state) {
    (void)state;
    Health h = {.scaled = true, .scale = {8, 0}};
    for (float scale = 8; scale > 1; scale /= 2) {
        assert_true(health_step(&h, 0, scale, 1, INFINITY, NULL, &err));
        assert_true(h.scale.scale == scale / 2);
        assert_int_equal(h.bad_steps, 0);
    }
    for (int i = 0; i < 19; i++) assert_true(health_step(&h, 0, 1, 1, INFINITY, NULL, &err));
    assert_false(health_step(&h, 0, 1, 1, INFINITY, NULL, &err));
    Health loss = {.scaled = true, .scale = {8, 0}};
    assert_true(bad_step(&loss, 0, 8));
    assert_int_equal(loss.bad_steps, 1);
    assert_true(loss.scale.scale == 4);
    assert_true(health_step(&loss, 1, 4, 1, 1, NULL, &err));
    assert_int_equal(loss.scale.good, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metrics_of_six_rows_with_ties),
        cmocka_unit_test(test_loss_of_large_scores),
        cmocka_unit_test(test_best_classes_and_their_ties),
        cmocka_unit_test(test_numbers_that_are_finite),
        cmocka_unit_test(test_learning_rate_of_every_part),
        cmocka_unit_test(test_learning_rate_without_warm_up),
        cmocka_unit_test(test_learning_rate_of_warm_up_alone),
        cmocka_unit_test(test_what_an_update_is_told),
        cmocka_unit_test(test_updates_by_hand),
        cmocka_unit_test(test_clipped_and_scaled_updates_by_hand),
        cmocka_unit_test(test_every_branch_is_dropped_by_itself),
        cmocka_unit_test(test_what_parameters_start_as),
        cmocka_unit_test(test_roles_that_a_run_keeps),
        cmocka_unit_test(test_twenty_bad_steps_in_a_row_end_a_run),
        cmocka_unit_test(test_what_a_bad_step_is),
        cmocka_unit_test(test_scaled_losses_may_go_too_far),
    };
    return cmocka_run_group_tests_name("task", tests, NULL, NULL);
}
