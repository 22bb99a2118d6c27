/* test_models.c - model files as a person uses them: fine-tuning, verifying, exporting and reading back. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/golden.h"
#include "lib/model_metadata.h"
#include "base/half.h"
#include "base/strings.h"
#include "io/safetensors.h"
#include "io/seal.h"
#include "program.h"
#include "rule.h"
#include "stored.h"

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

/* The file's metadata without golden logits and seal, so that what is changed is left to be noticed otherwise. */
static size_t bare_metadata(StoredPair out[MODEL_METADATA_MAX], const TensorFile *f) {
    size_t count = 0;
    for (size_t i = 0; i < f->metadata_count; i++)
        if (!text_matches_any(GOLDEN_KEY "," SEAL_TENSORS "," SEAL_METADATA, f->metadata[i].key)) out[count++] = f->metadata[i];
    return count;
}

/* Copies a file with another text of golden logits (NULL: none). */
static void copy_golden(const char *name, const char *of, const char *golden) {
    TensorFile f;
    OK(tensor_file_open(&f, file_in(of), NULL, &err));
    StoredPair pairs[MODEL_METADATA_MAX];
    size_t count = bare_metadata(pairs, &f);
    if (golden) pairs[count++] = (StoredPair){GOLDEN_KEY, golden};
    OK(safetensors_write(file_in(name), f.tensors, f.tensor_count, pairs, count, &err));
    tensor_file_close(&f);
}

static void copy_run(const char *name, const char *golden) {
    copy_golden(name, "run/weights/best.safetensors", golden);
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
    StoredPair pairs[MODEL_METADATA_MAX];
    size_t count = bare_metadata(pairs, &f);
    const char *golden = tensor_file_metadata(&f, GOLDEN_KEY);
    if (moved) pairs[count++] = (StoredPair){GOLDEN_KEY, golden};
    OK(safetensors_write(file_in(name), f.tensors, f.tensor_count, pairs, count, &err));
    for (size_t i = 0; i < f.tensor_count; i++) free(values[i]);
    free(values);
    tensor_file_close(&f);
    if (!moved) OK(golden_add(file_in(name), NULL, &err));
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
    EXPECT(2, "verify " BEST "--img-size 96"); /* the size in the file counts */
    EXPECT(0, "verify " BEST "--threads 3");
    EXPECT(0, "verify $T/rule.safetensors");
    EXPECT(3, "verify $T/rule.safetensors 'input.mean=[0,0,0]'");
    expect_text(output, "DIFFERS");
    EXPECT(2, "verify " BEST "--limit -1");
    EXPECT(2, "verify " BEST "--limit x");
    EXPECT(2, "verify");
}

/* The logits in a file are those of pictures of the size that stands beside them. */
static void test_golden_logits_have_their_own_size(void **state) {
    (void)state;
    ModelFile m;
    GoldenResult result;
    OK(model_file_open(&m, file_in("rule.safetensors"), NULL, (char *[]){"input.size=64,96"}, 1, NULL, &err));
    OK(golden_check(&result, &m, GOLDEN_LIMIT, &err));
    assert_true(result.agree);
    model_file_close(&m);
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

/* Two logits of many stand otherwise in the file, the first by far and below 0, with ones that agree behind it: what
 * is said is the largest difference, in parts of the largest number, whatever its sign. */
static void test_the_largest_difference_counts(void **state) {
    (void)state;
    TensorFile f;
    OK(tensor_file_open(&f, file_in("rule.safetensors"), NULL, &err));
    cJSON *json = cJSON_Parse(tensor_file_metadata(&f, GOLDEN_KEY)),
          *noise = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(json, "inputs"), "noise");
    tensor_file_close(&f);
    const double was = cJSON_GetArrayItem(noise, 2)->valuedouble;
    cJSON_SetNumberValue(cJSON_GetArrayItem(noise, 2), -50);
    cJSON_SetNumberValue(cJSON_GetArrayItem(noise, 4), cJSON_GetArrayItem(noise, 4)->valuedouble + 0.25);
    assert_true(fabs(was) < 20);
    char *text = cJSON_PrintUnformatted(json);
    copy_golden("copy.safetensors", "rule.safetensors", text);
    cJSON_Delete(json);
    free(text);
    ModelFile m;
    GoldenResult result;
    OK(model_file_open(&m, file_in("copy.safetensors"), NULL, NULL, 0, NULL, &err));
    OK(golden_check(&result, &m, 0.1, &err));
    assert_true(result.magnitude == 50 && !result.agree);
    assert_true(fabs(result.difference - (50 + was)) < 1e-3);
    OK(golden_check(&result, &m, 2, &err));
    assert_true(result.agree);
    model_file_close(&m);
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

/* ---- exports ---- */

/* Every tensor of `want` that fits the patterns is in `got`, bit for bit; how many. */
static size_t same_tensors(const char *want, const char *got, const char *patterns) {
    TensorFile a, b;
    size_t count = 0;
    OK(tensor_file_open(&a, file_in(want), NULL, &err));
    OK(tensor_file_open(&b, file_in(got), NULL, &err));
    for (size_t i = 0; i < a.tensor_count; i++) {
        const StoredTensor *x = &a.tensors[i], *y = tensor_file_find(&b, x->name);
        if (!text_matches_any(patterns, x->name)) continue;
        if (!y || y->dtype != x->dtype || y->bytes != x->bytes || y->rank != x->rank ||
            memcmp(x->shape, y->shape, (size_t)x->rank * sizeof *x->shape) != 0 ||
            !stored_same_data(x, y))
            fail_msg("%s: %s differs", got, x->name);
        count++;
    }
    tensor_file_close(&a);
    tensor_file_close(&b);
    return count;
}

static size_t tensor_count(const char *name) {
    TensorFile f;
    OK(tensor_file_open(&f, file_in(name), NULL, &err));
    size_t count = f.tensor_count;
    tensor_file_close(&f);
    return count;
}

#define RULE "$T/rule.safetensors "

static void test_export_exact(void **state) {
    (void)state;
    size_t all = tensor_count("rule.safetensors");
    EXPECT(0, "export " RULE "$T/out.safetensors --license MIT --verify $T/data/val");
    expect_text(output, "difference of a logit 0, ");
    expect_text(output, "top-1 the same in 100.00 %");
    assert_int_equal(same_tensors("rule.safetensors", "out.safetensors", "*"), all);
    assert_int_equal(tensor_count("out.safetensors"), all);
    EXPECT(0, "verify $T/out.safetensors");
    TensorFile f;
    OK(tensor_file_open(&f, file_in("out.safetensors"), NULL, &err));
    assert_string_equal(tensor_file_metadata(&f, "license"), "MIT");
    assert_string_equal(tensor_file_metadata(&f, "mala.arch"), "custom");
    assert_string_equal(tensor_file_metadata(&f, "mala.task"), "classify");
    static char listed[128];
    shell("cd data/train && LC_ALL=C ls */* | sha256sum | cut -c1-64 >../../listed");
    read_text(listed, sizeof listed, file_in("listed"));
    assert_memory_equal(tensor_file_metadata(&f, "mala.dataset_sha256"), listed, 64);
    for (size_t i = 0; i < f.metadata_count; i++)
        if (strstr(f.metadata[i].value, folder)) fail_msg("%s tells where the run was", f.metadata[i].key);
    tensor_file_close(&f);
    /* through PyTorch's format and back */
    EXPECT(0, "export " RULE "$T/out.pth --verify $T/data/val");
    EXPECT(0, "verify $T/out.pth");
    EXPECT(0, "export $T/out.pth $T/back.safetensors");
    assert_int_equal(same_tensors("rule.safetensors", "back.safetensors", "*"), all);
    EXPECT(0, "verify $T/back.safetensors");
}

static void test_export_halves(void **state) {
    (void)state;
    static const struct {
        const char *name;
        StoredType type;
    } halves[] = {{"bfloat16", STORED_BF16}, {"fp16", STORED_F16}};
    for (size_t i = 0; i < COUNTOF(halves); i++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments,
                 "export " RULE "$T/half.safetensors --force --dtype %s --verify $T/data/val", halves[i].name);
        EXPECT(0, arguments);
        TensorFile a, b;
        OK(tensor_file_open(&a, file_in("rule.safetensors"), NULL, &err));
        OK(tensor_file_open(&b, file_in("half.safetensors"), NULL, &err));
        for (size_t k = 0; k < a.tensor_count; k++) {
            const StoredTensor *x = &a.tensors[k], *y = tensor_file_find(&b, x->name);
            bool statistic = text_matches_any("*.running_mean,*.running_var", x->name);
            assert_non_null(y);
            assert_int_equal(y->dtype, statistic ? STORED_F32 : halves[i].type);
            float *full = mem_zalloc(x->count, sizeof *full), *rounded = mem_zalloc(x->count, sizeof *rounded);
            OK(tensor_file_read_f32(full, &a, x, &err));
            OK(tensor_file_read_f32(rounded, &b, y, &err));
            for (size_t n = 0; n < x->count; n++) {
                float to = i ? f16_to_f32(f16_from_f32(full[n])) : bf16_to_f32(bf16_from_f32(full[n]));
                assert_true(rounded[n] == (statistic ? full[n] : to));
            }
            free(full), free(rounded);
        }
        tensor_file_close(&a), tensor_file_close(&b);
        EXPECT(0, "verify $T/half.safetensors"); /* the golden logits are those of the rounded weights */
        strcat(arguments, " --limit 1e-9");
        EXPECT(3, arguments);
        expect_text(errors, "differs from the original");
    }
    EXPECT(0, "export " RULE "$T/half.pth --to pth --dtype bf16 --verify $T/data/val");
}

static void test_export_backbone(void **state) {
    (void)state;
    EXPECT(0, "export " RULE "$T/backbone.pth --as backbone");
    EXPECT(0, "export " RULE "$T/backbone.safetensors --as backbone");
    size_t body = same_tensors("rule.safetensors", "backbone.pth", "patch_embed.*,layers.*");
    assert_int_equal(body + 2 + 4 + 2, tensor_count("rule.safetensors")); /* without proj, norm and head */
    assert_int_equal(tensor_count("backbone.pth"), body + 8);
    assert_int_equal(same_tensors("backbone.pth", "backbone.safetensors", "*"), body + 8);
    TensorFile f;
    OK(tensor_file_open(&f, file_in("backbone.pth"), NULL, &err));
    for (int i = 0; i < 4; i++) {
        char name[64];
        float ones[16];
        snprintf(name, sizeof name, "extra_norms.%d.norm.weight", i);
        const StoredTensor *t = tensor_file_find(&f, name);
        assert_true(t && t->rank == 1 && t->count <= 16);
        OK(tensor_file_read_f32(ones, &f, t, &err));
        for (size_t k = 0; k < t->count; k++) assert_true(ones[k] == 1);
    }
    tensor_file_close(&f);
    EXPECT(2, "export " RULE "$T/b.pth --as backbone --verify $T/data/val");
    /* it needs nothing beside it to be exported again; what needs a classifier says that there is none */
    EXPECT(0, "export $T/backbone.pth $T/again.safetensors --as backbone");
    assert_int_equal(same_tensors("backbone.pth", "again.safetensors", "*"), body + 8);
    EXPECT(0, "export $T/backbone.safetensors $T/backbone.onnx --as backbone");
    EXPECT(0, "import $T/backbone.pth $T/again.safetensors --force");
    EXPECT(0, "export $T/backbone.pth $T/backbone-hub/ --as backbone");
    EXPECT(0, "export $T/backbone-hub $T/again.safetensors --as backbone --force");
    static const char *const need_one[] = {
        "infer $T/data/val --weights $T/backbone.pth", "eval $T/backbone.pth --data $T/data",
        "info $T/backbone.pth", "export $T/backbone.safetensors $T/out.pth --force", "export $T/backbone.safetensors $T/out.onnx"};
    for (size_t i = 0; i < COUNTOF(need_one); i++) {
        EXPECT(3, need_one[i]);
        expect_text(errors, "without a classifier (head.weight)");
    }
    EXPECT(0, "verify $T/backbone-hub");
    expect_text(output, "carries no golden logits");
    EXPECT(0, "train data.path=$T/data output=$T/on-backbone --weights $T/backbone.pth " SMALL "--epochs 1");
    expect_text(errors, "a backbone: its classifier starts anew");
    EXPECT(0, "eval $T/on-backbone/weights/best.safetensors --data $T/data");
}

static void test_hub(void **state) {
    (void)state;
    EXPECT(0, "export " RULE "$T/hub --to hf --verify $T/data/val --license MIT");
    EXPECT(0, "verify $T/hub");
    shell("grep -q '\"id2label\"' hub/config.json && grep -q '\"car\": 1' hub/config.json");
    shell("grep -q '^license: \"MIT\"$' hub/README.md && grep -q 'mala infer photo.jpg' hub/README.md");
    shell("echo mine >hub/README.md"); /* and is not written over */
    EXPECT(0, "export " RULE "$T/hub --to hf --license MIT --force");
    shell("grep -qx mine hub/README.md");
    EXPECT(0, "infer $T/data/val --weights " RULE "--json --topk 12");
    static char meant[1 << 20];
    memcpy(meant, output, sizeof meant);
    EXPECT(0, "infer $T/data/val --weights $T/hub --json --topk 12");
    assert_string_equal(output, meant);
    /* a folder of somebody else: nothing in the weights but tensors, everything in config.json */
    TensorFile f;
    OK(tensor_file_open(&f, file_in("hub/model.safetensors"), NULL, &err));
    OK(safetensors_write(file_in("hub/model.safetensors"), f.tensors, f.tensor_count, NULL, 0, &err));
    tensor_file_close(&f);
    EXPECT(0, "infer $T/data/val --weights $T/hub --json --topk 12");
    assert_string_equal(output, meant);
    EXPECT(0, "train data.path=$T/data output=$T/hub-run --weights $T/hub " SMALL "--epochs 1");
    static const char *const damages[] = {
        "sed -i 's/\"depths\"/\"depth\"/' hub/config.json", "sed -i 's/\"custom\"/\"resnet50\"/' hub/config.json",
        "sed -i 's/\\[3, 32/[1, 32/' hub/config.json",      "sed -i 's/\"architecture\"/\"model\"/' hub/config.json",
        "sed -i 's/\"car\", //' hub/config.json",           "truncate -s 100 hub/config.json",
        "rm hub/config.json"};
    shell("cp hub/config.json config.json");
    for (size_t i = 0; i < COUNTOF(damages); i++) {
        shell("cp config.json hub/config.json");
        shell(damages[i]);
        int code = mala("infer $T/data/val --weights $T/hub");
        if (code != 3 && code != 2) fail_msg("%s: exit %d", damages[i], code);
        expect_text(errors, "hub");
    }
}

/* A released checkpoint says nothing about itself: its shapes do. */
static void test_recognised(void **state) {
    (void)state;
    Config c;
    Backend backend;
    State s;
    OK(config_load(&c, NULL, NULL, 0, &err));
    OK(backend_open_cpu(&backend, 2, &err));
    c.model.name = MODEL_T;
    ClassifySpec spec = config_classify(&c, 1000);
    ClassifyGraph g = classify_eval_graph(&spec, 1, 32, 32, 0);
    OK(state_new(&s, g.graph, &backend, 1u << ROLE_WEIGHT | 1u << ROLE_BUFFER, &err));
    OK(state_init(&s, 1, &err));
    OK(weights_save(file_in("released.safetensors"), &s, ROLE_WEIGHT, NULL, 0, &err));
    state_free(&s);
    classify_graph_free(&g);
    backend.close(&backend);
    config_free(&c);
    EXPECT(0, "import $T/released.safetensors $T/released.pth");
    expect_text(errors, "has the shapes of mavit_t");
    EXPECT(0, "verify $T/released.pth");
    EXPECT(0, "infer $T/data/val/car --weights $T/released.safetensors --topk 1000");
    expect_text(output, "golden retriever ");
    EXPECT(3, "infer $T/data/val/car --weights $T/released.safetensors --model mavit_s");
    shell("rm released.safetensors released.pth");
}

static void test_export_refusals(void **state) {
    (void)state;
    EXPECT(2, "export " RULE "$T/out.bin");
    expect_text(errors, "tells no format");
    EXPECT(2, "export " RULE "$T/out.onnx --dtype fp16");
    EXPECT(2, "export " RULE "$T/out.onnx --verify $T/data/val");
    EXPECT(2, "export " RULE "$T/out.pth --dynamic");
    EXPECT(2, "export " RULE "$T/out.pth --dtype int8");
    EXPECT(3, "export " RULE "$T/out.pth --verify $T/run --force");
    EXPECT(4, "export " RULE "$T/nowhere/out.pth");
}

/* The same run writes the same file, and another seed another one. */
static void test_same_bytes(void **state) {
    (void)state;
    EXPECT(0, "train data.path=$T/data output=$T/same --threads 1 " SMALL "-q");
    shell("mv same first");
    EXPECT(0, "train data.path=$T/data output=$T/same --threads 1 " SMALL "-q");
    shell("cmp same/weights/last.safetensors first/weights/last.safetensors && mv same again");
    EXPECT(0, "train data.path=$T/data output=$T/same --threads 1 " SMALL "train.seed=1 -q");
    shell("! cmp -s same/weights/last.safetensors first/weights/last.safetensors");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_inputs), cmocka_unit_test(test_finetune),   cmocka_unit_test(test_verify),
        cmocka_unit_test(test_verify_damage), cmocka_unit_test(test_same_bytes), cmocka_unit_test(test_export_exact),
        cmocka_unit_test(test_export_halves), cmocka_unit_test(test_export_backbone), cmocka_unit_test(test_hub),
        cmocka_unit_test(test_recognised),    cmocka_unit_test(test_export_refusals),
        cmocka_unit_test(test_the_largest_difference_counts),
        cmocka_unit_test(test_golden_logits_have_their_own_size),
    };
    return cmocka_run_group_tests(tests, make_run, remove_run);
}
