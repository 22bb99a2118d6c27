/* test_cuda_ops.c - the CUDA kernels without a GPU: every case of the op table through the host emulation
 * (tests/emulate/) in every compute type, against the double reference, twice: threads in order and backwards, with
 * other rubbish in shared memory. The bits must be the same both times. An argument names the cases to run, by part of
 * their name. */
#include "op_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/cuda/table.h"
#include "base/parallel.h"
#include "emulate/control.h"

/* ---- the table ---- */

/* a kernel that has not been written, or not for this type */
static const char *missing_kernel(const Graph *g) {
    for (int32_t i = 0; i < g->n_nodes; i++) {
        const Kernel *k = cuda_kernels[g->nodes[i].op];
        if (!k || !((k->types ? k->types : 1u << DT_F32) >> node_compute_type(g, &g->nodes[i]) & 1))
            return op_def[g->nodes[i].op]->name;
    }
    return NULL;
}

static void run_case(const OpCase *c, DType compute) {
    Backend backend;
    Err err = {0};
    if (!backend_open_cuda(&backend, 0, &err)) fail_msg("%s", err.text);
    if (!(backend.types >> compute & 1)) {
        printf("%s: %s has no %s\n", c->name, backend.description, dtype_name(compute));
        backend.close(&backend);
        skip();
    }
    uint64_t hash[2];
    for (int mode = 0; mode < 2; mode++) {
        emu_set_mode(mode);
        Built b = op_build(c, compute);
        if (missing_kernel(b.g)) {
            printf("%s: no %s kernel for %s yet\n", c->name, dtype_name(compute), missing_kernel(b.g));
            op_built_free(&b);
            backend.close(&backend);
            skip();
        }
        Plan *plan = op_plan(b.g, &backend);
        op_check(c, plan, mode ? "emulated, backwards" : "emulated");
        hash[mode] = op_hash(plan);
        plan_free(plan);
        op_built_free(&b);
    }
    backend.close(&backend);
    if (hash[0] != hash[1])
        fail_msg("%s: the order of threads or what shared memory held before changes the bits", c->name);
}

static void test_f32(void **state) { run_case(*state, DT_F32); }
static void test_bf16(void **state) { run_case(*state, DT_BF16); }
static void test_f16(void **state) { run_case(*state, DT_F16); }

int main(int argc, char **argv) {
    static const CMUnitTestFunction test_of[] = {test_f32, test_bf16, test_f16};
    size_t count = 0, capacity = 0;
    for (size_t f = 0; f < OP_FAMILIES; f++)
        for (const OpCase *c = op_families[f]; c->name; c++) capacity++;
    struct CMUnitTest *tests = mem_zalloc(capacity * COUNTOF(test_of), sizeof *tests);
    for (size_t f = 0; f < OP_FAMILIES; f++)
        for (const OpCase *c = op_families[f]; c->name; c++)
            for (size_t t = 0; t < (op_has_features(c) ? COUNTOF(test_of) : 1); t++)
                if (argc < 2 || strstr(c->name, argv[1]))
                    tests[count++] = (struct CMUnitTest){c->name, test_of[t], NULL, NULL, (void *)c};
    team_use(team_new(2));
    int failed = _cmocka_run_group_tests("cuda ops", tests, count, NULL, NULL);
    free(tests);
    return failed;
}
