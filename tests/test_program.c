/* test_program.c - the program as a person meets it: commands, output, exit codes, bad input. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <cjson/cJSON.h>

#include "base/file.h"
#include "program.h"

static int make_data(void **state) {
    (void)state;
    folder_make();
    EXPECT(0, "synth $T/data --train 3 --val 2 --scenes 0 --size 32 --seed 7 --quiet");
    EXPECT(0, "train data.path=$T/data output=$T/run " SMALL "--json");
    return 0;
}

static int remove_data(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

static void test_run_directory(void **state) {
    (void)state;
    static const char *const files[] = {"config.json", "classes.txt", "results.csv", "metrics.jsonl", "log.txt",
                                        "weights/best.safetensors", "weights/last.safetensors"};
    for (size_t i = 0; i < COUNTOF(files); i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/run/%s", folder, files[i]);
        if (access(path, R_OK) != 0) fail_msg("%s is missing", path);
    }
    char path[256], csv[4096];
    snprintf(path, sizeof path, "%s/run/results.csv", folder);
    read_text(csv, sizeof csv, path);
    expect_text(csv, "epoch,time,train/loss,metrics/accuracy_top1,metrics/accuracy_top5,val/loss,lr/pg0\n1,");
    expect_text(csv, "\n2,");
}

static void test_same_run_same_bytes(void **state) {
    (void)state;
    EXPECT(0, "train data.path=$T/data output=$T/again --threads 1 data.workers=0 " SMALL "--quiet");
    char command[512];
    snprintf(command, sizeof command, "cd %s && cut -d, -f1,3- run/results.csv >a && cut -d, -f1,3- again/results.csv >b && "
             "cmp a b", folder);
    assert_int_equal(system(command), 0);
    EXPECT(0, "train --config $T/run/config.json output=$T/run --quiet"); /* its own config; a new directory beside it */
    snprintf(command, sizeof command, "cd %s && cut -d, -f1,3- run-2/results.csv >b && cmp a b", folder);
    assert_int_equal(system(command), 0);
}

static void test_eval(void **state) {
    (void)state;
    EXPECT(0, "eval $T/run/weights/last.safetensors --data $T/data --json");
    cJSON *json = json_line(output);
    int images = (int)number_of(json, "images");
    assert_true(images >= 20 && images % 2 == 0);
    double top1 = number_of(json, "top1"), top5 = number_of(json, "top5");
    assert_true(top1 >= 0 && top1 <= top5 && top5 <= 1 && number_of(json, "loss") > 0);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(json, "per_class")), images / 2);
    cJSON_Delete(json);
    /* what the run itself measured on the same weights */
    char path[256], csv[4096], text[64];
    snprintf(path, sizeof path, "%s/run/results.csv", folder);
    read_text(csv, sizeof csv, path);
    snprintf(text, sizeof text, ",%.6f,%.6f,", top1, top5);
    expect_text(strstr(csv, "\n2,"), text);
}

static void test_infer(void **state) {
    (void)state;
    EXPECT(0, "infer $T/data/val --weights $T/run/weights/best.safetensors --json --topk 3");
    int lines = 0;
    for (const char *line = output; *line; line = strchr(line, '\n') + 1, lines++) {
        cJSON *json = json_line(line);
        assert_true(cJSON_IsString(cJSON_GetObjectItemCaseSensitive(json, "image")));
        const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, "predictions");
        assert_int_equal(cJSON_GetArraySize(list), 3);
        double last = 1;
        for (const cJSON *p = list->child; p; p = p->next) {
            double score = number_of(p, "score");
            assert_true(score >= 0 && score <= last && number_of(p, "class") >= 0);
            assert_true(cJSON_IsString(cJSON_GetObjectItemCaseSensitive(p, "label")));
            last = score;
        }
        cJSON_Delete(json);
    }
    assert_true(lines >= 20);
}

/* A picture's scores do not depend on what else is in its batch, on how it is named to the command, nor on how many
 * threads decode; pictures that cannot be read are named in their place. */
static void test_infer_ways_agree(void **state) {
    (void)state;
    static char all[1 << 20];
    EXPECT(0, "infer $T/data/val --weights $T/run/weights/best.safetensors --json");
    memcpy(all, output, sizeof all);
    char command[512];
    snprintf(command, sizeof command, "find %s/data/val -name '*.jpg' | sort -r > %s/list.txt", folder, folder);
    assert_int_equal(system(command), 0);
    EXPECT(0, "infer - --weights $T/run/weights/best.safetensors --json < $T/list.txt");
    const char *line = output;
    for (int i = 0; i < 5 && *line; i++, line = strchr(line, '\n') + 1) {
        char one[4096];
        size_t n = strcspn(line, "\n");
        assert_true(n < sizeof one);
        memcpy(one, line, n);
        one[n] = '\0';
        expect_text(all, strstr(one, "\"predictions\""));
    }
    EXPECT(0, "infer $T/data/val --weights $T/run/weights/best.safetensors --json train.threads=5");
    assert_string_equal(all, output);
    static char named[1 << 16];
    shell("(echo missing_a.jpg; cat list.txt; echo missing_b.jpg; head -n 3 list.txt) >holes.txt");
    for (int threads = 1; threads <= 5; threads += 2) {
        snprintf(command, sizeof command, "infer $T/holes.txt --weights $T/run/weights/best.safetensors train.threads=%d",
                 threads);
        EXPECT(3, command);
        if (threads == 1) memcpy(all, output, sizeof all), snprintf(named, sizeof named, "%s", strstr(errors, "mala: "));
        assert_string_equal(all, output);
        assert_string_equal(named, strstr(errors, "mala: "));
    }
    expect_text(named, "missing_a.jpg");
    expect_text(strstr(named, "missing_a.jpg"), "missing_b.jpg");
}

static void test_errors(void **state) {
    (void)state;
    EXPECT(2, "");
    EXPECT(2, "tarin");
    expect_text(errors, "train");
    EXPECT(2, "train optim.lrr=1");
    expect_text(errors, "did you mean \"optim.lr\"");
    EXPECT(2, "train --epoch 3");
    expect_text(errors, "--epochs");
    EXPECT(2, "train");
    expect_text(errors, "data.path");
    EXPECT(2, "infer");
    EXPECT(2, "infer x.jpg");
    expect_text(errors, "--weights");
    EXPECT(6, "train data.path=$T/data --device cuda:99 output=$T/gpu"); /* in any build, on any machine */
    expect_text(errors, "error: device: ");
    EXPECT(2, "train data.path=$T/data --device cpu --precision bfloat16 output=$T/half");
    expect_text(errors, "train.precision: bfloat16 needs a GPU");
    EXPECT(2, "infer $T/data/val --weights $T/run/weights/best.safetensors --device cpu --precision fp16");
    expect_text(errors, "eval.precision: float16 needs a GPU");
    EXPECT(3, "infer x.jpg --weights $T/missing.safetensors");
    expect_text(errors, "missing.safetensors");
    EXPECT(3, "infer $T/missing.jpg --weights $T/run/weights/best.safetensors");
    expect_text(errors, "missing.jpg");
    EXPECT(3, "infer $T/data/val --weights $T/data/classes.txt");
    EXPECT(3, "eval $T/run/weights/best.safetensors --data $T/run");
    EXPECT(2, "train data.path=$T/nowhere");
    EXPECT(2, "train data.path=$T/data input.size=100");
    expect_text(errors, "96 or 128");
    EXPECT(3, "infer $T/data/val --config configs/cifar10_small.json --weights $T/run/weights/best.safetensors");
    expect_text(errors, "does not fit the model");
}

static void test_help(void **state) {
    (void)state;
    static const char *const commands[] = {"train", "eval", "infer", "info", "synth", "bench", "export"};
    EXPECT(0, "help");
    for (size_t i = 0; i < COUNTOF(commands); i++) expect_text(output, commands[i]);
    for (size_t i = 0; i < COUNTOF(commands); i++) {
        char arguments[32];
        snprintf(arguments, sizeof arguments, "help %s", commands[i]);
        EXPECT(0, arguments);
        expect_text(output, commands[i]);
    }
    EXPECT(0, "version");
    expect_text(output, "mala ");
}

static void test_info(void **state) {
    (void)state;
    EXPECT(0, "info --model mavit_t --json");
    cJSON *json = json_line(output);
    assert_int_equal((int)number_of(json, "parameters"), 16449128);
    double macs = number_of(json, "macs");
    assert_true(macs > 2.63e9 && macs < 2.65e9);
    cJSON_Delete(json);
    EXPECT(0, "info $T/run/weights/best.safetensors");
    expect_text(output, "layers.3.blocks.0");
}

static void expect_bytes(const char *name, const char *part) {
    char path[256];
    uint8_t *bytes;
    size_t count;
    Err err = {0};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!file_read(&bytes, &count, path, 1 << 26, &err)) fail_msg("%s", err.text);
    if (!memmem(bytes, count, part, strlen(part))) fail_msg("'%s' is not in %s", part, name);
    free(bytes);
}

static void test_export(void **state) {
    (void)state;
    EXPECT(0, "export $T/run/weights/best.safetensors $T/m.onnx --size 64x96 --license CC0");
    expect_bytes("m.onnx", "[\"bottle\",");
    expect_bytes("m.onnx", "[64,96]");
    expect_bytes("m.onnx", "CC0");
    EXPECT(0, "export --weights $T/run/weights/best.safetensors $T/b.onnx --as backbone --dynamic --preprocess");
    expect_text(errors, "has no extra_norms: ones and zeros");
    expect_bytes("b.onnx", "extra_norms.3.norm.weight");
    EXPECT(2, "export");
    EXPECT(2, "export $T/m.onnx");
    EXPECT(2, "export $T/run/weights/best.safetensors $T/m.onnx --size 64x100 --force");
    expect_text(errors, "96 or 128");
    EXPECT(2, "export $T/run/weights/best.safetensors $T/m.onnx --size 64x --force");
    expect_text(errors, "no HxW");
    EXPECT(2, "export $T/run/weights/best.safetensors $T/m.onnx --as detector");
    EXPECT(2, "export $T/run/weights/best.safetensors $T/m.onnx --to caffe");
    EXPECT(4, "export $T/run/weights/best.safetensors $T/nowhere/m.onnx");
}

/* To PyTorch's format and back: the same answers, and the same bytes where nothing but the weights counts. */
static void test_import(void **state) {
    (void)state;
    EXPECT(0, "infer $T/data/val --weights $T/run/weights/best.safetensors --json");
    char *before = mem_strdup(output);
    EXPECT(0, "import $T/run/weights/best.safetensors $T/m.pth --key model_ema");
    EXPECT(0, "infer $T/data/val --weights $T/m.pth --json"); /* needs nothing beside it */
    expect_text(errors, "m.pth: takes \"model_ema\", averaged weights");
    assert_string_equal(output, before);
    EXPECT(0, "verify $T/m.pth");
    EXPECT(0, "import $T/m.pth $T/back.safetensors");
    EXPECT(0, "verify $T/back.safetensors");
    EXPECT(0, "infer $T/data/val --weights $T/back.safetensors --json");
    assert_string_equal(output, before);
    /* from nothing but tensors, as others write them */
    EXPECT(0, "import $T/run/weights/best.safetensors $T/bare.pth --key ''");
    EXPECT(2, "infer $T/data/val --weights $T/bare.pth");
    expect_text(errors, "does not say its architecture");
    EXPECT(0, "import $T/bare.pth $T/bare.safetensors");
    EXPECT(2, "verify $T/bare.safetensors");
    EXPECT(0, "import $T/bare.pth $T/back.safetensors --force --config $T/run/config.json --classes $T/run/classes.txt");
    expect_text(output, " parameters");
    EXPECT(0, "verify $T/back.safetensors");
    EXPECT(0, "infer $T/data/val --weights $T/back.safetensors --json");
    assert_string_equal(output, before);
    free(before);
    EXPECT(3, "import $T/m.pth $T/x.safetensors --no-ema");
    expect_text(errors, "where a tensor belongs");
    EXPECT(3, "import $T/bare.pth $T/x.safetensors --model mavit_t");
    EXPECT(3, "import $T/m.pth $T/x.safetensors --classes $T/run/results.csv");
    expect_text(errors, "results.csv: names");
    EXPECT(2, "import $T/m.pth");
    EXPECT(2, "import $T/m.pth $T/x.pth --key metadata");
    EXPECT(4, "import $T/m.pth $T/nowhere/x.safetensors");
}

/* Every picture of the pack bad_images that must be rejected is named, nothing crashes, memory stays bounded. */
static void test_bad_images(void **state) {
    (void)state;
    const char *packs = getenv("MALA_DATA");
    if (!packs) {
        print_message("skipped: MALA_DATA names no folder of data packs\n");
        skip();
    }
    char command[512], path[256];
    snprintf(command, sizeof command, "cd %s && tar xzf \"%s/bad_images.tar.gz\"", folder, packs);
    assert_int_equal(system(command), 0);
    EXPECT(3, "infer $T/bad_images/files --weights $T/run/weights/best.safetensors --json");
    snprintf(path, sizeof path, "%s/bad_images/splits/must_be_rejected.txt", folder);
    static char list[1 << 16];
    read_text(list, sizeof list, path);
    int named = 0;
    for (char *line = strtok(list, "\n"); line; line = strtok(NULL, "\n")) {
        const char *name = strrchr(line, '/'), *dot = strrchr(line, '.');
        /* names without a picture's extension are not picked up from a folder */
        if (!dot || (strcasecmp(dot, ".jpg") != 0 && strcasecmp(dot, ".jpeg") != 0 && strcasecmp(dot, ".png") != 0)) continue;
        expect_text(errors, name ? name + 1 : line);
        named++;
    }
    assert_true(named >= 50);
    /* the same files as training pictures: skipped, named, counted; the good ones train */
    snprintf(command, sizeof command,
             "cd %s && mkdir -p bad/train/good bad/val && cp -r bad_images/files bad/train/odd && "
             "cp data/train/*/*.jpg bad/train/good/ && cp -r bad/train/good bad/val/", folder);
    assert_int_equal(system(command), 0);
    EXPECT(0, "train data.path=$T/bad output=$T/badrun data.max_bad=1 " SMALL);
    expect_text(errors, "pictures could not be used");
    EXPECT(3, "train data.path=$T/bad output=$T/badrun2 data.on_bad_image=error " SMALL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run_directory), cmocka_unit_test(test_same_run_same_bytes), cmocka_unit_test(test_eval),
        cmocka_unit_test(test_infer),         cmocka_unit_test(test_infer_ways_agree),    cmocka_unit_test(test_errors),
        cmocka_unit_test(test_help),          cmocka_unit_test(test_info),                cmocka_unit_test(test_export),
        cmocka_unit_test(test_import),         cmocka_unit_test(test_bad_images),
    };
    return cmocka_run_group_tests(tests, make_data, remove_data);
}
