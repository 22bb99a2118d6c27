/* test_cuda_nonfinite.c - numbers that are none, and numbers far apart, on every backend alike: each instruction set of
 * this machine, and the CUDA kernels through the host emulation, threads in order and backwards. What diverged must
 * show in the loss, and must leave running statistics, weights, moments and averages as they were. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/cuda/cuda.h"
#include "emulate/control.h"
#include "interpret.h"
#include "pass/autodiff.h"
#include "run/plan.h"

static Err err;

#define OK(call) \
    do { \
        if (!(call)) fail_msg("%s: %s", #call, err.text); \
    } while (0)

static bool isa_usable(const char *isa) {
#if defined(__x86_64__)
    if (strcmp(isa, "v3") == 0) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (strcmp(isa, "v4") == 0) return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#endif
    return strcmp(isa, "generic") == 0;
}

typedef void (*Check)(Backend *b, const char *where);

static void on_every_backend(Check check) {
    static const char *const isas[] = {"generic", "v3", "v4"};
    Backend b;
    for (size_t i = 0; i < COUNTOF(isas); i++) {
        if (!isa_usable(isas[i])) continue;
        setenv("MALA_ISA", isas[i], 1);
        OK(backend_open_cpu(&b, 2, &err));
        check(&b, isas[i]);
        b.close(&b);
    }
    unsetenv("MALA_ISA");
    emu_set_gpu(NULL);
    for (int mode = 0; mode < 2; mode++) {
        emu_set_mode(mode);
        OK(backend_open_cuda(&b, 0, &err));
        check(&b, mode ? "cuda, backwards" : "cuda");
        b.close(&b);
    }
}

static Plan *plan_of(const Graph *g, Backend *b, const Val *keep, int n_keep) {
    Plan *p;
    OK(plan_new(&p, g, b, NULL, keep, n_keep, (PlanOptions){.no_reuse = true}, &err));
    return p;
}

static void put(Plan *p, Val v, const float *x, int n) { OK(plan_upload(p, v, x, (size_t)n * sizeof *x, &err)); }
static void get(Plan *p, Val v, float *x, int n) { OK(plan_download(p, v, x, (size_t)n * sizeof *x, &err)); }

/* ---- BatchNorm ---- */

enum { ROWS = 3, CHANNELS = 4 };
static const float lost[] = {INFINITY, -INFINITY, NAN, 3e38f}; /* the last: finite, its square is not */

/* Channel 1 is not finite; 0, 2 and 3 are, and move as the definition says. */
static void check_statistics(Backend *b, const char *where) {
    static const char *const names[] = {"gain", "bias", "running_mean", "running_var"};
    static const float one[CHANNELS] = {1, 1, 1, 1};
    for (size_t k = 0; k < COUNTOF(lost); k++) {
        Graph *g = graph_new();
        Val v[4], x = graph_input(g, "x", DT_F32, SHAPE(ROWS, CHANNELS));
        for (int i = 0; i < 4; i++) v[i] = graph_input(g, names[i], DT_F32, SHAPE(CHANNELS));
        Val y = op_batch_norm(g, x, v[0], v[1], v[2], v[3], 1e-5f, 0.1f);
        Plan *p = plan_of(g, b, &y, 1);
        float pixels[ROWS * CHANNELS] = {1, 2, 3, 4, 5, lost[k], 7, 8, 9, -lost[k], 12, 11};
        float mean[CHANNELS], var[CHANNELS];
        put(p, x, pixels, ROWS * CHANNELS);
        for (int i = 0; i < 4; i++) put(p, v[i], one, CHANNELS);
        plan_run(p);
        get(p, v[2], mean, CHANNELS), get(p, v[3], var, CHANNELS);
        if (!(mean[1] == 1 && var[1] == 1))
            fail_msg("%s: a batch with %g leaves a mean of %g and a variance of %g", where, (double)lost[k],
                     (double)mean[1], (double)var[1]);
        /* 0.9 + 0.1 of the batch's: means 5, 22/3, 23/3; variances 16, 61/3, 37/3 */
        assert_true(fabsf(mean[0] - 1.4f) < 1e-5f && fabsf(mean[2] - 1.6333333f) < 1e-5f);
        assert_true(fabsf(mean[3] - 1.6666667f) < 1e-5f);
        assert_true(fabsf(var[0] - 2.5f) < 1e-5f && fabsf(var[2] - 2.9333333f) < 1e-5f);
        assert_true(fabsf(var[3] - 2.1333333f) < 1e-5f);
        plan_free(p);
        graph_free(g);
    }
}

static void test_running_statistics_survive_a_lost_batch(void **state) {
    (void)state;
    on_every_backend(check_statistics);
}

/* The reference, to which the kernels are held elsewhere, keeps the promise, too. */
static void test_the_reference_keeps_them(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val in[5] = {graph_input(g, "x", DT_F32, SHAPE(ROWS, CHANNELS))};
    for (int i = 1; i < 5; i++) in[i] = graph_input(g, "v", DT_F32, SHAPE(CHANNELS));
    op_batch_norm(g, in[0], in[1], in[2], in[3], in[4], 1e-5f, 0.1f);
    Interpreter it = interpreter_new(g);
    for (int i = 0; i < ROWS * CHANNELS; i++) it.x[in[0]][i] = i == 5 ? NAN : i;
    for (int i = 0; i < CHANNELS; i++) it.x[in[3]][i] = it.x[in[4]][i] = 1;
    interpreter_run(&it, 0, g->n_nodes);
    assert_true(it.x[in[3]][1] == 1 && it.x[in[4]][1] == 1);
    assert_true(it.x[in[3]][0] > 1.2 && it.x[in[4]][0] > 2);
    interpreter_free(&it);
    graph_free(g);
}

/* ---- the loss ---- */

enum { SAMPLES = 3 };

/* Logits of three samples, the second with one number that is none at class `at`. */
static void make_logits(float *x, int classes, int at, float bad) {
    for (int i = 0; i < SAMPLES * classes; i++) x[i] = (float)(i * 7 % 11) / 4 - 1;
    x[classes + at] = bad;
}

static void expect_row(const float *x, int n, bool number, const char *where, const char *what) {
    for (int i = 0; i < n; i++)
        if (isfinite(x[i]) != number)
            fail_msg("%s: %s: %g at %d of %d", where, what, (double)x[i], i, n);
}

/* loss, probabilities and gradient of the row are no numbers; the other rows' probabilities are. */
static void check_loss_at(Backend *b, const char *where, int classes, int at, float bad, bool labels) {
    Graph *g = graph_new();
    Val x = graph_input(g, "logits", DT_F32, SHAPE(SAMPLES, classes));
    Val t = labels ? graph_input(g, "labels", DT_I32, SHAPE(SAMPLES))
                   : graph_input(g, "targets", DT_F32, SHAPE(SAMPLES, classes));
    Val loss = op_cross_entropy(g, x, t, 0.1f), prob = loss + 1, soft = op_softmax(g, x);
    Val seed = graph_input(g, "seed", DT_F32, SHAPE(1));
    Val *grad = mem_zalloc((size_t)g->n_values, sizeof *grad);
    autodiff(g, &loss, &seed, 1, false, grad);
    Plan *p = plan_of(g, b, (Val[]){loss, prob, soft, grad[x]}, 4);
    const int n = SAMPLES * classes;
    float *logits = mem_zalloc((size_t)n, sizeof *logits), *got = mem_zalloc((size_t)n, sizeof *got), cost;
    make_logits(logits, classes, at, bad);
    put(p, x, logits, n);
    put(p, seed, &(float){1}, 1);
    if (labels) OK(plan_upload(p, t, (int32_t[]){0, classes - 1, 1}, SAMPLES * 4, &err));
    for (int i = 0; i < n; i++) got[i] = 1.0f / (float)classes;
    if (!labels) put(p, t, got, n);
    plan_run(p);
    get(p, loss, &cost, 1);
    expect_row(&cost, 1, false, where, "loss");
    const Val rows[] = {prob, soft, grad[x]};
    static const char *const names[] = {"probability", "softmax", "gradient"};
    for (int k = 0; k < 3; k++) {
        get(p, rows[k], got, n);
        expect_row(got, classes, true, where, names[k]);
        expect_row(got + classes, classes, false, where, names[k]);
        expect_row(got + 2 * classes, classes, true, where, names[k]);
    }
    free(logits), free(got), free(grad);
    plan_free(p);
    graph_free(g);
}

static void check_loss(Backend *b, const char *where) {
    static const int classes[] = {2, 17, 48, 1000};
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t k = 0; k < COUNTOF(classes); k++)
        for (size_t i = 0; i < COUNTOF(bad); i++)
            for (int place = 0; place < 3; place++)
                check_loss_at(b, where, classes[k], place * (classes[k] - 1) / 2, bad[i], place != 1);
}

static void test_a_lost_score_shows_in_the_loss(void **state) {
    (void)state;
    on_every_backend(check_loss);
}

/* ---- the optimizer ---- */

enum { PARAMETERS = 70 };

/* A gradient that is none, anywhere: the norm says so, and nothing moves. A norm that is a number moves all. */
static void check_step(Backend *b, const char *where) {
    static const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f, 0.5f};
    for (size_t k = 0; k < COUNTOF(bad); k++) {
        const bool lost_step = bad[k] != 0.5f;
        Graph *g = graph_new();
        Val grad = graph_input(g, "grad", DT_F32, SHAPE(PARAMETERS)), kept[4];
        Val hyper = graph_input(g, "hyper", DT_F32, SHAPE(HYPER_COUNT)), norm = op_grad_norm(g, grad, hyper);
        for (int i = 0; i < 4; i++) kept[i] = graph_input(g, "kept", DT_F32, SHAPE(PARAMETERS));
        op_adamw(g, kept[0], grad, kept[1], kept[2], norm, hyper, true);
        op_ema(g, kept[0], kept[3], norm, hyper);
        Plan *p = plan_of(g, b, &norm, 1);
        float h[HYPER_COUNT] = {[HYPER_LR] = 0.1f, [HYPER_WEIGHT_DECAY] = 0.1f, [HYPER_BETA1] = 0.9f,
                                [HYPER_BETA2] = 0.9f, [HYPER_EPS] = 1e-8f, [HYPER_CORRECTION1] = 0.1f,
                                [HYPER_CORRECTION2] = 0.1f, [HYPER_CLIP] = 1, [HYPER_EMA_DECAY] = 0.5f,
                                [HYPER_INV_SCALE] = lost_step ? 4 : 1};
        float x[PARAMETERS], was[PARAMETERS], average[PARAMETERS], n;
        for (int i = 0; i < PARAMETERS; i++) x[i] = 0.25f, was[i] = 2, average[i] = 4;
        x[PARAMETERS - 1 - (int)k] = bad[k];
        put(p, grad, x, PARAMETERS), put(p, hyper, h, HYPER_COUNT);
        for (int i = 0; i < 4; i++) put(p, kept[i], i == 3 ? average : was, PARAMETERS);
        plan_run(p);
        get(p, norm, &n, 1);
        if (isfinite(n) == lost_step)
            fail_msg("%s: a gradient of %g has a norm of %g", where, (double)bad[k], (double)n);
        for (int i = 0; i < 4; i++) {
            get(p, kept[i], x, PARAMETERS);
            for (int j = 0; j < PARAMETERS; j++)
                if ((x[j] == (i == 3 ? 4 : 2)) != lost_step)
                    fail_msg("%s: norm %g: tensor %d holds %g at %d", where, (double)n, i, (double)x[j], j);
        }
        plan_free(p);
        graph_free(g);
    }
}

static void test_a_lost_step_changes_nothing(void **state) {
    (void)state;
    on_every_backend(check_step);
}

/* ---- softmax attention ---- */

enum { HEAD = 4, MOST_TOKENS = 40 };

typedef struct {
    Graph *g;
    Val qkvo, w, bias, seed, y, *grad;
} Attend;

static Attend attend_new(int tokens) {
    Attend a = {.g = graph_new()};
    a.qkvo = graph_input(a.g, "qkvo", DT_F32, SHAPE(1, 1, tokens, 4 * HEAD));
    a.w = graph_input(a.g, "w", DT_F32, SHAPE(HEAD, 1, 5, 5));
    a.bias = graph_input(a.g, "b", DT_F32, SHAPE(HEAD));
    a.y = op_attention(a.g, a.qkvo, a.w, a.bias, ATTN_SOFTMAX, 1);
    a.seed = graph_input(a.g, "seed", DT_F32, SHAPE(1, 1, tokens, HEAD));
    a.grad = mem_zalloc((size_t)a.g->n_values, sizeof(Val));
    autodiff(a.g, &a.y, &a.seed, 1, false, a.grad);
    return a;
}

static void attend_free(Attend *a) {
    free(a->grad);
    graph_free(a->g);
}

/* y (tokens, HEAD) and dqkvo (tokens, 4 HEAD) on a backend, the 5x5 being 0 */
static void attend_run(const Attend *a, Backend *b, const float *qkvo, int tokens, float *y, float *dqkvo) {
    Plan *p = plan_of(a->g, b, (Val[]){a->y, a->grad[a->qkvo]}, 2);
    float zero[25 * HEAD] = {0}, seed[MOST_TOKENS * HEAD];
    for (int i = 0; i < tokens * HEAD; i++) seed[i] = (float)(i % 5) - 1.5f;
    put(p, a->qkvo, qkvo, tokens * 4 * HEAD);
    put(p, a->w, zero, 25 * HEAD), put(p, a->bias, zero, HEAD), put(p, a->seed, seed, tokens * HEAD);
    plan_run(p);
    get(p, a->y, y, tokens * HEAD), get(p, a->grad[a->qkvo], dqkvo, tokens * 4 * HEAD);
    plan_free(p);
}

static void attend_reference(const Attend *a, const float *qkvo, int tokens, double *y, double *dqkvo) {
    Interpreter it = interpreter_new(a->g);
    for (int i = 0; i < tokens * 4 * HEAD; i++) it.x[a->qkvo][i] = qkvo[i];
    for (int i = 0; i < tokens * HEAD; i++) it.x[a->seed][i] = i % 5 - 1.5;
    interpreter_run(&it, 0, a->g->n_nodes);
    memcpy(y, it.x[a->y], (size_t)(tokens * HEAD) * sizeof *y);
    memcpy(dqkvo, it.x[a->grad[a->qkvo]], (size_t)(tokens * 4 * HEAD) * sizeof *y);
    interpreter_free(&it);
}

static void expect_near(const float *got, const double *want, int n, int tokens, const char *where, const char *what) {
    for (int i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= 1e-4 * (1 + fabs(want[i]))))
            fail_msg("%s: %d tokens: %s[%d] is %g instead of %g", where, tokens, what, i, (double)got[i], want[i]);
}

/* q and k in the first channel, which a map of one row does not turn: scores of +-150, whose exponentials are no
 * numbers, so that only the right largest score keeps the sum one. `high`: the key with +150, or none. */
static void far_scores(float *qkvo, int tokens, int high) {
    for (int t = 0; t < tokens; t++)
        for (int c = 0; c < HEAD; c++) {
            float *x = qkvo + t * 4 * HEAD + c;
            x[0] = c == 0 ? 20 : 0;
            x[HEAD] = c == 0 ? (t == high ? 15 : -15) : 0;
            x[2 * HEAD] = (float)((t * 3 + c) % 7) / 2 - 1;
            x[3 * HEAD] = 0.5f + (float)c / 4;
        }
}

/* tokens beyond a tile's end, which do not exist, have a score of 0: far above what is there */
static void check_far_scores(Backend *b, const char *where) {
    static const int sizes[] = {1, 2, 3, 4, 5, 7, 16, 17, 33, 40};
    float qkvo[MOST_TOKENS * 4 * HEAD], y[MOST_TOKENS * HEAD], dqkvo[MOST_TOKENS * 4 * HEAD];
    double want_y[MOST_TOKENS * HEAD], want_dqkvo[MOST_TOKENS * 4 * HEAD];
    for (size_t k = 0; k < COUNTOF(sizes); k++) {
        const int n = sizes[k], high[] = {n - 1, 0, n / 2, -1};
        Attend a = attend_new(n);
        for (size_t i = 0; i < COUNTOF(high); i++) {
            far_scores(qkvo, n, high[i]);
            attend_run(&a, b, qkvo, n, y, dqkvo);
            attend_reference(&a, qkvo, n, want_y, want_dqkvo);
            expect_near(y, want_y, n * HEAD, n, where, "y");
            expect_near(dqkvo, want_dqkvo, n * 4 * HEAD, n, where, "gradient");
        }
        attend_free(&a);
    }
}

static void test_scores_far_apart_overflow_nothing(void **state) {
    (void)state;
    on_every_backend(check_far_scores);
}

/* A query that is none: its own result and gradient are none, nor is what any key and value learn from it. */
static void check_lost_query(Backend *b, const char *where) {
    enum { N = 5, AT = 2 };
    float qkvo[N * 4 * HEAD], y[N * HEAD], dqkvo[N * 4 * HEAD];
    for (int i = 0; i < N * 4 * HEAD; i++) qkvo[i] = (float)(i % 9) / 8;
    qkvo[AT * 4 * HEAD] = NAN;
    Attend a = attend_new(N);
    attend_run(&a, b, qkvo, N, y, dqkvo);
    for (int t = 0; t < N; t++) {
        expect_row(y + t * HEAD, HEAD, t != AT, where, "y");
        expect_row(dqkvo + t * 4 * HEAD, 1, t != AT, where, "dq");
        expect_row(dqkvo + t * 4 * HEAD + HEAD, HEAD, false, where, "dk");
        expect_row(dqkvo + t * 4 * HEAD + 2 * HEAD, HEAD, false, where, "dv");
    }
    attend_free(&a);
}

static void test_a_lost_query_shows_in_the_gradient(void **state) {
    (void)state;
    on_every_backend(check_lost_query);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_running_statistics_survive_a_lost_batch),
        cmocka_unit_test(test_the_reference_keeps_them),
        cmocka_unit_test(test_a_lost_score_shows_in_the_loss),
        cmocka_unit_test(test_a_lost_step_changes_nothing),
        cmocka_unit_test(test_scores_far_apart_overflow_nothing),
        cmocka_unit_test(test_a_lost_query_shows_in_the_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
