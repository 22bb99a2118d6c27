/* test_exhausted.c - mala without memory: in twelve ways through the program chosen allocations fail, one alone or all
 * from one on. It ends with code 5, one line and nothing half written; or with 0 and what an undisturbed run writes.
 * MALA_SOAK=N takes N ways to an allocation of each (all of them where there are fewer), instead of a few. */
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base.h"
#include "program.h"

#define NETWORK \
    "model.name=custom 'model.dims=[8,8,16,16]' 'model.depths=[1,1,1,1]' 'model.heads=[1,1,2,2]' model.projection=16 " \
    "input.size=32 "
#define W "$T/run/weights/best.safetensors"
#define FEW 6 /* ways to an allocation that `make test` takes of each workflow */

typedef struct {
    const char *name, *arguments; /* everything it writes lies in $T/now */
    bool timed;                   /* its stdout differs from run to run */
} Workflow;

static const Workflow workflows[] = {
    {"synth", "synth $T/now/s --train 1 --val 0 --scenes 1 --size 32 --threads 2", false},
    {"train", "train data.path=$T/data output=$T/now/run " SMALL "sched.epochs=1 data.workers=1 --threads 2", false},
    {"eval", "eval " W " --data $T/data --json --threads 2", false},
    {"infer", "infer $T/data/val --weights " W " --json --threads 2", false},
    {"safetensors", "export " W " $T/now/x.safetensors --dtype bfloat16", false},
    {"pth", "export " W " $T/now/x.pth", false},
    {"hub", "export " W " $T/now/hub/", false},
    {"onnx", "export " W " $T/now/x.onnx", false},
    {"import", "import $T/w.pth $T/now/x.safetensors", false},
    {"verify", "verify " W, false},
    {"info", "info " W, false},
    {"plan", "plan " NETWORK "--train", false},
    {"bench", "bench infer " NETWORK "--rounds 1 --batch 1 --threads 2", true},
};

/* ---- what a run leaves ---- */

static uint64_t digest;
static char left_behind[256];

static void add_bytes(const char *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) digest = (digest ^ (unsigned char)bytes[i]) * 0x100000001b3u;
}

/* Files that hold times or lines of a log are not compared. */
static int add_file(const char *path, const struct stat *st, int kind, struct FTW *at) {
    static const char *const other[] = {"results.csv", "metrics.jsonl", "log.txt", ".lock"};
    (void)st;
    if (strstr(path, ".tmp.")) snprintf(left_behind, sizeof left_behind, "%s", path);
    for (size_t i = 0; i < COUNTOF(other); i++)
        if (strcmp(path + at->base, other[i]) == 0) return 0;
    if (kind != FTW_F) return 0;
    static char bytes[1 << 20];
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    uint64_t all = digest; /* the order of a folder's files is not theirs to choose */
    digest = 0xcbf29ce484222325u;
    add_bytes(path, strlen(path));
    for (size_t n; (n = fread(bytes, 1, sizeof bytes, f)) > 0;) add_bytes(bytes, n);
    fclose(f);
    digest += all;
    return 0;
}

static uint64_t outcome(const Workflow *w) {
    char now[SCRATCH_PATH + 8];
    snprintf(now, sizeof now, "%s/now", folder);
    digest = 0;
    left_behind[0] = '\0';
    assert_int_equal(nftw(now, add_file, 16, FTW_PHYS), 0);
    if (!w->timed) add_bytes(output, strlen(output));
    return digest;
}

/* ---- runs ---- */

static char faults[256];

/* The exit code; a signal's is 128 and more, a run without end has 124. */
static int run(const Workflow *w, const char *setting) {
    char command[4096], path[SCRATCH_PATH + 8];
    const char *binary = getenv("MALA");
    snprintf(command, sizeof command,
             "T=%s; rm -rf $T/now; mkdir $T/now; timeout 120 env LD_PRELOAD=%s %s \"%s\" %s >$T/out 2>$T/err", folder,
             faults, setting, binary ? binary : "./mala", w->arguments);
    int status = system(command);
    snprintf(path, sizeof path, "%s/out", folder), read_text(output, sizeof output, path);
    snprintf(path, sizeof path, "%s/err", folder), read_text(errors, sizeof errors, path);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int error_lines(void) {
    int lines = 0;
    for (const char *at = errors; (at = strstr(at, "mala: error: ")); at++) lines++;
    return lines;
}

/* NULL: as it should be. */
static const char *verdict(const Workflow *w, int code, uint64_t undisturbed) {
    uint64_t got = outcome(w);
    if (left_behind[0]) return "a temporary is left";
    if (code == EXIT_DONE) return got == undisturbed ? NULL : "exit 0 with something else written";
    if (code != EXIT_MEMORY) return "neither done nor out of memory";
    return error_lines() == 1 ? NULL : "not one line of error";
}

static int fail_once(const Workflow *w, long n, bool ever_after, uint64_t undisturbed) {
    char setting[64];
    snprintf(setting, sizeof setting, "MALA_MEMORY=%ld%s", n, ever_after ? "+" : "");
    int code = run(w, setting);
    const char *wrong = verdict(w, code, undisturbed);
    if (wrong) print_error("%s, %s: %s: exit %d, %s %s\n", w->name, setting, wrong, code, left_behind, errors);
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
    assert_int_equal(run(w, setting), EXIT_DONE);
    uint64_t undisturbed = outcome(w);
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

static int make_weights(void **state) {
    (void)state;
    const char *binary = getenv("MALA");
    snprintf(faults, sizeof faults, "%s", binary ? binary : "build/mala");
    *strrchr(faults, '/') = '\0';
    strncat(faults, "/tests/faults_memory.so", sizeof faults - strlen(faults) - 1);
    folder_make();
    EXPECT(0, "synth $T/data --train 3 --val 1 --scenes 0 --size 32 --seed 7 --quiet");
    EXPECT(0, "train data.path=$T/data output=$T/run " SMALL "sched.epochs=1 --quiet");
    EXPECT(0, "export " W " $T/w.pth --quiet");
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
    struct CMUnitTest tests[COUNTOF(workflows)];
    for (size_t i = 0; i < COUNTOF(workflows); i++)
        tests[i] = (struct CMUnitTest){workflows[i].name, test_workflow, NULL, NULL, (void *)&workflows[i]};
    return cmocka_run_group_tests_name("exhausted", tests, make_weights, remove_all);
#endif
}
