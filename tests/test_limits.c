/* test_limits.c - memory that ends somewhere: whatever allocation fails, of mala's or of a library's, the program ends
 * with code 5, or does its work. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "program.h"

static int make_run(void **state) {
    (void)state;
    folder_make();
    EXPECT(0, "synth $T/data --train 3 --val 2 --scenes 0 --size 48 --seed 7 --quiet");
    EXPECT(0, "train data.path=$T/data output=$T/run " SMALL "--quiet");
    return 0;
}

static int remove_run(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

/* mala with something before it in the shell; what the shell makes of its end. */
static int mala_under(const char *before, const char *arguments) {
    char command[4096];
    const char *binary = getenv("MALA");
    snprintf(command, sizeof command, "T=%s; (%s \"%s\" %s) >$T/out 2>$T/err", folder, before,
             binary ? binary : "./mala", arguments);
    int status = system(command);
    snprintf(command, sizeof command, "%s/err", folder);
    read_text(errors, sizeof errors, command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Below some size the libraries cannot even be loaded and set up, before main: there is nothing to say about those. */
static void sweep(const char *arguments, int from, int step, int to) {
    int ended = 0, done = 0;
    for (int kilobytes = from; kilobytes <= to && done < 3; kilobytes += step) {
        char before[64];
        snprintf(before, sizeof before, "ulimit -v %d; exec", kilobytes);
        if (ended == 0 && mala_under(before, "--version") != 0) continue;
        int code = mala_under(before, arguments);
        if (code != 0 && code != 5) fail_msg("ulimit -v %d: mala %s: %d", kilobytes, arguments, code);
        ended += code == 5;
        done += code == 0;
    }
    assert_true(ended >= 3);
    assert_true(done >= 1);
}

static void test_address_space(void **state) {
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* it takes terabytes of address space */
#endif
    sweep("infer $T/data/val/car --weights $T/run -t 1 -q", 45000, 2500, 400000);
    sweep("train data.path=$T/data output=$T/again exist_ok=true --quiet --epochs 1 " SMALL, 50000, 17000, 900000);
}

/* What the library compiles when it is first asked for a kind of product may not wait for the first step. */
static void test_address_space_that_ends_in_a_step(void **state) {
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip();
#endif
    sweep("train data.path=$T/data output=$T/again exist_ok=true --quiet --epochs 1 -t 2 -j 1 " SMALL, 250000, 3000,
          300000);
}

/* Too few descriptors: an error, and no folder after the other because none can be looked into. */
static void test_few_descriptors(void **state) {
    (void)state;
    for (int limit = 4; limit <= 8; limit++) {
        char before[64];
        snprintf(before, sizeof before, "ulimit -n %d; exec timeout 20", limit);
        int code = mala_under(before, "train data.path=$T/data output=$T/few exist_ok=false --quiet --epochs 1 " SMALL);
        if (code != 0 && code != 4) fail_msg("ulimit -n %d: %d", limit, code);
    }
    shell("test ! -e $T/few-4");
}

/* A stack that would end in the middle of the work is told before it; a soft limit alone is raised. */
static void test_small_stack(void **state) {
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* its own frames are larger */
#endif
    const char *train = "train data.path=$T/data output=$T/stack --exist-ok --quiet --epochs 1 " SMALL;
    for (int kilobytes = 64; kilobytes <= 1024; kilobytes += kilobytes) {
        char before[64];
        snprintf(before, sizeof before, "ulimit -s %d; exec", kilobytes);
        assert_int_equal(mala_under(before, train), kilobytes < 1024 ? 5 : 0);
        if (kilobytes < 1024) expect_text(errors, "are needed - raise it: ulimit -s 1024");
        snprintf(before, sizeof before, "ulimit -S -s %d; exec", kilobytes);
        assert_int_equal(mala_under(before, train), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_address_space),
                                       cmocka_unit_test(test_address_space_that_ends_in_a_step),
                                       cmocka_unit_test(test_few_descriptors), cmocka_unit_test(test_small_stack)};
    return cmocka_run_group_tests(tests, make_run, remove_run);
}
