/* test_ops.c - every op, from one table of cases (tests/cases/): fast kernels against the naive double reference on
 * every instruction set of this machine, the same bits for 1, 2 and 3 threads, and gradients against finite
 * differences. An argument names the cases to run, by part of their name. */
#include "op_run.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/parallel.h"
#include "interpret.h"

/* ---- a graph in double precision ---- */

static Interpreter interpret_new(const Graph *g) {
    Interpreter it = interpreter_new(g);
    for (Val v = 0; v < g->n_values; v++) {
        if (g->values[v].kind != V_INPUT) continue;
        Rng r = operand_rng(v);
        for (int64_t i = 0; i < shape_count(&g->values[v].shape); i++) it.x[v][i] = operand_element(&r, &g->values[v], v);
    }
    return it;
}

/* ---- ref: kernels against the reference ---- */

static void run_on(const OpCase *c, const char *isa, int threads, uint64_t *hash) {
    Err err = {0};
    Backend backend;
    setenv("MALA_ISA", isa, 1);
    if (!backend_open_cpu(&backend, threads, &err)) fail_msg("%s", err.text);
    Built b = op_build(c, DT_F32);
    Plan *plan = op_plan(b.g, &backend);
    if (threads == 1)
        op_check(c, plan, isa);
    else
        plan_run(plan);
    uint64_t h = op_hash(plan);
    if (threads == 1)
        *hash = h;
    else if (*hash != h)
        fail_msg("%s: %d threads give other bits than 1 (%s)", c->name, threads, isa);
    plan_free(plan);
    op_built_free(&b);
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
    Interpreter it = interpret_new(b->g);
    double **x = it.x;
    for (Val v = 0; v < b->forward_values; v++)
        if (direction[v])
            for (int64_t i = 0; i < shape_count(&b->g->values[v].shape); i++) x[v][i] += h * direction[v][i];
    interpreter_run(&it, 0, b->forward_nodes);
    double loss = 0;
    for (int o = 0; o < b->n_outputs; o++)
        for (int64_t i = 0; i < shape_count(&b->g->values[b->outputs[o]].shape); i++)
            loss += x[b->outputs[o]][i] * x[b->seeds[o]][i];
    interpreter_free(&it);
    return loss;
}

static void test_grad(void **state) {
    const OpCase *c = *state;
    Built b = op_build(c, DT_F32);
    Interpreter it = interpret_new(b.g);
    double **x = it.x;
    interpreter_run(&it, 0, b.g->n_nodes);
    for (Val v = 0; v < b.forward_values; v++) {
        const Value *value = graph_value(b.g, v);
        if (value->kind != V_INPUT || value->dtype != DT_F32 || !operand_differentiable(v)) continue;
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
    interpreter_free(&it);
    op_built_free(&b);
}

/* ---- the table ---- */

/* Every op of the list is reached by some case, forward or as the backward of one. */
static void test_every_op_has_a_case(void **state) {
    (void)state;
    bool seen[OP_COUNT] = {0};
    for (size_t f = 0; f < OP_FAMILIES; f++)
        for (const OpCase *c = op_families[f]; c->name; c++) {
            Built b = op_build(c, DT_F32);
            for (int32_t i = 0; i < b.g->n_nodes; i++) seen[b.g->nodes[i].op] = true;
            op_built_free(&b);
        }
    for (int op = 0; op < OP_COUNT; op++)
        if (!seen[op]) fail_msg("op %s has no case", op_def[op]->name);
}

int main(int argc, char **argv) {
    size_t count = 1, capacity = 3;
    for (size_t f = 0; f < OP_FAMILIES; f++)
        for (const OpCase *c = op_families[f]; c->name; c++) capacity += 2;
    struct CMUnitTest *tests = mem_zalloc(capacity, sizeof *tests);
    tests[0] = (struct CMUnitTest){"every_op_has_a_case", test_every_op_has_a_case, NULL, NULL, NULL};
    for (size_t f = 0; f < OP_FAMILIES; f++) {
        for (const OpCase *c = op_families[f]; c->name; c++) {
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
