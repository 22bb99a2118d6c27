/* test_plan_run.c - running a plan: what is run and what is not, constants and weights that change, weights read from a
 * source, results fetched late, sizes that are only measured. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "run/plan.h"

static Err err;
static Backend backend;

#define OK(call) \
    do { \
        if (!(call)) fail_msg("%s: %s", #call, err.text); \
    } while (0)

enum { N = 5 };

static float gelu_of(float x) { return (float)(0.5 * (double)x * (1 + erf((double)x / sqrt(2)))); }

static bool near(float a, float b) { return fabsf(a - b) <= 2e-6f * (1 + fabsf(b)); }

static Val weight(Graph *g, const char *name) { return graph_param(g, (ParamSpec){.name = name, .shape = SHAPE(N)}); }

static void write_all(State *s, const char *name, float value) {
    float x[N];
    for (int i = 0; i < N; i++) x[i] = value;
    OK(state_write(s, ROLE_WEIGHT, state_find(s, name), x, &err));
}

static float first_kept(Plan *p, Val v) {
    float x[N];
    OK(plan_download(p, v, x, sizeof x, &err));
    for (int i = 1; i < N; i++) assert_true(x[i] == x[0]);
    return x[0];
}

static void upload_all(Plan *p, Val v, float value) {
    float x[N];
    for (int i = 0; i < N; i++) x[i] = value;
    OK(plan_upload(p, v, x, sizeof x, &err));
}

/* ---- constants ---- */

/* What depends on weights alone is computed when the plan is made and when it is told that they have changed. */
static void test_constants_change_with_a_refresh(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val x = graph_input(g, "x", DT_F32, SHAPE(N)), w = weight(g, "w"), y = op_add(g, x, op_gelu(g, op_gelu(g, w)));
    State s;
    Plan *p;
    OK(state_new(&s, g, &backend, 1u << ROLE_WEIGHT, &err));
    write_all(&s, "w", 1);
    OK(plan_new(&p, g, &backend, &s, &y, 1, (PlanOptions){0}, &err));
    assert_int_equal(p->n_constant_steps, 2);
    assert_int_equal(p->n_steps, 3);
    upload_all(p, x, 10);
    plan_run(p);
    assert_true(near(first_kept(p, y), 10 + gelu_of(gelu_of(1))));
    write_all(&s, "w", 2);
    plan_run(p);
    assert_true(near(first_kept(p, y), 10 + gelu_of(gelu_of(1)))); /* not yet */
    OK(plan_refresh(p, &err));
    for (int i = 0; i < 3; i++) { /* and from run to run they stand */
        plan_run(p);
        assert_true(near(first_kept(p, y), 10 + gelu_of(gelu_of(2))));
    }
    plan_free(p);
    state_free(&s);
    graph_free(g);
}

/* In a graph that changes weights nothing is constant. Its writes happen, though nobody keeps what they write; and what
 * nobody needs is not run. */
static void test_a_graph_that_writes_has_no_constants(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val w = weight(g, "w"), average = graph_input(g, "average", DT_F32, SHAPE(N));
    Val norm = graph_input(g, "norm", DT_F32, SHAPE(1)), hyper = graph_input(g, "hyper", DT_F32, SHAPE(HYPER_COUNT));
    Val y = op_gelu(g, w);
    op_silu(g, w); /* for nobody */
    op_ema(g, average, w, norm, hyper);
    State s;
    Plan *p;
    OK(state_new(&s, g, &backend, 1u << ROLE_WEIGHT, &err));
    write_all(&s, "w", 1);
    OK(plan_new(&p, g, &backend, &s, &y, 1, (PlanOptions){0}, &err));
    assert_int_equal(p->n_constant_steps, 0);
    assert_int_equal(p->n_steps, 2);
    upload_all(p, average, 3);
    OK(plan_upload(p, norm, &(float){1}, 4, &err));
    OK(plan_upload(p, hyper, (float[HYPER_COUNT]){[HYPER_EMA_DECAY] = 0.5f}, HYPER_COUNT * 4, &err));
    plan_run(p);
    assert_true(near(first_kept(p, y), gelu_of(1))); /* as they were before the step */
    plan_run(p);
    assert_true(near(first_kept(p, y), gelu_of(2)));
    float now[N];
    OK(state_read(&s, ROLE_WEIGHT, 0, now, &err));
    assert_true(now[0] == 2.5f && now[N - 1] == 2.5f);
    plan_free(p);
    state_free(&s);
    graph_free(g);
}

/* ---- weights from a source ---- */

typedef struct {
    int reads[3];
    float value[3];
    int fail; /* parameter that cannot be read; -1: none */
} Source;

static bool read_counted(void *self, const State *s, int32_t param, float *host, Err *e) {
    Source *source = self;
    source->reads[param]++;
    for (int64_t i = 0; i < state_count(s, param); i++) host[i] = source->value[param];
    return source->fail != param || err_set(e, EXIT_INPUT, "parameter %d cannot be read", (int)param);
}

/* Each weight is read as often as it is needed and no oftener: what constants are made of for each refresh, what every
 * run reads once. What cannot be read is said. */
static void test_weights_are_read_when_they_are_needed(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val x = graph_input(g, "x", DT_F32, SHAPE(N)), a = weight(g, "a"), b = weight(g, "b"), c = weight(g, "c");
    Val k = op_gelu(g, op_add(g, a, b)), y = op_add(g, op_add(g, x, k), c); /* a and b are read at once */
    State s;
    Plan *p;
    Source source = {.value = {1, 2, 300}, .fail = -1};
    OK(state_new(&s, g, &backend, 1u << ROLE_WEIGHT, &err));
    state_attach(&s, (StateSource){.read = read_counted, .self = &source});
    OK(plan_new(&p, g, &backend, &s, &y, 1, (PlanOptions){0}, &err));
    for (int i = 0; i < 3; i++) assert_int_equal(source.reads[i], 1);
    upload_all(p, x, 4000);
    plan_run(p), plan_run(p);
    assert_true(near(first_kept(p, y), 4300 + gelu_of(3)));
    for (int i = 0; i < 3; i++) assert_int_equal(source.reads[i], 1);
    source.value[0] = 2, source.value[1] = 5;
    OK(plan_refresh(p, &err));
    assert_true(source.reads[0] == 2 && source.reads[1] == 2 && source.reads[2] == 1);
    plan_run(p);
    assert_true(near(first_kept(p, y), 4300 + gelu_of(7)));
    /* c stands in the state until it is given back */
    float *slot = state_slot(&s, ROLE_WEIGHT, state_find(&s, "c"));
    assert_true(slot[0] == 300 && slot[N - 1] == 300);
    OK(state_require(&s, state_find(&s, "c"), &err));
    assert_int_equal(source.reads[2], 1);
    state_release(&s, state_find(&s, "c"));
    OK(state_require(&s, state_find(&s, "c"), &err));
    assert_int_equal(source.reads[2], backend.discard ? 2 : 1);
    source.fail = 0;
    Err e = {0};
    assert_false(plan_refresh(p, &e));
    assert_int_equal(e.code, EXIT_INPUT);
    assert_string_equal(e.text, "parameter 0 cannot be read");
    plan_free(p);
    source.fail = 2;
    e = (Err){0};
    state_release(&s, state_find(&s, "c"));
    assert_false(plan_new(&p, g, &backend, &s, &y, 1, (PlanOptions){0}, &e));
    assert_null(p);
    assert_string_equal(e.text, "parameter 2 cannot be read");
    state_free(&s);
    graph_free(g);
}

/* ---- results ---- */

/* The last fetched run and the one before, each whole, while newer ones overwrite what they were computed in. */
static void test_results_of_this_run_and_of_the_one_before(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val x = graph_input(g, "x", DT_F32, SHAPE(N)), y = op_gelu(g, x), z = op_add(g, x, x);
    Plan *p;
    OK(plan_new(&p, g, &backend, NULL, (Val[]){y, z}, 2, (PlanOptions){0}, &err));
    for (int run = 1; run < 6; run++) {
        float in[N], got[N];
        for (int i = 0; i < N; i++) in[i] = (float)(10 * run + i);
        OK(plan_stage(p, x, in, sizeof in, &err));
        plan_run(p);
        OK(plan_fetch_begin(p, &err));
        for (int back = 0; back < 2 && back < run; back++) {
            OK(plan_fetch(p, z, got, sizeof got, back, &err));
            for (int i = 0; i < N; i++) assert_true(got[i] == 2 * (float)(10 * (run - back) + i));
            OK(plan_fetch(p, y, got, sizeof got, back, &err));
            for (int i = 0; i < N; i++) assert_true(near(got[i], (float)(10 * (run - back) + i)));
        }
    }
    double seconds[2] = {5, 5};
    OK(plan_run_timed(p, seconds, &err)); /* added to */
    assert_true(seconds[0] > 5 && seconds[0] < 6 && seconds[1] > 5 && seconds[1] < 6);
    plan_free(p);
    graph_free(g);
}

/* ---- sizes ---- */

/* A plan that is only measured has the sizes of the real one, and nothing else. */
static void test_measured_sizes_are_the_real_ones(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val x = graph_input(g, "x", DT_F32, SHAPE(3, N)), other = graph_input(g, "t", DT_I32, SHAPE(3));
    Val w = graph_param(g, (ParamSpec){.name = "w", .shape = SHAPE(40, N)});
    Val y = op_linear(g, op_gelu(g, x), op_gelu(g, w), NO_VAL), loss = op_cross_entropy(g, y, other, 0);
    State s;
    Plan *real, *measured;
    OK(state_new(&s, g, &backend, 1u << ROLE_WEIGHT, &err));
    OK(plan_new(&real, g, &backend, &s, &loss, 1, (PlanOptions){0}, &err));
    OK(plan_new(&measured, g, &backend, NULL, &loss, 1, (PlanOptions){.measure = true}, &err));
    assert_int_equal(plan_device_bytes(measured), plan_device_bytes(real));
    assert_int_equal(plan_transfer_bytes(measured), plan_transfer_bytes(real));
    assert_null(measured->arena);
    assert_int_equal(real->input_bytes, 64 + 64);                     /* 60 and 12 bytes */
    assert_int_equal(real->constant_bytes, ROUND_UP(40 * N * 4, 64)); /* gelu(w) */
    size_t parts = real->arena_bytes + real->constant_bytes + real->work_bytes + real->input_bytes + real->borrowed_bytes;
    assert_int_equal(plan_device_bytes(real), parts);
    assert_int_equal(plan_transfer_bytes(real), 2 * 64);
    plan_free(real), plan_free(measured);
    state_free(&s);
    graph_free(g);
}

static void test_what_no_machine_holds_is_said(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val x = graph_input(g, "pictures", DT_F32, SHAPE((int64_t)1 << 21, (int64_t)1 << 22)), y = op_gelu(g, x);
    Plan *p;
    Err e = {0};
    assert_false(plan_new(&p, g, &backend, NULL, &y, 1, (PlanOptions){.measure = true}, &e));
    assert_int_equal(e.code, EXIT_MEMORY);
    assert_non_null(strstr(e.text, "pictures alone would take 32 TiB"));
    assert_null(p);
    graph_free(g);
}

static int setup(void **state) {
    (void)state;
    return backend_open_cpu(&backend, 1, &err) ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    backend.close(&backend);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_constants_change_with_a_refresh),
        cmocka_unit_test(test_a_graph_that_writes_has_no_constants),
        cmocka_unit_test(test_weights_are_read_when_they_are_needed),
        cmocka_unit_test(test_results_of_this_run_and_of_the_one_before),
        cmocka_unit_test(test_measured_sizes_are_the_real_ones),
        cmocka_unit_test(test_what_no_machine_holds_is_said),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
