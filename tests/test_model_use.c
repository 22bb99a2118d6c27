/* test_model_use.c - files of weights in use: what they may say of the machine, what may be said beside them, what they
 * may become. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "io/safetensors.h"
#include "program.h"

#define BEST "$T/run/weights/best.safetensors "

static Err err;

#define OK(call) \
    do { \
        if (!(call)) fail_msg("%s: %s", #call, err.text); \
    } while (0)

static char *file_in(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int make_run(void **state) {
    (void)state;
    folder_make();
    EXPECT(0, "synth $T/data --train 2 --val 1 --scenes 0 --size 32 --seed 7 --quiet");
    EXPECT(0, "train data.path=$T/data output=$T/run " SMALL "--epochs 1 --quiet");
    return 0;
}

static int remove_run(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

/* Copies best without its seal, its config changed at `pattern` to `text`. */
static void change_config(const char *name, const char *pattern, const char *text) {
    TensorFile f;
    OK(tensor_file_open(&f, file_in("run/weights/best.safetensors"), NULL, &err));
    const char *config = tensor_file_metadata(&f, "mala.config"), *at = strstr(config, pattern);
    if (!at) fail_msg("'%s' is not in %s", pattern, config);
    const size_t room = strlen(config) + strlen(text) + 1;
    char *changed = mem_zalloc(room, 1);
    snprintf(changed, room, "%.*s%s%s", (int)(at - config), config, text, at + strlen(pattern));
    const StoredPair pairs[] = {{"mala.config", changed}, {"mala.classes", tensor_file_metadata(&f, "mala.classes")}};
    OK(safetensors_write(file_in(name), f.tensors, f.tensor_count, pairs, COUNTOF(pairs), &err));
    free(changed);
    tensor_file_close(&f);
}

/* ---- the machine ---- */

/* The device and threads of where a file was written are nobody's elsewhere; those that are typed count. */
static void test_files_bind_no_machine(void **state) {
    (void)state;
    static const char *const changes[][2] = {{"\"device\": \"auto\"", "\"device\": \"cuda:97\""},
                                             {"\"device\": \"auto\"", "\"device\": \"tpu\""},
                                             {"\"threads\": \"auto\"", "\"threads\": 1024"}};
    for (size_t i = 0; i < COUNTOF(changes); i++) {
        change_config("moved.safetensors", changes[i][0], changes[i][1]);
        EXPECT(0, "infer $T/data/val --weights $T/moved.safetensors");
        EXPECT(0, "eval $T/moved.safetensors --data $T/data");
        EXPECT(0, "export $T/moved.safetensors $T/again.safetensors --force");
        EXPECT(0, "verify $T/again.safetensors");
        shell("! grep -aq -e 'cuda:97' -e ' ..tpu' -e 'threads.\": 1024' again.safetensors");
    }
    EXPECT(2, "infer $T/data/val --weights $T/moved.safetensors --device tpu");
}

/* Weights that may not be seen are not weights that are not there. */
static void test_unseen_is_not_absent(void **state) {
    (void)state;
    expect_failing(4, "stat:weights/best:13:0:99", "eval $T/run --data $T/data");
    expect_text(errors, "weights/best.safetensors: ");
    expect_text(errors, "ermission denied");
    EXPECT(0, "export $T/run $T/seen.hub --to hf");
    expect_failing(4, "stat:hub/config.json:5:0:99", "infer $T/data/val --weights $T/seen.hub");
    shell("mkdir -p empty/weights");
    EXPECT(3, "verify $T/empty");
    expect_text(errors, "the run saved none");
}

/* ---- what is said beside a file ---- */

/* @ in a command becomes the name of a file. */
static void file_command(char *out, size_t room, const char *command, const char *name) {
    const char *at = strchr(command, '@');
    snprintf(out, room, "%.*s%s%s", (int)(at - command), command, name, at + 1);
}

/* Another number of classes than the head's is refused by everything that opens a file, as typed or as the file's. */
static void test_classes_are_the_heads(void **state) {
    (void)state;
    static const char *const commands[] = {"infer $T/data/val --weights $T/@", "eval $T/@ --data $T/data",
                                           "verify $T/@", "export $T/@ $T/n.onnx", "info $T/@",
                                           "import $T/@ $T/n.safetensors"};
    change_config("five.safetensors", "\"num_classes\": \"auto\"", "\"num_classes\": 5");
    shell("echo '{\"model\": {\"num_classes\": 5}}' >five.json");
    for (size_t i = 0; i < COUNTOF(commands); i++) {
        char arguments[200], typed[300];
        file_command(arguments, sizeof arguments, commands[i], "run");
        snprintf(typed, sizeof typed, "%s --num-classes 5", arguments);
        EXPECT(2, typed);
        expect_text(errors, "command line: model.num_classes: 5, but head.weight in ");
        expect_text(errors, " has 12");
        file_command(arguments, sizeof arguments, commands[i], "five.safetensors");
        EXPECT(3, arguments);
        expect_text(errors, "five.safetensors: mala.config:");
    }
    shell("test ! -e n.onnx && test ! -e n.safetensors");
    EXPECT(2, "infer $T/data/val --weights $T/run --config $T/five.json");
    expect_text(errors, "five.json:1:");
    EXPECT(0, "infer $T/data/val --weights $T/run --num-classes 12");
}

/* ---- what a file may become ---- */

/* Verification comes before the name: neither pictures that are not there nor weights that differ cost a good file. */
static void test_verified_before_it_is_there(void **state) {
    (void)state;
    shell("mkdir none && touch none/notes.md");
    static const char *const outs[] = {"v.safetensors", "v.pth", "v/"};
    static const char *const ways[] = {"--verify $T/none", "--verify $T/absent",
                                       "--verify $T/data/val --dtype bf16 --limit 0"};
    for (size_t i = 0; i < COUNTOF(outs) * COUNTOF(ways); i++) {
        const char *out = outs[i / COUNTOF(ways)], *way = ways[i % COUNTOF(ways)];
        char arguments[200], check[300];
        snprintf(arguments, sizeof arguments, "export $T/run $T/%s --force --license kept -q", out);
        EXPECT(0, arguments);
        snprintf(check, sizeof check, "rm -rf before && cp -r %s before && ls >listed", out);
        shell(check);
        snprintf(arguments, sizeof arguments, "export $T/run $T/%s --force %s", out, way);
        EXPECT(3, arguments);
        snprintf(check, sizeof check, "diff -r %s before && ls | diff - listed", out);
        shell(check);
        snprintf(arguments, sizeof arguments, "export $T/run $T/new-%s %s", out, way);
        EXPECT(3, arguments);
        shell("! ls -d new-*");
    }
    expect_text(output, "pictures: largest difference"); /* said, where it is too large, too */
    EXPECT(0, "export $T/run $T/v.pth --force --verify $T/data/val");
    expect_text(output, "top-1 the same in 100.00 %");
    assert_null(strstr(errors, ".tmp."));
}

/* Where import puts weights, readers find them; what its name calls ONNX or nothing is no safetensors file. */
static void test_names_that_import_takes(void **state) {
    (void)state;
    static const char *const keys[] = {"model", "state_dict", "model_ema", "state_dict_ema", "''"};
    for (size_t i = 0; i < COUNTOF(keys); i++) {
        char arguments[200];
        snprintf(arguments, sizeof arguments, "import $T/run $T/k.pth --force --key %s", keys[i]);
        EXPECT(0, arguments);
        EXPECT(0, i == 4 ? "info $T/k.pth --config $T/run/config.json" : "verify $T/k.pth");
    }
    static const char *const refuse[] = {"net", "metadata", "optimizer", "Model", "model "};
    for (size_t i = 0; i < COUNTOF(refuse); i++) {
        char arguments[200];
        snprintf(arguments, sizeof arguments, "import $T/run $T/no.pth --key '%s'", refuse[i]);
        EXPECT(2, arguments);
        expect_text(errors, "is none of model, state_dict, model_ema, state_dict_ema");
    }
    static const char *const names[] = {"no.onnx", "no.txt", "no", "no.PTH", "no.safetensors.bak"};
    for (size_t i = 0; i < COUNTOF(names); i++) {
        char arguments[200];
        snprintf(arguments, sizeof arguments, "import $T/run $T/%s", names[i]);
        EXPECT(2, arguments);
        expect_text(errors, "import writes .safetensors or .pth");
    }
    shell("! ls -d no no.*");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_bind_no_machine),
        cmocka_unit_test(test_classes_are_the_heads),
        cmocka_unit_test(test_verified_before_it_is_there),
        cmocka_unit_test(test_names_that_import_takes),
        cmocka_unit_test(test_unseen_is_not_absent),
    };
    return cmocka_run_group_tests_name("model use", tests, make_run, remove_run);
}
