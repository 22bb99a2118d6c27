/* test_failing_disk.c - each system call on a workflow's files fails, once or for good: an error, a full disk, an
 * interruption, a transfer cut short. The program ends with code 4, a line and nothing half written; or with 0 and
 * what an undisturbed run writes. MALA_SOAK=N disturbs N calls of each kind instead of a few. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "workflow.h"

#define FEW 1
#define FOR_GOOD 1000000

typedef struct {
    const char *call;
    int code;  /* 0: cut short */
    int times; /* in a row */
} Fault;

static const Fault faults[] = {
    {"open", EIO, 1},         {"open", EIO, FOR_GOOD},    {"read", EIO, 1},      {"pread", EIO, 1},
    {"pread", EIO, FOR_GOOD}, {"pread", EINTR, 3},        {"pread", 0, FOR_GOOD}, {"write", EIO, 1},
    {"write", EINTR, 3},      {"write", ENOSPC, FOR_GOOD}, {"write", 0, FOR_GOOD}, {"close", EIO, 1},
    {"fsync", EIO, 1},        {"fsync", ENOSPC, FOR_GOOD}, {"rename", EIO, 1},    {"rename", EACCES, FOR_GOOD},
    {"stat", EIO, 1},         {"fstat", EIO, 1},          {"mkdir", EROFS, FOR_GOOD}, {"posix_fallocate", ENOSPC, 1},
    {"opendir", EIO, FOR_GOOD}, {"readdir", EIO, 1},
};

static const char *verdict(const Workflow *w, int code, uint64_t undisturbed) {
    const char *temporary;
    uint64_t got = workflow_outcome(w, &temporary);
    if (temporary[0]) return "a temporary is left";
    /* training goes on without a save or golden logits, and says so */
    if (code == EXIT_DONE && w->warns && strstr(errors, "mala: warning: ")) return NULL;
    if (code == EXIT_DONE) return got == undisturbed ? NULL : "exit 0 with something else written";
    if (code != EXIT_IO) return "neither done nor a failure of the disk";
    return workflow_errors() > 0 ? NULL : "no line of error"; /* infer has one for each picture */
}

/* Calls of each kind that the workflow makes on files of the test's folder. */
static void count_calls(int count[COUNTOF(faults)], const Workflow *w) {
    char settings[4096], text[512], path[SCRATCH_PATH + 8], *at = text;
    int n = snprintf(settings, sizeof settings, "MALA_FAULT_MET=%s/met MALA_FAULT='", folder);
    for (size_t i = 0; i < COUNTOF(faults); i++)
        n += snprintf(settings + n, sizeof settings - (size_t)n, "%s:%s/:1:0:0 ", faults[i].call, folder);
    snprintf(settings + n, sizeof settings - (size_t)n, "'");
    assert_int_equal(workflow_run(w, settings), EXIT_DONE);
    snprintf(path, sizeof path, "%s/met", folder);
    read_text(text, sizeof text, path);
    for (size_t i = 0; i < COUNTOF(faults); i++) count[i] = (int)strtol(at, &at, 10);
}

static int disturb(const Workflow *w, const Fault *f, int skip, uint64_t undisturbed) {
    char settings[512];
    snprintf(settings, sizeof settings, "MALA_FAULT_HURRY=1 MALA_FAULT=%s:%s/:%d:%d:%d", f->call, folder, f->code, skip, f->times);
    int code = workflow_run(w, settings);
    const char *wrong = verdict(w, code, undisturbed);
    if (wrong) print_error("%s, %s: %s: exit %d, %s\n", w->name, settings, wrong, code, errors);
    return wrong != NULL;
}

static void test_workflow(void **state) {
    const Workflow *w = workflow_find(*state);
    const char *temporary, *soak = getenv("MALA_SOAK");
    int wanted = soak ? atoi(soak) : FEW, wrong = 0, count[COUNTOF(faults)];
    count_calls(count, w);
    uint64_t undisturbed = workflow_outcome(w, &temporary);
    for (size_t i = 0; i < COUNTOF(faults); i++) {
        int step = MAX(count[i] / wanted, 1);
        for (int skip = (int)i % step; skip < count[i]; skip += step)
            wrong += disturb(w, &faults[i], skip, undisturbed);
    }
    assert_int_equal(wrong, 0);
}

static int make_all(void **state) {
    (void)state;
    workflows_open("io");
    return 0;
}

static int remove_all(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

int main(void) {
    static char *const names[] = {"synth", "train", "infer", "import", "hub", "onnx"};
    struct CMUnitTest tests[COUNTOF(names)];
    for (size_t i = 0; i < COUNTOF(names); i++)
        tests[i] = (struct CMUnitTest){names[i], test_workflow, NULL, NULL, names[i]};
    return cmocka_run_group_tests_name("failing disk", tests, make_all, remove_all);
}
