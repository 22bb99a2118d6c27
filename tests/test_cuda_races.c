/* test_cuda_races.c - no two threads of a CUDA kernel meet in memory without a barrier between them (emulate/races.h),
 * in every case of the op table; and each barrier of the kernels is needed: left out, it is missed. An argument names
 * the cases to run, by part of their name. */
#include "op_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/parallel.h"
#include "emulate/races.h"

/* Runs all steps of a case with races looked for. Returns how many there were, and a line about the first. */
static int races_of(const OpCase *c, DType compute, const RaceBarrier *left_out, char first[400]) {
    Backend backend;
    Err err = {0};
    races_leave_out(left_out);
    if (!backend_open_cuda(&backend, 0, &err)) fail_msg("%s", err.text);
    Built b = op_build(c, compute);
    Plan *plan = op_plan(b.g, &backend);
    for (int32_t i = 0; i < plan->n_steps; i++) plan->steps[i].kernel->run(&plan->steps[i].call);
    plan_free(plan);
    op_built_free(&b);
    backend.close(&backend);
    const char *text;
    int found = races_found(&text);
    if (found) snprintf(first, 400, "%s", text);
    return found;
}

/* ---- the cases ---- */

typedef struct {
    const OpCase *c;
    DType compute;
    uint8_t *meets; /* by barrier */
    double seconds;
} Run;

static Run *runs;
static int run_count;
static int barrier_count;
static RaceBarrier barriers[1024];

/* A kernel's text is the same for both half types. */
static const DType types[] = {DT_F32, DT_BF16};

static void test_nothing_races(void **state) {
    (void)state;
    int failed = 0;
    for (int i = 0; i < run_count; i++) {
        char first[400];
        const RaceBarrier *met;
        races_begin();
        double start = time_now();
        int found = races_of(runs[i].c, runs[i].compute, NULL, first);
        runs[i].seconds = time_now() - start;
        if (found) printf("%s (%s): %d races: %s\n", runs[i].c->name, dtype_name(runs[i].compute), found, first);
        failed += found > 0;
        runs[i].meets = mem_zalloc(COUNTOF(barriers), 1);
        int count = races_barriers(&met);
        for (int k = 0; k < count; k++) {
            int at = 0;
            while (at < barrier_count && (barriers[at].line != met[k].line || strcmp(barriers[at].file, met[k].file))) at++;
            assert_true(at < (int)COUNTOF(barriers));
            if (at == barrier_count) barriers[barrier_count++] = met[k];
            runs[i].meets[at] = 1;
        }
        races_end();
    }
    assert_int_equal(failed, 0);
}

static int by_seconds(const void *a, const void *b) {
    double x = ((const Run *)a)->seconds, y = ((const Run *)b)->seconds;
    return (x > y) - (x < y);
}

static void test_every_barrier_is_needed(void **state) {
    if (*state) skip(); /* not of some cases alone */
    int unnoticed = 0;
    qsort(runs, (size_t)run_count, sizeof *runs, by_seconds);
    for (int k = 0; k < barrier_count; k++) {
        bool noticed = false;
        char first[400];
        for (int i = 0; i < run_count && !noticed; i++) {
            if (!runs[i].meets || !runs[i].meets[k]) continue;
            races_begin();
            noticed = races_of(runs[i].c, runs[i].compute, &barriers[k], first) > 0;
            races_end();
        }
        if (!noticed) printf("%s:%d: left out, and nobody misses it\n", barriers[k].file, barriers[k].line);
        unnoticed += !noticed;
    }
    printf("%d barriers\n", barrier_count);
    assert_true(barrier_count > 0);
    assert_int_equal(unnoticed, 0);
}

int main(int argc, char **argv) {
    int capacity = 0;
    for (size_t f = 0; f < OP_FAMILIES; f++)
        for (const OpCase *c = op_families[f]; c->name; c++) capacity += COUNTOF(types);
    runs = mem_zalloc((size_t)capacity, sizeof *runs);
    for (size_t f = 0; f < OP_FAMILIES; f++)
        for (const OpCase *c = op_families[f]; c->name; c++)
            for (size_t t = 0; t < (op_has_features(c) ? COUNTOF(types) : 1); t++)
                if (argc < 2 || strstr(c->name, argv[1])) runs[run_count++] = (Run){.c = c, .compute = types[t]};
    team_use(team_new(1));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_races),
        cmocka_unit_test_prestate(test_every_barrier_is_needed, argc < 2 ? NULL : argv[1])};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int i = 0; i < run_count; i++) free(runs[i].meets);
    free(runs);
    return failed;
}
