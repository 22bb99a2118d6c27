/* test_precision.c - half precision without a device that computes in it: conversions bit by bit, the types of lowered
 * graphs operand by operand, and whole networks in which every feature is rounded when it is stored. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <cjson/cJSON.h>

#include "backend/cpu/ref.h"
#include "base/file.h"
#include "base/half.h"
#include "base/parallel.h"
#include "pass/fuse.h"
#include "pass/precision.h"
#include "simulated.h"

static Err err;

/* ---- conversions ---- */

/* Every 16-bit pattern leads to float32 and back to itself. */
static void test_widening_is_exact(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float b = bf16_to_f32((uint16_t)h), f = f16_to_f32((uint16_t)h);
        assert_true(isnan(b) ? isnan(bf16_to_f32(bf16_from_f32(b))) : bf16_from_f32(b) == h);
        assert_true(isnan(f) ? isnan(f16_to_f32(f16_from_f32(f))) : f16_from_f32(f) == h);
    }
    assert_true(f16_to_f32(0x3c00) == 1 && f16_to_f32(0xc000) == -2 && f16_to_f32(0x7bff) == 65504);
    assert_true(f16_to_f32(0x0001) == 0x1p-24f && f16_to_f32(0x7c00) == INFINITY);
    assert_true(bf16_to_f32(0x3f80) == 1 && bf16_to_f32(0xc000) == -2 && bf16_to_f32(0xff80) == -INFINITY);
}

static void check_rounding(float x) {
    float b = bf16_to_f32(bf16_from_f32(x)), f = f16_to_f32(f16_from_f32(x));
    if (isnan(x)) {
        assert_true(isnan(b) && isnan(f));
        return;
    }
    double want_b = ref_round(x, DT_BF16), want_f = ref_round(x, DT_F16);
    if (!(b == want_b && signbit(b) == signbit(x))) fail_msg("bf16 of %a is %a, not %a", (double)x, (double)b, want_b);
    if (!(f == want_f && signbit(f) == signbit(x))) fail_msg("f16 of %a is %a, not %a", (double)x, (double)f, want_f);
}

/* The integer arithmetic of half.h against rounding by the definition: every midpoint between two neighbours with its
 * own neighbours in float32, and a walk through all exponents. */
static void test_rounding(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7f80; h++)
        for (uint32_t d = 0x7fff; d <= 0x8001; d++) check_rounding(float_from_bits((h << 16) + d));
    for (uint32_t h = 0; h < 0x7c00; h++) {
        /* half a unit of f16 lies exactly in float32; the last midpoint is where infinity begins */
        float low = f16_to_f32((uint16_t)h), high = h == 0x7bff ? 65536 : f16_to_f32((uint16_t)(h + 1));
        float middle = low + (high - low) / 2;
        check_rounding(middle);
        check_rounding(nextafterf(middle, 0));
        check_rounding(nextafterf(middle, INFINITY));
    }
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 9973) check_rounding(float_from_bits((uint32_t)bits));
    check_rounding(NAN);
    check_rounding(-INFINITY);
    check_rounding(float_from_bits(0x7f800001)); /* whose upper half alone would be infinity */
}

/* ---- types ---- */

/* The typing rule said once more, by hand: inputs : outputs, T the compute type, 4 float32, x anything. */
static const char *const rule[OP_COUNT] = {
    [OP_normalize] = "x:T",
    [OP_cast] = "x:x",
    [OP_conv2d] = "TT4:T",
    [OP_conv2d_dx] = "TT:T",
    [OP_conv2d_dw] = "TT:44",
    [OP_linear] = "TTT:T",
    [OP_linear_dx] = "TT:T",
    [OP_linear_dw] = "TT:44",
    [OP_dwconv] = "T44:T",
    [OP_dwconv_dx] = "T4:T",
    [OP_dwconv_dw] = "TT:44",
    [OP_dwconv_gelu_bwd] = "TT4:T44",
    [OP_layer_norm] = "T44:T44",
    [OP_layer_norm_bwd] = "TT444:T44",
    [OP_batch_norm] = "T4444:T44",
    [OP_batch_norm_bwd] = "TT4444:T44",
    [OP_batch_norm_eval] = "T4444:T",
    [OP_gelu] = "T:T",
    [OP_gelu_bwd] = "TT:T",
    [OP_silu] = "T:T",
    [OP_silu_bwd] = "TT:T",
    [OP_attention] = "T44:TT4",
    [OP_attention_bwd] = "TT44T4:T44",
    [OP_residual] = "TT44:T",
    [OP_residual_bwd] = "TT44:T4",
    [OP_add] = "TT:T",
    [OP_zeros] = "x:4",
    [OP_mean_pool] = "T:T",
    [OP_mean_pool_bwd] = "T:T",
    [OP_softmax] = "4:4",
    [OP_cross_entropy] = "4x:44",
    [OP_cross_entropy_bwd] = "44x:4",
    [OP_drop_path] = "x:4",
    [OP_grad_norm] = "44:4",
    [OP_adamw] = "444444:",
    [OP_ema] = "4444:",
    [OP_fold_batch_norm] = "444444:44",
    [OP_pack_conv] = "4:4",
    [OP_conv2d_packed] = "TT4:T",
    [OP_transpose] = "44:4",
    [OP_linear_packed] = "TTTT:T",
    [OP_multiply] = "44:4",
};

static void check_types(const Graph *g, DType compute) {
    int features = 0;
    for (int32_t id = 0; id < g->n_nodes; id++) {
        const Node *n = &g->nodes[id];
        for (int i = 0; i < n->n_in + n->n_out; i++) {
            Val v = g->operand[n->first + i];
            char want = rule[n->op][i + (i >= n->n_in)];
            if (v == NO_VAL || want == 'x') continue;
            DType type = graph_value(g, v)->dtype;
            features += want == 'T';
            if (type != (want == 'T' ? compute : DT_F32))
                fail_msg("%s: %s %d is %s", n->name, i < n->n_in ? "input" : "output", i < n->n_in ? i : i - n->n_in,
                         dtype_name(type));
        }
    }
    assert_true(features > 100);
}

/* Nothing is cast twice, a cast always changes the type; training casts all weights at once, and draws once. */
static void check_casts(const Graph *g, bool training) {
    bool *cast = mem_zalloc((size_t)g->n_values, sizeof *cast);
    int weights = 0, draws = 0;
    for (int32_t id = 0; id < g->n_nodes; id++) {
        const Node *n = &g->nodes[id];
        draws += n->op == OP_drop_path;
        if (n->op != OP_cast) continue;
        Val x = node_in(g, n, 0);
        assert_int_not_equal(graph_value(g, x)->dtype, graph_value(g, node_out(g, n, 0))->dtype);
        if (cast[x]) fail_msg("%s: cast twice", graph_value(g, x)->name);
        cast[x] = true;
        weights += graph_value(g, x)->kind == V_STATE;
    }
    free(cast);
    if (!training) return;
    assert_int_equal(weights, 1);
    assert_int_equal(draws, 1);
    assert_true(g->nodes[0].op == OP_cast);
    /* who reads of the copy: convolutions' weights; weights and biases of products, four a block and two at the end */
    int read = 0;
    for (Val v = 0; v < g->n_values; v++) {
        const Value *x = graph_value(g, v);
        read += x->kind == V_STATE && x->role == ROLE_CAST && x->param >= 0;
    }
    assert_int_equal(read, 7 + 2 * (5 * 4 + 2));
}

static void test_types(void **state) {
    DType compute = *(const DType *)*state;
    ClassifySpec spec = half_spec(compute);
    ClassifyGraph train = classify_train_graph(&spec, 2, 64, 64);
    check_types(train.graph, compute);
    check_casts(train.graph, compute != DT_F32);
    static const unsigned fusions[] = {0, FUSE_BATCH_NORM, FUSE_ALL};
    for (size_t i = 0; i < COUNTOF(fusions); i++) {
        for (int float_images = 0; float_images < 2; float_images++) {
            spec.float_images = float_images;
            ClassifyGraph c = classify_eval_graph(&spec, 1, 64, 96, fusions[i]);
            check_types(c.graph, compute);
            check_casts(c.graph, false);
            assert_int_equal(graph_value(c.graph, c.logits)->dtype, DT_F32);
            assert_int_equal(graph_value(c.graph, c.prob)->dtype, DT_F32);
            assert_int_equal(graph_value(c.graph, c.images)->dtype, float_images ? DT_F32 : DT_U8);
            for (int k = 0; fusions[i] == 0 && k < MAVIT_STAGES; k++)
                assert_int_equal(graph_value(c.graph, c.stage[k])->dtype, DT_F32);
            classify_graph_free(&c);
        }
    }
    assert_int_equal(graph_value(train.graph, train.logits)->dtype, DT_F32);
    assert_int_equal(graph_value(train.graph, train.loss)->dtype, DT_F32);
    classify_graph_free(&train);
}

static void assert_same_graph(const Graph *a, const Graph *b) {
    assert_int_equal(a->n_values, b->n_values);
    assert_int_equal(a->n_nodes, b->n_nodes);
    assert_int_equal(a->n_params, b->n_params);
    for (Val v = 0; v < a->n_values; v++) {
        const Value *x = graph_value(a, v), *y = graph_value(b, v);
        assert_true(shape_equal(&x->shape, &y->shape) && x->dtype == y->dtype && x->kind == y->kind);
        assert_true(x->def == y->def && x->role == y->role && x->param == y->param);
        assert_string_equal(x->name, y->name);
    }
    for (int32_t i = 0; i < a->n_nodes; i++) {
        const Node *m = &a->nodes[i], *n = &b->nodes[i];
        assert_true(m->op == n->op && m->n_in == n->n_in && m->n_out == n->n_out);
        assert_memory_equal(&m->attr, &n->attr, sizeof m->attr);
        assert_memory_equal(a->operand + m->first, b->operand + n->first, (size_t)(m->n_in + m->n_out) * sizeof(Val));
        assert_string_equal(m->name, n->name);
    }
}

static void test_float32_is_identity(void **state) {
    (void)state;
    ClassifySpec spec = half_spec(DT_F32);
    static const unsigned fusions[] = {0, FUSE_ALL};
    for (size_t i = 0; i < COUNTOF(fusions); i++) {
        ClassifyGraph c = classify_eval_graph(&spec, 2, 64, 64, fusions[i]);
        Val keep[] = {c.images, c.logits, c.prob};
        Graph *same = precision_lower(c.graph, DT_F32, false, keep, COUNTOF(keep));
        assert_same_graph(c.graph, same);
        assert_true(keep[0] == c.images && keep[1] == c.logits && keep[2] == c.prob);
        graph_free(same);
        classify_graph_free(&c);
    }
}

/* What a backend cannot compute is found before anything runs. */
static void test_missing_kernel(void **state) {
    (void)state;
    Backend cpu;
    assert_true(backend_open_cpu(&cpu, 1, &err));
    ClassifySpec spec = half_spec(DT_BF16);
    ClassifyGraph c = classify_eval_graph(&spec, 1, 64, 64, FUSE_ALL);
    State s;
    assert_true(state_new(&s, c.graph, &cpu, 1u << ROLE_WEIGHT | 1u << ROLE_BUFFER, &err));
    Plan *p;
    assert_false(plan_new(&p, c.graph, &cpu, &s, &c.logits, 1, (PlanOptions){0}, &err));
    assert_int_equal(err.code, EXIT_BUG);
    assert_non_null(strstr(err.text, "backend cpu has no bfloat16 kernel for "));
    state_free(&s);
    classify_graph_free(&c);
    cpu.close(&cpu);
}

/* ---- numbers: the double reference, features rounded to their type ---- */

/* Tolerances here are twice what was measured (0.016 and 0.0013 for logits); that the error is no smaller than rounding
 * a single time shows that rounding took place. */
static void test_logits(void **state) {
    (void)state;
    double want[10], got[10];
    simulated_logits(want, DT_F32, 0);
    static const unsigned fusions[] = {0, FUSE_ALL};
    for (size_t i = 0; i < COUNTOF(fusions); i++) {
        simulated_logits(got, DT_BF16, fusions[i]);
        check_error("logits in bfloat16", relative_l2(want, got, 10), 1e-3, 0.03);
        simulated_logits(got, DT_F16, fusions[i]);
        check_error("logits in float16", relative_l2(want, got, 10), 1e-4, 0.003);
    }
}

/* Measured: all together 0.023 and 0.0030; the worst parameter 0.059 and 0.008. */
static void test_gradients(void **state) {
    (void)state;
    Simulated exact = simulated_step(DT_F32, 1);
    Simulated bf16 = simulated_step(DT_BF16, 1), f16 = simulated_step(DT_F16, 1);
    check_gradients(&exact, bf16.it.state[ROLE_GRAD], "bfloat16", 0.0045, 0.045, 0.12);
    check_gradients(&exact, f16.it.state[ROLE_GRAD], "float16", 0.0006, 0.006, 0.015);
    simulated_free(&exact);
    simulated_free(&bf16);
    simulated_free(&f16);
}

/* ---- loss scaling ---- */

/* A scale lifts gradients out of the numbers that float16 loses, and the update takes it away again: the gradient's
 * norm is the exact one, with a scale that makes the loss's gradient vanish it is not. */
static void test_scaled_step(void **state) {
    (void)state;
    Simulated exact = simulated_step(DT_F32, 1);
    Simulated scaled = simulated_step(DT_F16, 1024), lost = simulated_step(DT_F16, 0x1p-20);
    double want = exact.it.x[exact.c.norm][0], norm = scaled.it.x[scaled.c.norm][0];
    if (!(fabs(norm - want) <= 2e-3 * want)) fail_msg("norm %g with a loss scale, %g exactly", norm, want);
    assert_true(fabs(lost.it.x[lost.c.norm][0] - want) > 0.05 * want);
    const double *w = exact.it.state[ROLE_WEIGHT], *m = exact.it.state[ROLE_MOMENT1];
    check_error("weights", relative_l2(w, scaled.it.state[ROLE_WEIGHT], exact.it.layout.total), 0, 1e-3);
    check_error("moments", relative_l2(m, scaled.it.state[ROLE_MOMENT1], exact.it.layout.total), 0, 0.006);
    simulated_free(&exact);
    simulated_free(&scaled);
    simulated_free(&lost);
}

/* A gradient beyond float16 leaves weights, moments and averages as they were. */
static void test_overflow_changes_nothing(void **state) {
    (void)state;
    Simulated t = simulated_step(DT_F16, 0x1p24);
    assert_false(isfinite(t.it.x[t.c.norm][0]));
    assert_true(isfinite(t.it.x[t.c.loss][0]));
    ClassifySpec spec = half_plain_spec(DT_F16);
    Simulated fresh = simulated_new(classify_train_graph(&spec, HALF_BATCH, HALF_SIZE, HALF_SIZE));
    static const StateRole roles[] = {ROLE_WEIGHT, ROLE_MOMENT1, ROLE_MOMENT2, ROLE_EMA};
    for (size_t i = 0; i < COUNTOF(roles); i++)
        assert_memory_equal(t.it.state[roles[i]], fresh.it.state[roles[i]],
                            (size_t)fresh.it.layout.total * sizeof(double));
    simulated_free(&fresh);
    simulated_free(&t);
}

static void test_loss_scale(void **state) {
    (void)state;
    LossScale s = {LOSS_SCALE_FIRST, 0};
    for (int i = 0; i < LOSS_SCALE_PATIENCE - 1; i++) loss_scale_update(&s, s.scale, true);
    assert_true(s.scale == LOSS_SCALE_FIRST);
    loss_scale_update(&s, s.scale, true);
    assert_true(s.scale == 2 * LOSS_SCALE_FIRST && s.good == 0);
    loss_scale_update(&s, LOSS_SCALE_FIRST, true); /* a late outcome of the scale before: not counted */
    assert_int_equal(s.good, 0);
    /* two steps went beyond before the first was known: halved once */
    loss_scale_update(&s, 2 * LOSS_SCALE_FIRST, false);
    loss_scale_update(&s, 2 * LOSS_SCALE_FIRST, false);
    assert_true(s.scale == LOSS_SCALE_FIRST);
    for (int i = 0; i < 40; i++) loss_scale_update(&s, s.scale, false);
    assert_true(s.scale == LOSS_SCALE_LEAST);
    for (int i = 0; i < 40 * LOSS_SCALE_PATIENCE; i++) loss_scale_update(&s, s.scale, true);
    assert_true(s.scale == LOSS_SCALE_MOST);
}

/* ---- a training run ---- */

/* 40 steps on four batches, features in `compute`: the losses of each. */
static void train_run(double loss[40], DType compute) {
    ClassifySpec spec = half_plain_spec(compute);
    spec.model.attention[1] = ATTN_MALA;
    spec.model.attention[2] = ATTN_SOFTMAX;
    Simulated t = simulated_new(classify_train_graph(&spec, 4, HALF_SIZE, HALF_SIZE));
    t.it.x[t.c.scale][0] = 1;
    for (int step = 0; step < 40; step++) {
        char name[32];
        float hyper[HYPER_COUNT];
        snprintf(name, sizeof name, "batch%d", step % 4);
        simulated_images(&t, name);
        for (int j = 0; j < 4; j++) t.it.x[t.c.targets][j] = (step % 4 * 4 + j) * 7 % 10;
        half_hyper(hyper, step, 1);
        for (int i = 0; i < HYPER_COUNT; i++) t.it.x[t.c.hyper][i] = hyper[i];
        interpreter_run(&t.it, 0, t.c.graph->n_nodes);
        loss[step] = t.it.x[t.c.loss][0];
    }
    simulated_free(&t);
}

static double mean4(const double *x) { return (x[0] + x[1] + x[2] + x[3]) / 4; }

/* The run of tests/golden/trajectory.json, whose losses are float64's. Measured: at most 0.0021 away on the way. */
static void test_trajectory(void **state) {
    (void)state;
    uint8_t *text;
    size_t count;
    if (!file_read(&text, &count, "tests/golden/trajectory.json", 1 << 22, &err)) fail_msg("%s", err.text);
    cJSON *json = cJSON_Parse((char *)text);
    const cJSON *losses = cJSON_GetObjectItemCaseSensitive(json, "loss");
    double want[40], got[40];
    for (int i = 0; i < 40; i++) want[i] = cJSON_GetArrayItem(losses, i)->valuedouble;
    train_run(got, DT_BF16);
    for (int i = 0; i < 40; i++)
        if (!(fabs(got[i] - want[i]) <= 0.006 * want[i])) fail_msg("step %d: loss %.6f, exactly %.6f", i, got[i], want[i]);
    if (!(fabs(mean4(got + 36) - mean4(want + 36)) <= 0.001 * mean4(want + 36)))
        fail_msg("last losses %.6f, exactly %.6f", mean4(got + 36), mean4(want + 36));
    cJSON_Delete(json);
    free(text);
}

int main(void) {
    static const DType bf16 = DT_BF16, f16 = DT_F16;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_widening_is_exact),
        cmocka_unit_test(test_rounding),
        {"types_bfloat16", test_types, NULL, NULL, (void *)&bf16},
        {"types_float16", test_types, NULL, NULL, (void *)&f16},
        cmocka_unit_test(test_float32_is_identity),
        cmocka_unit_test(test_missing_kernel),
        cmocka_unit_test(test_logits),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_scaled_step),
        cmocka_unit_test(test_overflow_changes_nothing),
        cmocka_unit_test(test_loss_scale),
        cmocka_unit_test(test_trajectory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
