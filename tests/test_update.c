/* test_update.c - updates of a small network worked out by hand in double precision: AdamW, which parameters decay,
 * clipping, scaled losses, the average; and what a network's graph decides: what parameters start as, which paths are
 * dropped. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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

static void open_spec(Updates *u, const ClassifySpec *spec) {
    u->c = classify_train_graph(spec, BATCH, SIDE, SIDE);
    OK(backend_open_cpu(&u->backend, 1, &err));
    OK(state_new(&u->state, u->c.graph, &u->backend, classify_train_roles(spec), &err));
    rule_state(&u->state, "");
    if (spec->ema) OK(state_copy_role(&u->state, ROLE_EMA, ROLE_WEIGHT, &err));
    const Val keep[] = {u->c.loss, u->c.norm};
    OK(plan_new(&u->plan, u->c.graph, &u->backend, &u->state, keep, 2, (PlanOptions){0}, &err));
}

static void open_updates(Updates *u) {
    const ClassifySpec spec = small_spec();
    open_spec(u, &spec);
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

/* The loss of a new network for labels, or for shares of the classes. */
static double loss_of(float smoothing, const int32_t labels[BATCH], const float shares[BATCH * 3]) {
    static float images[BATCH * SIDE * SIDE * 3];
    const float hyper[HYPER_COUNT] = {[HYPER_INV_SCALE] = 1, [HYPER_CORRECTION1] = 1, [HYPER_CORRECTION2] = 1};
    ClassifySpec spec = small_spec();
    Updates u = {0};
    float loss;
    spec.soft_targets = shares, spec.smoothing = smoothing, spec.ema = false, spec.model.drop_path = 0;
    open_spec(&u, &spec);
    rule_images("even", images, BATCH, SIDE, SIDE);
    OK(plan_upload(u.plan, u.c.images, images, sizeof images, &err));
    OK(shares ? plan_upload(u.plan, u.c.targets, shares, BATCH * 3 * sizeof *shares, &err)
              : plan_upload(u.plan, u.c.targets, labels, BATCH * sizeof *labels, &err));
    OK(plan_upload(u.plan, u.c.hyper, hyper, sizeof hyper, &err));
    OK(plan_upload(u.plan, u.c.scale, &(float){1}, sizeof(float), &err));
    plan_run(u.plan);
    OK(plan_download(u.plan, u.c.loss, &loss, sizeof loss, &err));
    close_updates(&u);
    return loss;
}

/* Targets as shares of classes are labels where one class has all of it, and the mean of two losses where two share;
 * smoothing by 0.3 leaves a label 0.8 and gives each of the other two classes 0.1. */
static void test_targets_that_are_shares(void **state) {
    (void)state;
    const double first = loss_of(0, (int32_t[]){0, 2}, NULL), second = loss_of(0, (int32_t[]){1, 2}, NULL);
    assert_true(fabs(first - second) > 1e-2);
    expect_near("loss of class", 0, loss_of(0, NULL, (float[]){1, 0, 0, 0, 0, 1}), first, 1e-6);
    expect_near("loss of class", 1, loss_of(0, NULL, (float[]){0, 1, 0, 0, 0, 1}), second, 1e-6);
    expect_near("loss of both", 0, loss_of(0, NULL, (float[]){0.5f, 0.5f, 0, 0, 0, 1}), (first + second) / 2, 1e-6);
    const double smooth = loss_of(0, NULL, (float[]){0.8f, 0.1f, 0.1f, 0.1f, 0.1f, 0.8f});
    assert_true(fabs(smooth - first) > 1e-2);
    expect_near("smoothed loss of class", 0, loss_of(0.3f, (int32_t[]){0, 2}, NULL), smooth, 1e-6);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_updates_by_hand),          cmocka_unit_test(test_clipped_and_scaled_updates_by_hand),
        cmocka_unit_test(test_targets_that_are_shares),  cmocka_unit_test(test_every_branch_is_dropped_by_itself),
        cmocka_unit_test(test_what_parameters_start_as), cmocka_unit_test(test_roles_that_a_run_keeps),
    };
    return cmocka_run_group_tests_name("update", tests, NULL, NULL);
}
