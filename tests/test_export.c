/* test_export.c - files that commands write: nothing is replaced unless somebody says so; what was written is said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "program.h"

static int make_run(void **state) {
    (void)state;
    folder_make();
    EXPECT(0, "synth $T/data --train 2 --val 1 --scenes 0 --size 32 --seed 7 --quiet");
    EXPECT(0, "train data.path=$T/data output=$T/run " SMALL "--quiet --epochs 1");
    return 0;
}

static int remove_run(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

/* A command that writes NAME: refused while there is something of this name, which stays as it is. */
static void refused_until_forced(const char *name, const char *arguments) {
    char command[600];
    snprintf(command, sizeof command, "echo mine >%s && cp %s mine", name, name);
    shell(command);
    EXPECT(2, arguments);
    expect_text(errors, "exists - add --force to replace it");
    snprintf(command, sizeof command, "cmp %s mine", name);
    shell(command);
    snprintf(command, sizeof command, "%s --force", arguments);
    EXPECT(0, command);
    snprintf(command, sizeof command, "! cmp -s %s mine", name);
    shell(command);
}

static void test_nothing_is_replaced(void **state) {
    (void)state;
    refused_until_forced("a.onnx", "export $T/run $T/a.onnx");
    refused_until_forced("a.pth", "export $T/run $T/a.pth");
    refused_until_forced("a.safetensors", "export $T/run $T/a.safetensors");
    refused_until_forced("b.safetensors", "import $T/a.pth $T/b.safetensors");
    refused_until_forced("b.pth", "import $T/a.safetensors $T/b.pth");
    shell("mkdir hub");
    refused_until_forced("hub/config.json", "export $T/run $T/hub/");
    shell("rm -r hub && mkdir hub");
    refused_until_forced("hub/model.safetensors", "export $T/run $T/hub/");
    shell("cp run/config.json config.before"); /* not with --force, either */
    EXPECT(2, "export $T/run $T/run/ --force");
    expect_text(errors, "/run/: is a run's folder, whose config.json would be lost - name another folder");
    shell("mkdir -p late/weights && cp run/weights/last.safetensors late/weights/");
    EXPECT(2, "export $T/run $T/late --to hf");
    expect_text(errors, "/late: is a run's folder");
    shell("cmp run/config.json config.before && test ! -e run/model.safetensors -a ! -e late/config.json");
    shell("echo mine >mine && ln -s mine link.pth");
    EXPECT(2, "export $T/run $T/link.pth"); /* a link's file is somebody's, too */
    EXPECT(2, "synth $T/data --train 1 --val 1 --scenes 0 --size 32 --quiet"); /* not with --force, either */
    expect_text(errors, "is not empty");
}

static void test_says_what_it_wrote(void **state) {
    (void)state;
    EXPECT(0, "export $T/run $T/said.onnx");
    expect_text(output, "/said.onnx: ONNX, 12 classes, 32x32, float32, 0.1 MB\n");
    EXPECT(0, "export $T/run $T/said.safetensors --as backbone --dtype bf16");
    expect_text(output, "/said.safetensors: safetensors, backbone, 32x32, bfloat16, 0.0 MB\n");
    EXPECT(0, "export $T/run $T/said/");
    expect_text(output, "/said/: hub folder, 12 classes, ");
}

/* Flags that mean nothing beside the others are refused, as unknown ones are. */
static void test_flags_without_effect(void **state) {
    (void)state;
    EXPECT(2, "export $T/run $T/x.pth --limit 1");
    expect_text(errors, "--limit is for --verify");
    EXPECT(2, "import $T/run $T/x.safetensors --key model");
    expect_text(errors, "--key is for OUT.pth");
    EXPECT(2, "bench peak --batch 4");
    expect_text(errors, "bench peak does not use --batch");
    EXPECT(2, "export $T/run $T/x.pth --epochs 3");
    expect_text(errors, "export does not use --epochs - it is for train");
    EXPECT(2, "verify $T/run --weights $T/run");
    expect_text(errors, "weights are given twice");
    EXPECT(0, "eval $T/run --data $T/data --config $T/run/config.json"); /* a file may hold every option */
    shell("! ls | grep '^x'");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_nothing_is_replaced),
                                       cmocka_unit_test(test_says_what_it_wrote),
                                       cmocka_unit_test(test_flags_without_effect)};
    return cmocka_run_group_tests_name("export", tests, make_run, remove_run);
}
