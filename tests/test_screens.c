/* test_screens.c - what a person sees on a terminal of 80 columns: no line of help, log or results is wider. Errors are
 * one line each, and may be; on a terminal they are broken between words (test_log.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/strings.h"
#include "program.h"

static int make_run(void **state) {
    (void)state;
    folder_make();
    unsetenv("COLUMNS");
    EXPECT(0, "synth $T/data --train 3 --val 2 --scenes 0 --size 48 --seed 7 --quiet");
    EXPECT(0, "train data.path=$T/data output=$T/run " SMALL "--quiet");
    return 0;
}

static int remove_run(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

/* The folder's name is longer than what people call theirs. */
static void expect_narrow(char *text, const char *arguments) {
    for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
        size_t width = utf8_columns(line), here = strstr(line, folder) ? strlen(folder) : 0;
        if (width - here > 80) fail_msg("mala %s: %zu columns: %s", arguments, width, line);
    }
}

static void expect_screen(const char *arguments) {
    EXPECT(0, arguments);
    expect_narrow(output, arguments);
    expect_narrow(errors, arguments);
}

static void test_help(void **state) {
    (void)state;
    static const char *const about[] = {"",      "train",  "eval",   "infer",  "info", "synth",
                                        "bench", "export", "import", "verify", "plan", "config"};
    for (size_t i = 0; i < COUNTOF(about); i++) {
        char arguments[40];
        snprintf(arguments, sizeof arguments, "help %s", about[i]);
        expect_screen(arguments);
    }
    EXPECT(2, "");
    expect_text(errors, "usage: mala <command>");
    expect_narrow(errors, "");
}

static void test_commands(void **state) {
    (void)state;
    static const char *const all[] = {
        "train data.path=$T/data output=$T/other " SMALL,
        "train data.path=$T/data output=$T/tuned --weights $T/run " SMALL "--epochs 1",
        "eval $T/run --data $T/data",
        "infer $T/data/val/car/car_00001.jpg --weights $T/run --topk 3",
        "verify $T/run",
        "export $T/run $T/a.onnx",
        "export $T/run $T/hub/ --verify $T/data/val",
        "import $T/run $T/a.safetensors",
        "info --model mavit_l",
        "info --model mavit_t --all",
        "plan --train",
        "bench infer --model custom model.dims=8,8,16,16 model.depths=1,1,1,1 model.heads=1,1,2,2 --size 32 --rounds 1 "
        "--ops",
        "bench train --model custom model.dims=8,8,16,16 model.depths=1,1,1,1 model.heads=1,1,2,2 --size 32 --rounds 1 "
        "--steps",
        "synth $T/made --train 1 --val 1 --scenes 0 --size 32",
    };
    for (size_t i = 0; i < COUNTOF(all); i++) expect_screen(all[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_help), cmocka_unit_test(test_commands)};
    return cmocka_run_group_tests_name("screens", tests, make_run, remove_run);
}
