#include "workflow.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#define NETWORK \
    "model.name=custom 'model.dims=[8,8,16,16]' 'model.depths=[1,1,1,1]' 'model.heads=[1,1,2,2]' model.projection=16 " \
    "input.size=32 "
#define W "$T/run/weights/best.safetensors"

const Workflow workflows[] = {
    {"synth", "synth $T/now/s --train 1 --val 0 --scenes 1 --size 32 --threads 2", false, false},
    {"train", "train data.path=$T/data output=$T/now/run " SMALL "sched.epochs=1 data.workers=1 --threads 2", false,
     true},
    {"eval", "eval " W " --data $T/data --json --threads 2", false, false},
    {"infer", "infer $T/data/val --weights " W " --json --threads 2", false, false},
    {"safetensors", "export " W " $T/now/x.safetensors --dtype bfloat16", false, false},
    {"pth", "export " W " $T/now/x.pth", false, false},
    {"hub", "export " W " $T/now/hub/", false, false},
    {"onnx", "export " W " $T/now/x.onnx", false, false},
    {"import", "import $T/w.pth $T/now/x.safetensors", false, false},
    {"verify", "verify " W, false, false},
    {"info", "info " W, false, false},
    {"plan", "plan " NETWORK "--train", false, false},
    {"bench", "bench infer " NETWORK "--rounds 1 --batch 1 --threads 2", true, false},
};
const int workflow_count = COUNTOF(workflows);

const Workflow *workflow_find(const char *name) {
    for (int i = 0; i < workflow_count; i++)
        if (strcmp(workflows[i].name, name) == 0) return &workflows[i];
    fail_msg("no workflow %s", name);
    return NULL;
}

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

uint64_t workflow_outcome(const Workflow *w, const char **temporary) {
    char now[SCRATCH_PATH + 8];
    snprintf(now, sizeof now, "%s/now", folder);
    digest = 0;
    left_behind[0] = '\0';
    assert_int_equal(nftw(now, add_file, 16, FTW_PHYS), 0);
    if (!w->timed) add_bytes(output, strlen(output));
    *temporary = left_behind;
    return digest;
}

/* ---- runs ---- */

static char faults[256];

int workflow_run(const Workflow *w, const char *settings) {
    char command[4096], path[SCRATCH_PATH + 8];
    const char *binary = getenv("MALA");
    snprintf(command, sizeof command,
             "T=%s; rm -rf $T/now; mkdir $T/now; timeout 120 env LD_PRELOAD=%s "
             "ASAN_OPTIONS=verify_asan_link_order=0 %s \"%s\" %s >$T/out 2>$T/err", folder,
             faults, settings, binary ? binary : "./mala", w->arguments);
    int status = system(command);
    snprintf(path, sizeof path, "%s/out", folder), read_text(output, sizeof output, path);
    snprintf(path, sizeof path, "%s/err", folder), read_text(errors, sizeof errors, path);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int workflow_errors(void) {
    int lines = 0;
    for (const char *at = errors; (at = strstr(at, "mala: error: ")); at++) lines++;
    return lines;
}

void workflows_open(const char *preload) {
    const char *binary = getenv("MALA");
    snprintf(faults, sizeof faults, "%s", binary ? binary : "build/mala");
    char *slash = strrchr(faults, '/');
    assert_non_null(slash);
    snprintf(slash, sizeof faults - (size_t)(slash - faults), "/tests/faults_%s.so", preload);
    folder_make();
    EXPECT(0, "synth $T/data --train 3 --val 1 --scenes 0 --size 32 --seed 7 --quiet");
    EXPECT(0, "train data.path=$T/data output=$T/run " SMALL "sched.epochs=1 --quiet");
    EXPECT(0, "export " W " $T/w.pth --quiet");
}
