/* test_models.c - model files as a person uses them: fine-tuning, verifying, exporting and reading back. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/golden.h"
#include "app/model_metadata.h"
#include "io/safetensors.h"
#include "program.h"
#include "rule.h"

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

/* Copies best.safetensors with another text of golden logits (NULL: none). */
static void copy_run(const char *name, const char *golden) {
    TensorFile f;
    OK(tensor_file_open(&f, file_in("run/weights/best.safetensors"), NULL, &err));
    StoredPair pairs[MODEL_METADATA_MAX];
    size_t count = 0;
    for (size_t i = 0; i < f.metadata_count; i++)
        if (strcmp(f.metadata[i].key, GOLDEN_KEY) != 0) pairs[count++] = f.metadata[i];
    if (golden) pairs[count++] = (StoredPair){GOLDEN_KEY, golden};
    OK(safetensors_write(file_in(name), f.tensors, f.tensor_count, pairs, count, &err));
    tensor_file_close(&f);
}

/* The same with weights by rule, which, unlike those of a second's training, make much of their input; `moved`, when
 * not NULL, is another tensor than it was when the golden logits were made. */
static void copy_by_rule(const char *name, const char *moved) {
    TensorFile f;
    char source[256];
    snprintf(source, sizeof source, "%s", file_in(moved ? "rule.safetensors" : "run/weights/best.safetensors"));
    OK(tensor_file_open(&f, source, NULL, &err));
    float **values = mem_zalloc(f.tensor_count, sizeof *values);
    for (size_t i = 0; i < f.tensor_count; i++) {
        StoredTensor *t = &f.tensors[i];
        Shape shape = {.rank = t->rank};
        for (int k = 0; k < t->rank; k++) shape.dim[k] = t->shape[k];
        values[i] = mem_zalloc(t->count, sizeof **values);
        rule_parameter(t->name, &shape, values[i]);
        if (moved && strcmp(t->name, moved) == 0) values[i][0] += 0.01f;
        t->data = values[i];
    }
    OK(safetensors_write(file_in(name), f.tensors, f.tensor_count, f.metadata, f.metadata_count, &err));
    for (size_t i = 0; i < f.tensor_count; i++) free(values[i]);
    free(values);
    tensor_file_close(&f);
    if (!moved) OK(golden_add(file_in(name), &err));
}

static int make_run(void **state) {
    (void)state;
    folder_make();
    EXPECT(0, "synth $T/data --train 3 --val 2 --scenes 0 --size 32 --seed 7 --quiet");
    EXPECT(0, "train data.path=$T/data output=$T/run " SMALL "--json");
    copy_by_rule("rule.safetensors", NULL);
    return 0;
}

static int remove_run(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

/* ---- fine-tuning ---- */

static void test_finetune(void **state) {
    (void)state;
    EXPECT(0, "train data.path=$T/data output=$T/fine --weights " BEST SMALL "--epochs 1 --img-size 64");
    expect_text(errors, "parameters (100 %)\n");
    shell("mkdir -p few/train few/val && cp -r data/train/car data/train/fish few/train && "
          "cp -r data/val/car data/val/fish few/val");
    EXPECT(0, "train data.path=$T/few output=$T/few-run --weights " BEST SMALL "--epochs 1");
    expect_text(errors, "head starts anew");
    EXPECT(0, "infer $T/few/val --weights $T/few-run/weights/best.safetensors --topk 2");
    expect_text(output, "car ");
    expect_text(output, "fish ");
    /* as many classes, one of another name */
    shell("cp -r data other && mv other/train/car other/train/automobile && mv other/val/car other/val/automobile");
    EXPECT(0, "train data.path=$T/other output=$T/other-run --weights " BEST SMALL "--epochs 1");
    expect_text(errors, "head starts anew");
    /* the network itself is another one */
    EXPECT(3, "train data.path=$T/data output=$T/none --weights " BEST SMALL "--epochs 1 'model.depths=[1,2,1,1]'");
    expect_text(errors, "missing     layers.1.blocks.1.");
    EXPECT(0, "train data.path=$T/data output=$T/grown --weights " BEST SMALL "--epochs 1 'model.depths=[1,2,1,1]' "
              "--allow-missing 'layers.1.blocks.1.*'");
    expect_text(errors, "misfits allowed");
    EXPECT(0, "eval $T/grown/weights/best.safetensors --data $T/data"); /* which is a whole one again */
}

/* ---- golden logits ---- */

static void test_verify(void **state) {
    (void)state;
    static const char *const files[] = {"best", "last"};
    for (size_t i = 0; i < COUNTOF(files); i++) {
        char arguments[200];
        snprintf(arguments, sizeof arguments, "verify $T/run/weights/%s.safetensors --json", files[i]);
        EXPECT(0, arguments);
        cJSON *json = json_line(output);
        assert_true(cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "verified")));
        assert_true(number_of(json, "inputs") == GOLDEN_INPUTS && number_of(json, "classes") == 12);
        assert_true(number_of(json, "difference") <= GOLDEN_LIMIT && number_of(json, "largest_logit") > 0);
        cJSON_Delete(json);
    }
    EXPECT(0, "verify " BEST "--img-size 96"); /* the size in the file counts */
    EXPECT(0, "verify " BEST "--threads 3");
    EXPECT(0, "verify $T/rule.safetensors");
    EXPECT(3, "verify $T/rule.safetensors 'input.mean=[0,0,0]'");
    expect_text(output, "DIFFERS");
    EXPECT(2, "verify " BEST "--limit -1");
    EXPECT(2, "verify " BEST "--limit x");
    EXPECT(2, "verify");
}

static void test_verify_damage(void **state) {
    (void)state;
    copy_by_rule("copy.safetensors", "norm.bias");
    EXPECT(3, "verify $T/copy.safetensors");
    expect_text(errors, "come out differently");
    EXPECT(0, "verify $T/copy.safetensors --limit 1");
    copy_run("copy.safetensors", NULL);
    EXPECT(3, "verify $T/copy.safetensors");
    expect_text(errors, "carries no golden logits");
    static const char *const damaged[] = {
        "", "[]", "{}", "{\"generator\":2}", "{\"generator\":1,\"size\":[32,32]}",
        "{\"generator\":1,\"size\":[33,32],\"inputs\":{}}", "{\"generator\":1,\"size\":[32],\"inputs\":{}}",
        "{\"generator\":1,\"size\":[32,32],\"inputs\":{\"noise\":[1,2],\"blocks\":[1,2]}}",
        "{\"generator\":1,\"size\":[32,32],\"inputs\":{\"noise\":\"x\"}}"};
    for (size_t i = 0; i < COUNTOF(damaged); i++) {
        copy_run("copy.safetensors", damaged[i]);
        EXPECT(3, "verify $T/copy.safetensors");
        assert_null(strstr(errors, "carries no golden"));
    }
    /* a logit that is no number is never equal to anything */
    char text[2048] = "{\"generator\":1,\"size\":[32,32],\"inputs\":{\"noise\":[";
    for (int i = 0; i < 24; i++)
        strcat(text, i == 12 ? "],\"blocks\":[null" : i == 0 ? "null" : ",null");
    strcat(text, "]}}");
    copy_run("copy.safetensors", text);
    EXPECT(3, "verify $T/copy.safetensors --limit 1");
    expect_text(output, "nan");
}

/* The rule, in numbers: another generator would make every golden file in the world useless. */
static void test_golden_inputs(void **state) {
    (void)state;
    uint8_t small[32 * 64 * 3], again[sizeof small];
    golden_input(small, 0, 32, 64);
    static const uint8_t noise[] = {131, 40, 166, 236, 24, 5, 120, 211, 169, 142, 207, 64};
    assert_memory_equal(small, noise, sizeof noise);
    golden_input(small, 1, 32, 64);
    static const uint8_t blocks[] = {220, 221, 139, 39, 165, 103, 201, 110, 154, 252, 206, 82,
                                     142, 229, 124, 67, 190, 121, 119, 83, 73, 203, 138, 183};
    for (int x = 0; x < 64; x++) assert_memory_equal(small + 3 * x, blocks + x / 8 * 3, 3);
    for (int y = 0; y < 32; y++) assert_memory_equal(small + y * 192, small + y / 4 * 4 * 192, 192);
    golden_input(again, 1, 32, 64);
    assert_memory_equal(small, again, sizeof small);
}

/* The same run writes the same file. */
static void test_same_bytes(void **state) {
    (void)state;
    EXPECT(0, "train data.path=$T/data output=$T/run2 --threads 1 " SMALL "-q");
    EXPECT(0, "train data.path=$T/data output=$T/run3 --threads 1 " SMALL "-q");
    shell("sed 's/run3/run2/g' run3/weights/last.safetensors | cmp - run2/weights/last.safetensors");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_inputs), cmocka_unit_test(test_finetune),   cmocka_unit_test(test_verify),
        cmocka_unit_test(test_verify_damage), cmocka_unit_test(test_same_bytes),
    };
    return cmocka_run_group_tests(tests, make_run, remove_run);
}
