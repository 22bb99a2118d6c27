/* test_cuda_ops.c - the CUDA kernels without a GPU: every case of the op table through the host emulation
 * (tests/emulate/), against the double reference, twice: threads in order and backwards, with other rubbish in shared
 * memory. The bits must be the same both times. An argument names the cases to run, by part of their name. */
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

static const char *missing_kernel(const Graph *g) {
    for (int32_t i = 0; i < g->n_nodes; i++)
        if (!cuda_kernels[g->nodes[i].op]) return op_def[g->nodes[i].op]->name;
    return NULL;
}

static void test_case(void **state) {
    const OpCase *c = *state;
    Backend backend;
    Err err = {0};
    if (!backend_open_cuda(&backend, 0, &err)) fail_msg("%s", err.text);
    uint64_t hash[2];
    for (int mode = 0; mode < 2; mode++) {
        emu_set_mode(mode);
        Built b = op_build(c);
        if (missing_kernel(b.g)) {
            printf("%s: no CUDA kernel for %s yet\n", c->name, missing_kernel(b.g));
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

int main(int argc, char **argv) {
    size_t count = 0, capacity = 0;
    for (size_t f = 0; f < OP_FAMILIES; f++)
        for (const OpCase *c = op_families[f]; c->name; c++) capacity++;
    struct CMUnitTest *tests = mem_zalloc(capacity, sizeof *tests);
    for (size_t f = 0; f < OP_FAMILIES; f++)
        for (const OpCase *c = op_families[f]; c->name; c++)
            if (argc < 2 || strstr(c->name, argv[1]))
                tests[count++] = (struct CMUnitTest){c->name, test_case, NULL, NULL, (void *)c};
    team_use(team_new(2));
    int failed = _cmocka_run_group_tests("cuda ops", tests, count, NULL, NULL);
    free(tests);
    return failed;
}
