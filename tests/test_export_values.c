/* test_export_values.c - what exports hold, by value: every property of an ONNX file, tensors beside the parameters,
 * what half precision cannot hold, the labels of a hub's folder. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/half.h"
#include "colours.h"
#include "io/safetensors.h"
#include "io/seal.h"
#include "program.h"
#include "stored.h"

static Err err;

#define OK(call) \
    do { \
        if (!(call)) fail_msg("%s: %s", #call, err.text); \
    } while (0)

static char *file_in(const char *name) {
    static char path[2][256];
    static int turn;
    turn ^= 1;
    snprintf(path[turn], sizeof path[0], "%s/%s", folder, name);
    return path[turn];
}

static int make_run(void **state) {
    (void)state;
    folder_make();
    colours_make(file_in("data"), 2, 1);
    EXPECT(0, "train data.path=$T/data output=$T/run " LEARNS "sched.epochs=1 sched.warmup_epochs=0 input.crop_pct=0.9 "
              "'input.mean=[0.5,0.25,0.125]' 'input.std=[0.3,0.2,0.1]' -q");
    return 0;
}

static int remove_run(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

/* ---- ONNX ---- */

/* metadata_props: a StringStringEntryProto is field 14 of the model, its key field 1, its value field 2. */
static void expect_property(const char *name, const char *key, const char *value) {
    uint8_t *bytes, entry[600];
    size_t count, k = strlen(key), v = strlen(value), used = 0;
    assert_true(k < 100 && v < 300);
    entry[used++] = 0x0a, entry[used++] = (uint8_t)k;
    memcpy(entry + used, key, k), used += k;
    entry[used++] = 0x12;
    if (v >= 128) entry[used++] = (uint8_t)(v & 127) | 128, entry[used++] = (uint8_t)(v >> 7);
    if (v < 128) entry[used++] = (uint8_t)v;
    memcpy(entry + used, value, v), used += v;
    OK(file_read(&bytes, &count, file_in(name), 1 << 26, &err));
    if (!memmem(bytes, count, entry, used)) fail_msg("%s: %s is not %s", name, key, value);
    free(bytes);
}

static bool holds(const char *name, const void *part, size_t part_size) {
    uint8_t *bytes;
    size_t count;
    OK(file_read(&bytes, &count, file_in(name), 1 << 26, &err));
    bool found = memmem(bytes, count, part, part_size);
    free(bytes);
    return found;
}

#define NAMES \
    "[\"blue_bar\",\"blue_cross\",\"blue_ring\",\"blue_square\",\"red_bar\",\"red_cross\",\"red_ring\",\"red_" \
    "square\"]"

static void test_properties_of_onnx(void **state) {
    (void)state;
    TensorFile f;
    OK(tensor_file_open(&f, file_in("run/weights/best.safetensors"), NULL, &err));
    EXPECT(0, "export $T/run $T/a.onnx");
    const char *const common[][2] = {{"imgsz", "[32,32]"},
                                     {"mean", "[0.5,0.25,0.125]"},
                                     {"std", "[0.3,0.2,0.1]"},
                                     {"crop_pct", "0.9"},
                                     {"interpolation", "bicubic"},
                                     {"stride", "32"},
                                     {"license", "not stated: that of the weights"},
                                     {"weights_sha256", tensor_file_metadata(&f, SEAL_TENSORS)},
                                     {"task", "classify"},
                                     {"names", NAMES}};
    for (size_t i = 0; i < COUNTOF(common); i++) expect_property("a.onnx", common[i][0], common[i][1]);
    EXPECT(0, "export $T/run $T/b.onnx --size 64x96 --license CC0 --as backbone input.interpolation=bilinear "
              "input.crop_pct=auto");
    const char *const other[][2] = {{"imgsz", "[64,96]"},
                                    {"crop_pct", "0.875"},
                                    {"interpolation", "bilinear"},
                                    {"license", "CC0"},
                                    {"task", "features"}};
    for (size_t i = 0; i < COUNTOF(other); i++) expect_property("b.onnx", other[i][0], other[i][1]);
    shell("! grep -q blue_bar b.onnx"); /* a backbone has no classes */
    EXPECT(0, "export $T/run $T/licensed.safetensors --license MIT");
    EXPECT(0, "export $T/licensed.safetensors $T/c.onnx"); /* the weights say it */
    expect_property("c.onnx", "license", "MIT");
    EXPECT(0, "export $T/run $T/d.onnx --size 256 input.crop_pct=auto");
    expect_property("d.onnx", "crop_pct", "1");
    tensor_file_close(&f);
}

/* A side of the input by name: field 2 of a dimension, a string of 6 or 5 bytes. As a number it is in field 1. */
static void test_sides_of_onnx_are_open_when_asked(void **state) {
    (void)state;
    static const uint8_t open[2][9] = {"\x12\006height", "\x12\005width"};
    for (int dynamic = 0; dynamic < 2; dynamic++) {
        EXPECT(0, dynamic ? "export $T/run $T/sides1.onnx --dynamic" : "export $T/run $T/sides0.onnx");
        for (int i = 0; i < 2; i++)
            assert_int_equal(holds(dynamic ? "sides1.onnx" : "sides0.onnx", open[i], strlen((const char *)open[i])),
                             dynamic);
    }
}

/* The same in the metadata of weights. */
static void test_preprocessing_in_metadata(void **state) {
    (void)state;
    EXPECT(0, "export $T/run $T/p.safetensors input.interpolation=bilinear --size 64x96");
    static const char *const files[] = {"run/weights/best.safetensors", "p.safetensors"};
    for (int i = 0; i < 2; i++) {
        TensorFile f;
        OK(tensor_file_open(&f, file_in(files[i]), NULL, &err));
        assert_string_equal(tensor_file_metadata(&f, "mala.preprocess"),
                            i ? "{\"size\":[64,96],\"crop_pct\":0.9,\"interpolation\":\"bilinear\",\"antialias\":true,"
                                "\"channels\":\"RGB\",\"mean\":[0.5,0.25,0.125],\"std\":[0.3,0.2,0.1]}"
                              : "{\"size\":[32,32],\"crop_pct\":0.9,\"interpolation\":\"bicubic\",\"antialias\":true,"
                                "\"channels\":\"RGB\",\"mean\":[0.5,0.25,0.125],\"std\":[0.3,0.2,0.1]}");
        assert_string_equal(tensor_file_metadata(&f, "mala.classes"), NAMES);
        assert_string_equal(tensor_file_metadata(&f, "mala.task"), "classify");
        assert_string_equal(tensor_file_metadata(&f, "format"), "pt");
        tensor_file_close(&f);
    }
}

/* What a comparison allows, in parts of the largest logit, by type. */
static void test_limits_of_comparison(void **state) {
    (void)state;
    static const struct {
        const char *type;
        double limit;
    } types[] = {{"float32", 1e-5}, {"bfloat16", 0.1}, {"float16", 0.01}};
    for (size_t i = 0; i < COUNTOF(types); i++) {
        double allowed[2];
        for (int given = 0; given < 2; given++) {
            char line[300];
            snprintf(line, sizeof line, "export $T/run $T/v.safetensors --force --dtype %s --verify $T/data/val%s",
                     types[i].type, given ? " --limit 0.5" : "");
            EXPECT(0, line);
            expect_text(output, "8 pictures: ");
            assert_int_equal(sscanf(strstr(output, "allowed "), "allowed %lf", &allowed[given]), 1);
        }
        const double share = allowed[0] / allowed[1] * 0.5;
        if (!(fabs(share - types[i].limit) < 0.02 * types[i].limit)) fail_msg("%s: %g", types[i].type, share);
    }
}

/* Every picture's logits are the biases 1, 1.0001, 0, ...: a float32 keeps the second one ahead, a bfloat16, whose next
 * number after 1 is 1.0078, makes the first two equal, and then the first is the answer. */
static void test_answers_that_change_are_counted(void **state) {
    (void)state;
    static float zeros[COLOUR_CLASSES * 64];
    static const float bias[COLOUR_CLASSES] = {1, 1.0001f};
    TensorFile f;
    OK(tensor_file_open(&f, file_in("run/weights/best.safetensors"), NULL, &err));
    for (size_t i = 0; i < f.tensor_count; i++) {
        StoredTensor *t = &f.tensors[i];
        assert_true(strcmp(t->name, "head.weight") != 0 || t->count <= COUNTOF(zeros));
        if (strcmp(t->name, "head.weight") == 0) t->data = zeros;
        if (strcmp(t->name, "head.bias") == 0) t->data = bias;
    }
    OK(safetensors_write(file_in("close.safetensors"), f.tensors, f.tensor_count, f.metadata, f.metadata_count - 2,
                         &err)); /* without its seal */
    tensor_file_close(&f);
    EXPECT(0, "export $T/close.safetensors $T/close.out.safetensors --verify $T/data/val");
    expect_text(output, "top-1 the same in 100.00 %");
    EXPECT(0, "export $T/close.safetensors $T/close.out.safetensors --force --dtype bfloat16 --verify $T/data/val");
    expect_text(output, "top-1 the same in 0.00 %");
}

/* ---- tensors beside the parameters ---- */

static const int64_t seven[1] = {7};
static const float angles[2] = {1, 0.995f}; /* as near to the right ones as is taken */

/* The run's file with counters and tables, as released checkpoints carry them, and one value set. */
static void write_with_extras(const char *name, const char *tensor, float value) {
    static StoredTensor t[1024];
    TensorFile f;
    OK(tensor_file_open(&f, file_in("run/weights/best.safetensors"), NULL, &err));
    size_t n = f.tensor_count;
    assert_true(n + 3 <= COUNTOF(t));
    memcpy(t, f.tensors, n * sizeof *t);
    float *values = NULL;
    for (size_t i = 0; tensor && i < n; i++) {
        if (strcmp(t[i].name, tensor) != 0) continue;
        values = mem_zalloc(t[i].count, sizeof *values);
        OK(tensor_file_read_f32(values, &f, &t[i], &err));
        values[1] = value;
        t[i].data = values;
    }
    const StoredTensor extras[] = {
        {.name = "norm.num_batches_tracked", .dtype = STORED_I64, .count = 1, .data = seven},
        {.name = "patch_embed.proj.1.num_batches_tracked", .dtype = STORED_I64, .count = 1, .data = seven},
        {.name = "layers.0.RoPE.angle", .dtype = STORED_F32, .rank = 1, .shape = {2}, .count = 2, .data = angles}};
    memcpy(t + n, extras, sizeof extras);
    OK(safetensors_write(file_in(name), t, n + 3, f.metadata, f.metadata_count - 2, &err)); /* without its seal */
    free(values);
    tensor_file_close(&f);
}

static size_t tensors_of(const char *name, bool counter_of_head) {
    TensorFile f;
    OK(tensor_file_open(&f, file_in(name), NULL, &err));
    const StoredTensor *t = tensor_file_find(&f, "patch_embed.proj.1.num_batches_tracked");
    const StoredTensor *table = tensor_file_find(&f, "layers.0.RoPE.angle");
    if (!t || !table) fail_msg("%s: extra tensors are left out", name);
    const StoredTensor want_t = {.name = "x", .dtype = STORED_I64, .count = 1, .data = seven};
    const StoredTensor want_table = {
        .name = "x", .dtype = STORED_F32, .rank = 1, .shape = {2}, .count = 2, .data = angles};
    assert_int_equal(t->dtype, STORED_I64);
    assert_true(t->rank == 0 && stored_same_data(t, &want_t));
    assert_int_equal(table->dtype, STORED_F32);
    assert_true(table->rank == 1 && stored_same_data(table, &want_table));
    assert_int_equal(tensor_file_find(&f, "norm.num_batches_tracked") != NULL, counter_of_head);
    size_t count = f.tensor_count;
    tensor_file_close(&f);
    return count;
}

/* They go along as they are, in half precision, too; those of the classifier not into a backbone. */
static void test_tensors_beside_the_parameters(void **state) {
    (void)state;
    write_with_extras("extra.safetensors", NULL, 0);
    const size_t all = tensors_of("extra.safetensors", true);
    EXPECT(0, "export $T/extra.safetensors $T/e.safetensors");
    assert_int_equal(tensors_of("e.safetensors", true), all);
    EXPECT(0, "export $T/extra.safetensors $T/half.safetensors --dtype fp16");
    assert_int_equal(tensors_of("half.safetensors", true), all);
    EXPECT(0, "export $T/extra.safetensors $T/e.pth");
    assert_int_equal(tensors_of("e.pth", true), all);
    EXPECT(0, "import $T/extra.safetensors $T/i.safetensors");
    assert_int_equal(tensors_of("i.safetensors", true), all);
    EXPECT(0, "export $T/extra.safetensors $T/b.safetensors --as backbone");
    (void)tensors_of("b.safetensors", false);
    EXPECT(0, "export $T/run $T/none.safetensors");
    shell("! grep -q num_batches none.safetensors");
}

/* ---- half precision ---- */

/* The largest numbers that still fit are rounded to the largest half; the next float does not fit. */
static void test_the_edge_of_half_precision(void **state) {
    (void)state;
    static const struct {
        const char *type;
        float fits, beyond;
    } edges[] = {{"float16", 65519.99f, 65520}, {"bfloat16", 0x1.fefffep127f, 0x1.ffp127f}};
    for (int i = 0; i < 4; i++) {
        char arguments[200];
        const bool fits = i % 2 == 0;
        const float value = (i > 1 ? -1 : 1) * (fits ? edges[i / 2].fits : edges[i / 2].beyond);
        write_with_extras("edge.safetensors", "head.bias", value);
        snprintf(arguments, sizeof arguments, "export $T/edge.safetensors $T/edge.out.safetensors --force --dtype %s",
                 edges[i / 2].type);
        int code = mala(arguments);
        if (fits && i < 2) assert_int_equal(code, 0);
        if (!fits) {
            assert_int_equal(code, 3);
            expect_text(errors, "tensor head.bias: ");
            expect_text(errors, " is beyond ");
            expect_text(errors, edges[i / 2].type);
        }
    }
}

/* One weight that float16 makes 0 is said, and none where all stay. */
static void test_weights_that_vanish_are_counted(void **state) {
    (void)state;
    write_with_extras("tiny.safetensors", "head.weight", 1e-9f);
    EXPECT(0, "export $T/tiny.safetensors $T/tiny16.safetensors --dtype float16");
    const char *at = strstr(errors, " weights are too small for float16");
    assert_non_null(at);
    while (at > errors && at[-1] != ' ') at--;
    const int with = atoi(at);
    EXPECT(0, "export $T/run $T/usual16.safetensors --dtype float16");
    at = strstr(errors, " weights are too small for float16");
    while (at && at > errors && at[-1] != ' ') at--;
    assert_int_equal(with, (at ? atoi(at) : 0) + 1);
    EXPECT(0, "export $T/tiny.safetensors $T/tinybf.safetensors --dtype bfloat16");
    assert_null(strstr(errors, "too small"));
}

/* ---- hubs ---- */

static cJSON *hub_config(const char *name) {
    static char text[1 << 16];
    char path[64];
    snprintf(path, sizeof path, "%s/config.json", name);
    read_text(text, sizeof text, file_in(path));
    cJSON *json = cJSON_Parse(text);
    assert_non_null(json);
    return json;
}

static void expect_numbers(const cJSON *json, const char *key, const double *want, int count) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, key);
    assert_int_equal(cJSON_GetArraySize(list), count);
    for (int i = 0; i < count; i++)
        if (cJSON_GetArrayItem(list, i)->valuedouble != want[i]) fail_msg("%s[%d] is another", key, i);
}

static void test_words_of_a_hubs_folder(void **state) {
    (void)state;
    EXPECT(0, "export $T/run $T/hub/ --license MIT");
    cJSON *json = hub_config("hub"), *args = cJSON_GetObjectItemCaseSensitive(json, "model_args"),
          *cfg = cJSON_GetObjectItemCaseSensitive(json, "pretrained_cfg"),
          *ids = cJSON_GetObjectItemCaseSensitive(json, "id2label"),
          *back = cJSON_GetObjectItemCaseSensitive(json, "label2id");
    assert_int_equal((int)number_of(json, "num_classes"), 8);
    assert_int_equal((int)number_of(json, "num_features"), 32);
    expect_numbers(args, "dims", (double[]){16, 16, 16, 16}, 4);
    expect_numbers(args, "depths", (double[]){1, 1, 1, 1}, 4);
    expect_numbers(args, "heads", (double[]){1, 1, 2, 2}, 4);
    assert_int_equal((int)number_of(args, "projection"), 32);
    assert_true(number_of(args, "mlp_ratio") == 3.5);
    expect_numbers(cfg, "input_size", (double[]){3, 32, 32}, 3);
    expect_numbers(cfg, "mean", (double[]){0.5, 0.25, 0.125}, 3);
    expect_numbers(cfg, "std", (double[]){0.3, 0.2, 0.1}, 3);
    assert_true(number_of(cfg, "crop_pct") == 0.9);
    assert_int_equal((int)number_of(cfg, "num_classes"), 8);
    assert_string_equal(cJSON_GetObjectItemCaseSensitive(cfg, "interpolation")->valuestring, "bicubic");
    assert_string_equal(cJSON_GetObjectItemCaseSensitive(cfg, "classifier")->valuestring, "head");
    for (int k = 0; k < COLOUR_CLASSES; k++) {
        char key[4];
        snprintf(key, sizeof key, "%d", k);
        assert_string_equal(cJSON_GetObjectItemCaseSensitive(ids, key)->valuestring, colour_class(k));
        assert_int_equal((int)number_of(back, colour_class(k)), k);
    }
    assert_null(cJSON_GetObjectItemCaseSensitive(json, "label_descriptions"));
    cJSON_Delete(json);
    EXPECT(0, "export $T/run $T/wide/ --size 64x96");
    json = hub_config("wide");
    expect_numbers(cJSON_GetObjectItemCaseSensitive(json, "pretrained_cfg"), "input_size", (double[]){3, 64, 96}, 3);
    cJSON_Delete(json);
    EXPECT(0, "export $T/run $T/bare/ --as backbone");
    json = hub_config("bare");
    assert_int_equal((int)number_of(json, "num_classes"), 0);
    assert_int_equal((int)number_of(json, "num_features"), 16);
    assert_null(cJSON_GetObjectItemCaseSensitive(json, "id2label"));
    cJSON_Delete(json);
}

/* An id of ImageNet and its own word are two classes of one label: there is no way back from it. */
static void test_labels_that_stand_twice(void **state) {
    (void)state;
    shell("printf 'n01443537\\nblue_cross\\nblue_ring\\nblue_square\\nred_bar\\nred_cross\\nred_ring\\n%s\\n' "
          "n02012849 >differ && "
          "sed 's/blue_ring/goldfish/' differ >twice");
    for (int i = 0; i < 2; i++) {
        EXPECT(0, i ? "import $T/run $T/named.safetensors --force --classes $T/twice"
                    : "import $T/run $T/named.safetensors --force --classes $T/differ");
        EXPECT(0, i ? "export $T/named.safetensors $T/twice.hub --to hf"
                    : "export $T/named.safetensors $T/differ.hub --to hf");
        cJSON *json = hub_config(i ? "twice.hub" : "differ.hub"),
              *ids = cJSON_GetObjectItemCaseSensitive(json, "id2label"),
              *back = cJSON_GetObjectItemCaseSensitive(json, "label2id");
        assert_string_equal(cJSON_GetObjectItemCaseSensitive(ids, "0")->valuestring, "goldfish");
        assert_string_equal(cJSON_GetObjectItemCaseSensitive(ids, "2")->valuestring, i ? "goldfish" : "blue_ring");
        assert_string_equal(cJSON_GetObjectItemCaseSensitive(ids, "7")->valuestring, "crane (bird)");
        assert_int_equal(back == NULL, i);
        if (back) assert_int_equal((int)number_of(back, "goldfish"), 0);
        const cJSON *names = cJSON_GetObjectItemCaseSensitive(json, "label_names"),
                    *meant = cJSON_GetObjectItemCaseSensitive(json, "label_descriptions");
        assert_string_equal(cJSON_GetArrayItem(names, 0)->valuestring, "n01443537");
        assert_string_equal(cJSON_GetObjectItemCaseSensitive(meant, "n01443537")->valuestring, "goldfish");
        cJSON_Delete(json);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_properties_of_onnx),         cmocka_unit_test(test_preprocessing_in_metadata),
        cmocka_unit_test(test_limits_of_comparison),       cmocka_unit_test(test_tensors_beside_the_parameters),
        cmocka_unit_test(test_the_edge_of_half_precision), cmocka_unit_test(test_weights_that_vanish_are_counted),
        cmocka_unit_test(test_words_of_a_hubs_folder),     cmocka_unit_test(test_labels_that_stand_twice),
        cmocka_unit_test(test_sides_of_onnx_are_open_when_asked),
        cmocka_unit_test(test_answers_that_change_are_counted),
    };
    return cmocka_run_group_tests_name("export values", tests, make_run, remove_run);
}
