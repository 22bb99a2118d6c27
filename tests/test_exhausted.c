/* test_exhausted.c - mala without memory: in twelve ways through the program chosen allocations fail, one alone or all
 * from one on. It ends with code 5, one line and nothing half written; or with 0 and what an undisturbed run writes.
 * MALA_SOAK=N takes N ways to an allocation of each (all of them where there are fewer), instead of a few. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "workflow.h"

#define FEW 6 /* ways to an allocation that `make test` takes of each workflow */

/* NULL: as it should be. */
static const char *verdict(const Workflow *w, int code, uint64_t undisturbed) {
    const char *temporary;
    uint64_t got = workflow_outcome(w, &temporary);
    if (temporary[0]) return "a temporary is left";
    if (code == EXIT_DONE) return got == undisturbed ? NULL : "exit 0 with something else written";
    if (code != EXIT_MEMORY) return "neither done nor out of memory";
    return workflow_errors() == 1 ? NULL : "not one line of error";
}

static int fail_once(const Workflow *w, long n, bool ever_after, uint64_t undisturbed) {
    char setting[64];
    snprintf(setting, sizeof setting, "MALA_NO_MEMORY=%ld%s", n, ever_after ? "+" : "");
    int code = workflow_run(w, setting);
    const char *wrong = verdict(w, code, undisturbed);
    if (wrong) print_error("%s, %s: %s: exit %d, %s\n", w->name, setting, wrong, code, errors);
    return wrong != NULL;
}

/* ---- which allocations ---- */

typedef struct {
    unsigned way;
    long number;
} Site;

static int by_way(const void *a, const void *b) {
    const Site *x = a, *y = b;
    return x->way != y->way ? (x->way > y->way) - (x->way < y->way) : (x->number > y->number) - (x->number < y->number);
}

/* The first allocation of each way to one, in an order that has nothing to do with the program's. */
static size_t distinct_sites(Site **out) {
    char path[SCRATCH_PATH + 8];
    size_t count = 0, room = 1 << 20, kept = 0;
    Site *sites = mem_zalloc(room, sizeof *sites);
    snprintf(path, sizeof path, "%s/sites", folder);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (count < room && fscanf(f, "%u", &sites[count].way) == 1) sites[count].number = (long)count + 1, count++;
    fclose(f);
    qsort(sites, count, sizeof *sites, by_way);
    for (size_t i = 0; i < count; i++)
        if (i == 0 || sites[i].way != sites[kept - 1].way) sites[kept++] = sites[i];
    *out = sites;
    return kept;
}

static void test_workflow(void **state) {
    const Workflow *w = *state;
    char setting[SCRATCH_PATH + 32];
    const char *soak = getenv("MALA_SOAK");
    Site *sites;
    snprintf(setting, sizeof setting, "MALA_MEMORY_SITES=%s/sites", folder);
    assert_int_equal(workflow_run(w, setting), EXIT_DONE);
    const char *temporary;
    uint64_t undisturbed = workflow_outcome(w, &temporary);
    size_t count = distinct_sites(&sites), wanted = soak ? (size_t)strtoul(soak, NULL, 10) : FEW;
    assert_true(count > 20);
    int wrong = 0;
    for (size_t i = 0; i < MIN(wanted, count); i++) {
        size_t at = wanted < count ? i * count / wanted : i;
        wrong += fail_once(w, sites[at].number, i % 2, undisturbed);
        if (soak) wrong += fail_once(w, sites[at].number, i % 2 == 0, undisturbed);
    }
    print_message("%s: %zu ways to an allocation, %d ended wrongly\n", w->name, count, wrong);
    free(sites);
    assert_int_equal(wrong, 0);
}

static int make_all(void **state) {
    (void)state;
    workflows_open("memory");
    return 0;
}

static int remove_all(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

int main(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    puts("[  SKIPPED ] 1 test(s): a sanitizer has its own allocator");
    return 0;
#else
    struct CMUnitTest tests[32];
    for (int i = 0; i < workflow_count; i++)
        tests[i] = (struct CMUnitTest){workflows[i].name, test_workflow, NULL, NULL, (void *)&workflows[i]};
    return _cmocka_run_group_tests("exhausted", tests, (size_t)workflow_count, make_all, remove_all);
#endif
}
