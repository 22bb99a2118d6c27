/* test_ops.c - every op, from one table of cases (tests/cases/): fast kernels against the naive double reference on
 * every instruction set of this machine, the same bits for 1, 2 and 3 threads, and gradients against finite
 * differences. An argument names the cases to run, by part of their name. */
#include "op_case.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/cpu/ref.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "pass/autodiff.h"
#include "run/plan.h"

/* ---- operands of a case: ranges by value id ---- */

#define MAX_OPERANDS 4096
static struct {
    double low, high;
    bool differentiable;
} operand[MAX_OPERANDS];

static Val declare(Graph *g, const char *name, DType dtype, Shape shape, double low, double high, bool differentiable) {
    Val v = graph_input(g, name, dtype, shape);
    assert_true(v < MAX_OPERANDS);
    operand[v].low = low;
    operand[v].high = high;
    operand[v].differentiable = differentiable;
    return v;
}

Val case_input(Graph *g, const char *name, Shape shape, double low, double high) {
    return declare(g, name, DT_F32, shape, low, high, true);
}
Val case_state(Graph *g, const char *name, Shape shape, double low, double high) {
    return declare(g, name, DT_F32, shape, low, high, false);
}
Val case_labels(Graph *g, const char *name, Shape shape, DType dtype, int below) {
    return declare(g, name, dtype, shape, 0, below, false);
}

/* Element i of an operand: rounded to float32, so that the kernels and the reference start from the same number. */
static double operand_element(Rng *r, const Value *v, Val id) {
    double x = operand[id].low + (operand[id].high - operand[id].low) * rng_uniform(r);
    return v->dtype == DT_F32 ? (double)(float)x : floor(x);
}

/* ---- a graph in double precision ---- */

static double **interpret_new(const Graph *g) {
    double **x = mem_zalloc((size_t)g->n_values, sizeof *x);
    for (Val v = 0; v < g->n_values; v++) {
        x[v] = mem_zalloc((size_t)shape_count(&g->values[v].shape), sizeof(double));
        if (g->values[v].kind != V_INPUT) continue;
        Rng r = rng_make(1, RNG_TEST, (uint64_t)v, 0);
        for (int64_t i = 0; i < shape_count(&g->values[v].shape); i++) x[v][i] = operand_element(&r, &g->values[v], v);
    }
    return x;
}

static void interpret_free(const Graph *g, double **x) {
    for (Val v = 0; v < g->n_values; v++) free(x[v]);
    free(x);
}

static void interpret_node(const Graph *g, const Node *n, double **x) {
    double *in[MAX_IN], *out[MAX_OUT];
    for (int i = 0; i < n->n_in; i++) in[i] = node_in(g, n, i) == NO_VAL ? NULL : x[node_in(g, n, i)];
    for (int i = 0; i < n->n_out; i++) out[i] = x[node_out(g, n, i)];
    op_ref[n->op](g, n, in, out);
}

/* ---- building: forward, then the backward program from random upstream gradients ---- */

typedef struct {
    Graph *g;
    int32_t forward_nodes, forward_values;
    Val outputs[8], seeds[8], *grad;
    int n_outputs;
} Built;

static bool has_reader(const Graph *g, Val v) {
    for (int32_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (node_in(g, &g->nodes[i], k) == v) return true;
    return false;
}

static Built build(const OpCase *c) {
    Built b = {.g = graph_new()};
    c->build(b.g, c->d);
    b.forward_nodes = b.g->n_nodes;
    b.forward_values = b.g->n_values;
    b.grad = mem_zalloc((size_t)b.forward_values, sizeof(Val));
    for (Val v = 0; v < b.forward_values; v++) b.grad[v] = NO_VAL;
    if (c->no_grad) return b;
    for (int32_t i = 0; i < b.forward_nodes; i++) {
        Val y = node_out(b.g, &b.g->nodes[i], 0);
        if (!has_reader(b.g, y)) b.outputs[b.n_outputs++] = y;
    }
    for (int i = 0; i < b.n_outputs; i++)
        b.seeds[i] = case_state(b.g, "upstream", graph_value(b.g, b.outputs[i])->shape, -1, 1);
    /* the seeds are new values: autodiff's array covers everything that exists by now */
    b.grad = mem_resize(b.grad, (size_t)b.g->n_values, sizeof(Val));
    autodiff(b.g, b.outputs, b.seeds, b.n_outputs, b.grad);
    return b;
}

static void built_free(Built *b) {
    graph_free(b->g);
    free(b->grad);
}

/* ---- ref: kernels against the reference ---- */

static void to_double(double *out, const void *in, const Value *v) {
    int64_t n = shape_count(&v->shape);
    for (int64_t i = 0; i < n; i++) {
        switch (v->dtype) {
        case DT_F32: out[i] = ((const float *)in)[i]; break;
        case DT_U8: out[i] = ((const uint8_t *)in)[i]; break;
        case DT_I32: out[i] = ((const int32_t *)in)[i]; break;
        case DT_U64: out[i] = (double)((const uint64_t *)in)[i]; break;
        default: fail_msg("no such operand type in a test");
        }
    }
}

static void upload_operands(Plan *p) {
    for (Val v = 0; v < p->graph->n_values; v++) {
        const Value *x = graph_value(p->graph, v);
        if (x->kind != V_INPUT) continue;
        Rng r = rng_make(1, RNG_TEST, (uint64_t)v, 0);
        for (int64_t i = 0; i < shape_count(&x->shape); i++) {
            double e = operand_element(&r, x, v);
            switch (x->dtype) {
            case DT_F32: ((float *)p->address[v])[i] = (float)e; break;
            case DT_U8: ((uint8_t *)p->address[v])[i] = (uint8_t)e; break;
            case DT_I32: ((int32_t *)p->address[v])[i] = (int32_t)e; break;
            case DT_U64: ((uint64_t *)p->address[v])[i] = (uint64_t)e; break;
            default: fail_msg("no such operand type in a test");
            }
        }
    }
}

static double relative_l2(const double *want, const double *got, int64_t n) {
    double d = 0, s = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(got[i])) return INFINITY;
        d += (want[i] - got[i]) * (want[i] - got[i]);
        s += want[i] * want[i];
    }
    /* an output that is 0 by mathematics is judged by its absolute size */
    return sqrt(d / MAX(s, 1e-12 * (double)n));
}

static void compare(const OpCase *c, const Graph *g, const Node *n, const char *what, int i, const double *want,
                    const double *got, Val v, const char *isa) {
    double tolerance = c->tolerance > 0 ? c->tolerance : 2e-6;
    double error = relative_l2(want, got, shape_count(&g->values[v].shape));
    if (!(error <= tolerance))
        fail_msg("%s: %s: %s %d: relative L2 error %.3g above %.3g (%s)", c->name, n->name, what, i, error, tolerance, isa);
}

/* One step of the plan with its inputs as they stand, against the reference on the same inputs. */
static void check_step(const OpCase *c, Plan *p, const Step *step, const char *isa) {
    const Graph *g = p->graph;
    const Node *n = step->call.node;
    double *in[MAX_IN] = {0}, *out[MAX_OUT] = {0};
    for (int i = 0; i < n->n_in; i++) {
        Val v = node_in(g, n, i);
        if (v == NO_VAL) continue;
        in[i] = mem_zalloc((size_t)shape_count(&g->values[v].shape), sizeof(double));
        to_double(in[i], p->address[v], graph_value(g, v));
    }
    for (int i = 0; i < n->n_out; i++)
        out[i] = mem_zalloc((size_t)shape_count(out_shape(g, n, i)), sizeof(double));
    step->kernel->run(&step->call);
    op_ref[n->op](g, n, in, out);
    for (int i = 0; i < n->n_in + n->n_out; i++) {
        bool output = i >= n->n_in;
        if (!output && !(node_def(n)->mutates >> i & 1)) continue;
        Val v = g->operand[n->first + i];
        double *got = mem_zalloc((size_t)shape_count(&g->values[v].shape), sizeof(double));
        to_double(got, p->address[v], graph_value(g, v));
        compare(c, g, n, output ? "output" : "updated input", output ? i - n->n_in : i, output ? out[i - n->n_in] : in[i],
                got, v, isa);
        free(got);
    }
    for (int i = 0; i < n->n_in; i++) free(in[i]);
    for (int i = 0; i < n->n_out; i++) free(out[i]);
}

static uint64_t hash_values(const Plan *p) {
    uint64_t h = 0xcbf29ce484222325u;
    for (Val v = 0; v < p->graph->n_values; v++) {
        const Value *x = graph_value(p->graph, v);
        const uint8_t *bytes = p->address[v];
        size_t n = (size_t)shape_count(&x->shape) * dtype_size(x->dtype);
        for (size_t i = 0; bytes && i < n; i++) h = (h ^ bytes[i]) * 0x100000001b3u;
    }
    return h;
}

static void run_on(const OpCase *c, const char *isa, int threads, uint64_t *hash) {
    Err err = {0};
    Backend backend;
    setenv("MALA_ISA", isa, 1);
    if (!backend_open_cpu(&backend, threads, &err)) fail_msg("%s", err.text);
    parallel_set_threads(threads);
    Built b = build(c);
    Val *keep = mem_zalloc((size_t)b.g->n_values, sizeof(Val));
    int n_keep = 0;
    for (Val v = 0; v < b.g->n_values; v++)
        if (b.g->values[v].kind == V_ACT) keep[n_keep++] = v;
    Plan *plan;
    if (!plan_new(&plan, b.g, &backend, NULL, keep, n_keep, (PlanOptions){.no_reuse = true}, &err)) fail_msg("%s", err.text);
    upload_operands(plan);
    if (threads == 1)
        for (int32_t i = 0; i < plan->n_steps; i++) check_step(c, plan, &plan->steps[i], isa);
    else
        plan_run(plan);
    uint64_t h = hash_values(plan);
    if (threads == 1)
        *hash = h;
    else if (*hash != h)
        fail_msg("%s: %d threads give other bits than 1 (%s)", c->name, threads, isa);
    plan_free(plan);
    free(keep);
    built_free(&b);
    backend.close(&backend);
}

static bool isa_usable(const char *isa) {
#if defined(__x86_64__)
    if (strcmp(isa, "v3") == 0) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (strcmp(isa, "v4") == 0) return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#endif
    return strcmp(isa, "generic") == 0;
}

static void test_ref(void **state) {
    static const char *const isas[] = {"generic", "v3", "v4"};
    for (size_t i = 0; i < COUNTOF(isas); i++) {
        if (!isa_usable(isas[i])) continue;
        uint64_t hash;
        for (int threads = 1; threads <= 3; threads++) run_on(*state, isas[i], threads, &hash);
    }
}

/* ---- grad: the emitted gradient against finite differences ---- */

static double loss_at(const Built *b, const OpCase *c, double **direction, double h) {
    (void)c;
    double **x = interpret_new(b->g);
    for (Val v = 0; v < b->forward_values; v++)
        if (direction[v])
            for (int64_t i = 0; i < shape_count(&b->g->values[v].shape); i++) x[v][i] += h * direction[v][i];
    for (int32_t i = 0; i < b->forward_nodes; i++) interpret_node(b->g, &b->g->nodes[i], x);
    double loss = 0;
    for (int o = 0; o < b->n_outputs; o++)
        for (int64_t i = 0; i < shape_count(&b->g->values[b->outputs[o]].shape); i++)
            loss += x[b->outputs[o]][i] * x[b->seeds[o]][i];
    interpret_free(b->g, x);
    return loss;
}

static void test_grad(void **state) {
    const OpCase *c = *state;
    Built b = build(c);
    double **x = interpret_new(b.g);
    for (int32_t i = 0; i < b.g->n_nodes; i++) interpret_node(b.g, &b.g->nodes[i], x);
    for (Val v = 0; v < b.forward_values; v++) {
        const Value *value = graph_value(b.g, v);
        if (value->kind != V_INPUT || value->dtype != DT_F32 || !operand[v].differentiable) continue;
        if (b.grad[v] == NO_VAL) fail_msg("%s: no gradient for %s", c->name, value->name);
        double **direction = mem_zalloc((size_t)b.forward_values, sizeof *direction);
        int64_t n = shape_count(&value->shape);
        direction[v] = mem_zalloc((size_t)n, sizeof(double));
        Rng r = rng_make(2, RNG_TEST, (uint64_t)v, 0);
        double slope = 0, size = 0;
        for (int64_t i = 0; i < n; i++) {
            direction[v][i] = 2 * rng_uniform(&r) - 1;
            slope += direction[v][i] * x[b.grad[v]][i];
            size += fabs(direction[v][i] * x[b.grad[v]][i]);
        }
        const double h = 1e-5;
        double measured = (loss_at(&b, c, direction, h) - loss_at(&b, c, direction, -h)) / (2 * h);
        if (!(fabs(measured - slope) <= 1e-5 * size + 1e-7))
            fail_msg("%s: gradient of %s: %.9g, finite differences say %.9g", c->name, value->name, slope, measured);
        free(direction[v]);
        free(direction);
    }
    interpret_free(b.g, x);
    built_free(&b);
}

/* ---- the table ---- */

static const OpCase *const families[] = {linear_cases, conv_cases,        dwconv_cases, norm_cases,
                                         attention_cases, elementwise_cases, loss_cases,   optim_cases};

/* Every op of the list is reached by some case, forward or as the backward of one. */
static void test_every_op_has_a_case(void **state) {
    (void)state;
    bool seen[OP_COUNT] = {0};
    for (size_t f = 0; f < COUNTOF(families); f++)
        for (const OpCase *c = families[f]; c->name; c++) {
            Built b = build(c);
            for (int32_t i = 0; i < b.g->n_nodes; i++) seen[b.g->nodes[i].op] = true;
            built_free(&b);
        }
    for (int op = 0; op < OP_COUNT; op++)
        if (!seen[op]) fail_msg("op %s has no case", op_def[op]->name);
}

int main(int argc, char **argv) {
    size_t count = 1, capacity = 3;
    for (size_t f = 0; f < COUNTOF(families); f++)
        for (const OpCase *c = families[f]; c->name; c++) capacity += 2;
    struct CMUnitTest *tests = mem_zalloc(capacity, sizeof *tests);
    tests[0] = (struct CMUnitTest){"every_op_has_a_case", test_every_op_has_a_case, NULL, NULL, NULL};
    for (size_t f = 0; f < COUNTOF(families); f++) {
        for (const OpCase *c = families[f]; c->name; c++) {
            for (int grad = 0; grad < (c->no_grad ? 1 : 2); grad++) {
                char name[128];
                snprintf(name, sizeof name, "%s_%s", c->name, grad ? "grad" : "ref");
                if (argc > 1 && !strstr(name, argv[1])) continue;
                tests[count++] = (struct CMUnitTest){mem_strdup(name), grad ? test_grad : test_ref, NULL, NULL, (void *)c};
            }
        }
    }
    int failed = _cmocka_run_group_tests("ops", tests, count, NULL, NULL);
    for (size_t i = 1; i < count; i++) free((char *)tests[i].name);
    free(tests);
    return failed;
}
