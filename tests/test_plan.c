/* test_plan.c - memory planning: reuse on and off give the same bits, so do 1 and 2 threads, and the verifier finds
 * every fault that is planted in a good plan. Training's fusion changes nothing but rounding; costs are by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/parallel.h"
#include "base/rng.h"
#include "pass/cost.h"
#include "rule.h"
#include "task/classify.h"

static Err err;

#define OK(call) \
    do { \
        if (!(call)) fail_msg("%s: %s", #call, err.text); \
    } while (0)

static uint64_t hash_bytes(uint64_t h, const void *data, size_t n) {
    const uint8_t *p = data;
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

/* A small network of every attention kind, with drop path and a moving average. */
static ClassifySpec small_spec(void) {
    return (ClassifySpec){.model = {.dims = {8, 16, 24, 32},
                                    .depths = {1, 1, 1, 1},
                                    .heads = {1, 2, 3, 2},
                                    .attention = {ATTN_MALA, ATTN_INLINE, ATTN_LINEAR, ATTN_SOFTMAX},
                                    .layer_scale = {1, 1, 1, 1},
                                    .mlp_ratio = 3.5,
                                    .drop_path = 0.3f,
                                    .projection = 40,
                                    .classes = 7},
                          .mean = {0.5f, 0.5f, 0.5f},
                          .std = {0.25f, 0.25f, 0.25f},
                          .smoothing = 0.1f,
                          .ema = true};
}

typedef struct {
    Backend backend;
    ClassifyGraph graph;
    State state;
    Plan *plan;
} Run;

static void run_open_spec(Run *r, ClassifySpec spec, int threads, bool no_reuse) {
    OK(backend_open_cpu(&r->backend, threads, &err));
    r->graph = classify_train_graph(&spec, 3, 96, 64);
    OK(state_new(&r->state, r->graph.graph, &r->backend, classify_train_roles(&spec), &err));
    OK(state_init(&r->state, 5, &err));
    OK(state_copy_role(&r->state, ROLE_EMA, ROLE_WEIGHT, &err));
    OK(plan_new(&r->plan, r->graph.graph, &r->backend, &r->state, (Val[]){r->graph.loss, r->graph.norm}, 2,
                (PlanOptions){.no_reuse = no_reuse}, &err));
}

static void run_open(Run *r, int threads, bool no_reuse, bool recompute) {
    ClassifySpec spec = small_spec();
    spec.recompute = recompute;
    run_open_spec(r, spec, threads, no_reuse);
}

static void run_close(Run *r) {
    plan_free(r->plan);
    state_free(&r->state);
    classify_graph_free(&r->graph);
    r->backend.close(&r->backend);
}

/* Runs a step on random pictures; its loss. */
static float train_step(Run *r, int step) {
    OptimizerConfig o = {.lr = 1e-3f, .weight_decay = 0.05f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .clip = 1,
                         .ema_decay = 0.9f, .total_steps = 3};
    uint8_t pixels[3 * 96 * 64 * 3];
    Rng random = rng_make(3, RNG_TEST, (uint64_t)step, 0);
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)rng_u32(&random);
    float hyper[HYPER_COUNT], loss;
    optimizer_hyper(&o, step, hyper);
    OK(plan_upload(r->plan, r->graph.images, pixels, sizeof pixels, &err));
    OK(plan_upload(r->plan, r->graph.targets, (int32_t[]){1, 6, 0}, 12, &err));
    OK(plan_upload(r->plan, r->graph.hyper, hyper, sizeof hyper, &err));
    OK(plan_upload(r->plan, r->graph.scale, &(float){1}, 4, &err));
    OK(plan_upload(r->plan, r->graph.counter, (uint64_t[]){5, (uint64_t)step}, 16, &err));
    plan_run(r->plan);
    OK(plan_download(r->plan, r->graph.loss, &loss, 4, &err));
    assert_true(loss > 0.5f && loss < 5);
    return loss;
}

/* Three steps; the hash of the losses and of every state buffer. */
static uint64_t train_hash(int threads, bool no_reuse, bool recompute) {
    Run r;
    run_open(&r, threads, no_reuse, recompute);
    uint64_t h = 0xcbf29ce484222325u;
    for (int step = 0; step < 3; step++) {
        float loss = train_step(&r, step);
        h = hash_bytes(h, &loss, 4);
    }
    for (StateRole role = 0; role < ROLE_COUNT; role++)
        if (r.state.buffer[role])
            h = hash_bytes(h, r.state.buffer[role], (size_t)state_role_length(&r.state, role) * sizeof(float));
    run_close(&r);
    return h;
}

static void test_reuse_changes_no_bit(void **state) {
    (void)state;
    assert_true(train_hash(1, false, false) == train_hash(1, true, false));
}

static void test_threads_change_no_bit(void **state) {
    (void)state;
    uint64_t one = train_hash(1, false, false);
    for (int threads = 2; threads <= 5; threads++) assert_true(train_hash(threads, false, false) == one);
}

static void test_plan_is_valid_and_smaller(void **state) {
    (void)state;
    Run r;
    run_open(&r, 1, false, false);
    OK(plan_verify(r.plan, &err));
    assert_true(r.plan->arena_bytes < r.plan->naive_bytes * 3 / 4);
    run_close(&r);
}

static void test_recomputing_changes_no_bit(void **state) {
    (void)state;
    assert_true(train_hash(2, false, true) == train_hash(2, false, false));
}

/* Of the values with a picture's activations, the backward program reads no cheap op's but its own. */
static void test_recomputing_keeps_less(void **state) {
    (void)state;
    Run kept, again;
    run_open(&kept, 1, false, false);
    run_open(&again, 1, false, true);
    OK(plan_verify(again.plan, &err));
    assert_true(again.plan->arena_bytes < kept.plan->arena_bytes * 5 / 6);
    const Plan *p = again.plan;
    int32_t loss = 0;
    while (p->steps[loss].call.node->op != OP_cross_entropy) loss++;
    int cheap = 0;
    for (int32_t i = 0; i < loss; i++) {
        const Node *n = p->steps[i].call.node;
        if (!(node_def(n)->flags & OPF_CHEAP)) continue;
        assert_true(p->place[node_out(p->graph, n, 0)].last < loss);
        cheap++;
    }
    assert_true(cheap > 15);
    run_close(&kept);
    run_close(&again);
}

/* Puts every pair of values that must stand together on one address: each must be found. */
static void test_verifier_finds_overlaps(void **state) {
    (void)state;
    Run r;
    run_open(&r, 1, false, false);
    Plan *p = r.plan;
    int planted = 0;
    Rng random = rng_make(1, RNG_TEST, 0, 0);
    while (planted < 300) {
        Val a = (Val)rng_below(&random, (uint32_t)p->graph->n_values), b = (Val)rng_below(&random, (uint32_t)p->graph->n_values);
        const Placement *x = &p->place[a], *y = &p->place[b];
        if (a == b || x->offset < 0 || y->offset < 0 || p->address[a] == p->address[b]) continue;
        /* strictly inside each other's life: neither is the in-place heir of the other */
        if (x->first >= y->last || y->first >= x->last) continue;
        void *right = p->address[a];
        p->address[a] = p->address[b];
        Err found = {0};
        assert_false(plan_verify(p, &found));
        assert_int_equal(found.code, EXIT_BUG);
        p->address[a] = right;
        planted++;
    }
    OK(plan_verify(p, &err));
    run_close(&r);
}

/* One float too near: the end of each block moved onto its upper neighbour. */
static void test_verifier_finds_near_misses(void **state) {
    (void)state;
    Run r;
    run_open(&r, 1, false, false);
    Plan *p = r.plan;
    int planted = 0;
    for (Val a = 0; a < p->graph->n_values; a++) {
        for (Val b = 0; b < p->graph->n_values; b++) {
            const Placement *x = &p->place[a], *y = &p->place[b];
            if (x->offset < 0 || y->offset < 0 || x->first >= y->last || y->first >= x->last) continue;
            char *end_b = (char *)p->address[b] + shape_count(&graph_value(p->graph, b)->shape) * (int64_t)sizeof(float);
            if ((char *)p->address[a] < end_b || (char *)p->address[a] - end_b > 60) continue;
            void *right = p->address[a];
            p->address[a] = end_b - sizeof(float);
            Err found = {0};
            assert_false(plan_verify(p, &found));
            p->address[a] = right;
            planted++;
        }
    }
    assert_true(planted > 20);
    run_close(&r);
}

static void test_verifier_finds_order_and_bounds(void **state) {
    (void)state;
    Run r;
    run_open(&r, 1, false, false);
    Plan *p = r.plan;
    for (int32_t i = 0; i + 1 < p->n_steps; i++) {
        const Node *n = p->steps[i].call.node, *next = p->steps[i + 1].call.node;
        bool depends = false;
        for (int k = 0; k < next->n_in; k++)
            for (int j = 0; j < n->n_out; j++)
                depends |= node_in(p->graph, next, k) == node_out(p->graph, n, j) &&
                           graph_value(p->graph, node_out(p->graph, n, j))->kind == V_ACT;
        if (!depends) continue;
        Step keep = p->steps[i];
        p->steps[i] = p->steps[i + 1];
        p->steps[i + 1] = keep;
        Err found = {0};
        assert_false(plan_verify(p, &found));
        p->steps[i + 1] = p->steps[i];
        p->steps[i] = keep;
    }
    OK(plan_verify(p, &err));
    size_t bytes = p->arena_bytes;
    p->arena_bytes -= 64;
    Err found = {0};
    assert_false(plan_verify(p, &found));
    p->arena_bytes = bytes;
    run_close(&r);
}

/* Random straight-line programs, where the chain of in-place takeovers is long. */
static void test_random_graphs(void **state) {
    (void)state;
    Backend backend;
    OK(backend_open_cpu(&backend, 1, &err));
    for (uint64_t seed = 0; seed < 40; seed++) {
        Rng r = rng_make(seed, RNG_TEST, 1, 0);
        Graph *g = graph_new();
        int64_t n = 1 + rng_below(&r, 70);
        Val values[60], x = graph_input(g, "x", DT_F32, SHAPE(n));
        int count = 0;
        values[count++] = op_gelu(g, x);
        while (count < 60) {
            Val a = values[rng_below(&r, (uint32_t)count)], b = values[count - 1 - (int)rng_below(&r, MIN((uint32_t)count, 4))];
            values[count++] = rng_below(&r, 3) ? op_add(g, a, b) : rng_below(&r, 2) ? op_gelu(g, a) : op_silu(g, a);
        }
        float result[2][2][80];
        for (int reuse = 0; reuse < 2; reuse++) {
            Plan *p;
            Val keep[] = {values[59], values[30]};
            OK(plan_new(&p, g, &backend, NULL, keep, 2, (PlanOptions){.no_reuse = !reuse}, &err));
            OK(plan_verify(p, &err));
            float in[80];
            for (int i = 0; i < n; i++) in[i] = (float)i / 10 - 3;
            OK(plan_upload(p, x, in, (size_t)n * 4, &err));
            plan_run(p);
            for (int k = 0; k < 2; k++) OK(plan_download(p, keep[k], result[reuse][k], (size_t)n * 4, &err));
            plan_free(p);
        }
        for (int k = 0; k < 2; k++) assert_memory_equal(result[0][k], result[1][k], (size_t)n * 4);
        graph_free(g);
    }
    backend.close(&backend);
}

static int op_nodes(const Graph *g, OpId op) {
    int count = 0;
    for (int32_t i = 0; i < g->n_nodes; i++) count += g->nodes[i].op == op;
    return count;
}

/* GELU in the feed-forward's convolution, four blocks, and in the stem's norms, three: the same parameters in the same
 * order, the same gradients. */
static void test_training_fusion(void **state) {
    (void)state;
    ClassifySpec plain = small_spec();
    plain.unfused = true;
    Run on, off;
    run_open(&on, 2, false, false);
    run_open_spec(&off, plain, 2, false);
    const Graph *a = on.graph.graph, *b = off.graph.graph;
    assert_int_equal(op_nodes(a, OP_dwconv_gelu_bwd), 4);
    assert_int_equal(op_nodes(b, OP_dwconv_gelu_bwd), 0);
    assert_int_equal(op_nodes(a, OP_gelu), op_nodes(b, OP_gelu) - 7);
    assert_int_equal(op_nodes(a, OP_gelu_bwd), op_nodes(b, OP_gelu_bwd) - 7);
    float loss = train_step(&off, 0);
    assert_true(fabsf(train_step(&on, 0) - loss) < 1e-5f * loss);
    assert_int_equal(a->n_params, b->n_params);
    for (int32_t p = 0; p < a->n_params; p++) {
        assert_string_equal(a->params[p].name, b->params[p].name);
        if (a->params[p].buffer) continue;
        int64_t n = state_count(&on.state, p);
        assert_int_equal(n, state_count(&off.state, p));
        float *x = mem_zalloc((size_t)n, sizeof *x), *y = mem_zalloc((size_t)n, sizeof *y);
        OK(state_read(&on.state, ROLE_GRAD, p, x, &err));
        OK(state_read(&off.state, ROLE_GRAD, p, y, &err));
        double difference = 0, size = 0;
        for (int64_t i = 0; i < n; i++) {
            difference += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
            size += (double)y[i] * y[i];
        }
        if (!(sqrt(difference) <= 1e-4 * sqrt(size)))
            fail_msg("%s: gradients differ by %.3g of %.3g", a->params[p].name, sqrt(difference), sqrt(size));
        free(x);
        free(y);
    }
    run_close(&on);
    run_close(&off);
}

/* By hand: every operand once in its own type, absent ones not at all; multiply-adds; what a prefix leaves out. */
static void test_costs_are_what_they_are_by_hand(void **state) {
    (void)state;
    Graph *g = graph_new();
    Val x = graph_input(g, "x", DT_F32, SHAPE(2, 3, 4));
    graph_push(g, "a");
    Val w = graph_param(g, (ParamSpec){.name = "w", .shape = SHAPE(6, 4)});
    Val b = graph_param(g, (ParamSpec){.name = "b", .shape = SHAPE(6)});
    graph_param(g, (ParamSpec){.name = "mean", .shape = SHAPE(9), .buffer = true});
    Val y = op_linear(g, x, w, b); /* x 96, w 96, b 24, y 144 bytes */
    graph_pop(g);
    graph_push(g, "b");
    Val v = graph_param(g, (ParamSpec){.name = "v", .shape = SHAPE(5, 6)});
    Val half = op_cast(g, op_gelu(g, y), DT_BF16); /* gelu 144 + 144, cast 144 + 72 */
    op_linear(g, half, op_cast(g, v, DT_BF16), NO_VAL); /* cast 120 + 60; 72 + 60 + 2 * 3 * 5 * 2 = 60 */
    graph_pop(g);
    Cost a = cost_total(g, "a."), rest = cost_total(g, "b."), all = cost_total(g, "");
    assert_true(a.macs == 2 * 3 * 4 * 6 && a.bytes == 96 + 96 + 24 + 144);
    assert_true(rest.macs == 2 * 3 * 6 * 5 && rest.bytes == 288 + 216 + 180 + 192);
    assert_true(all.macs == a.macs + rest.macs && all.bytes == a.bytes + rest.bytes);
    Cost linear = cost_node(g, &g->nodes[0]);
    assert_true(linear.macs == a.macs && linear.bytes == a.bytes);
    assert_true(cost_total(g, "c.").bytes == 0 && cost_total(g, "c.").macs == 0);
    assert_int_equal(cost_parameters(g, ""), 24 + 6 + 30);
    assert_int_equal(cost_parameters(g, "a."), 24 + 6);
    assert_int_equal(cost_parameters(g, "b."), 30);
    graph_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan_is_valid_and_smaller), cmocka_unit_test(test_reuse_changes_no_bit),
        cmocka_unit_test(test_recomputing_changes_no_bit), cmocka_unit_test(test_recomputing_keeps_less),
        cmocka_unit_test(test_threads_change_no_bit),     cmocka_unit_test(test_verifier_finds_overlaps),
        cmocka_unit_test(test_verifier_finds_near_misses), cmocka_unit_test(test_verifier_finds_order_and_bounds),
        cmocka_unit_test(test_random_graphs),              cmocka_unit_test(test_training_fusion),
        cmocka_unit_test(test_costs_are_what_they_are_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
