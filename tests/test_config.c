/* test_config.c - options from JSON and from the command line: values, every refusal with its message and place, bases,
 * the dump that loads back, what "auto" resolves to. */
#include "lib/config.h"
#include "base/cpus.h"
#include "base/file.h"
#include "scratch.h"

#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

static const char *text_error(const char *text) {
    static Err err;
    Config c;
    err = (Err){0};
    bool ok = config_load_text(&c, text, strlen(text), "c.json", NULL, 0, &err);
    config_free(&c);
    if (ok) return "accepted";
    assert_int_equal(err.code, EXIT_INPUT);
    return err.text;
}

static const char *override_error(const char *override) {
    static Err err;
    char copy[200], *list[] = {copy};
    Config c;
    err = (Err){0};
    snprintf(copy, sizeof copy, "%s", override);
    bool ok = config_load(&c, NULL, list, 1, &err);
    config_free(&c);
    if (ok) return "accepted";
    assert_int_equal(err.code, EXIT_USAGE);
    return err.text;
}

#define TEXT_FAILS(text, message) assert_string_equal(text_error(text), "c.json:" message)
#define OVERRIDE_FAILS(override, message) assert_string_equal(override_error(override), "command line: " message)

static void load(Config *c, const char *text, char *const *overrides, int count) {
    Err err = {0};
    bool ok = config_load_text(c, text, strlen(text), "c.json", overrides, count, &err);
    assert_string_equal(err.text, "");
    assert_true(ok);
}

static void test_defaults(void **state) {
    (void)state;
    Config c;
    load(&c, "{}", NULL, 0);
    assert_int_equal(c.model.name, MODEL_T);
    assert_int_equal(c.model.attention[1], ATTN_MALA);
    assert_int_equal(c.model.attention[2], ATTN_SOFTMAX);
    assert_null(c.model.weights);
    assert_string_equal(c.data.train, "train");
    assert_int_equal(c.input.size[0], 224);
    assert_int_equal(c.input.size[1], 224);
    assert_true(c.optim.lr == 5e-4 && c.optim.betas[1] == 0.999 && c.optim.eps == 1e-8);
    assert_int_equal(c.train.batch_size, 128);
    assert_true(c.train.deterministic && !c.train.ema && !c.exist_ok);
    assert_string_equal(c.output, "runs/classify/train");
    assert_false(options_given(&c.options, "optim.lr"));
    config_free(&c);
}

static void test_values(void **state) {
    (void)state;
    char *overrides[] = {"optim.lr=2e-3",
                         "model.attention=linear",
                         "aug.scale=0.5,1",
                         "data.path=2024",
                         "data.val=\"va l\"",
                         "train.seed=9007199254740991",
                         "model.dims=[32, 64, 128, 256]",
                         "model.heads=1,2,4,8",
                         "input.size=64,96",
                         "train.ema=true",
                         "model.weights=null",
                         "model.depths=auto"};
    Config c;
    load(&c,
         "{\"optim\": {\"lr\": 1, \"betas\": [0.8, 0.9]}, \"model\": {\"name\": \"MALA-S\", \"weights\": \"w\"},"
         " \"exist_ok\": true, \"sched\": {\"epochs\": 3.0}}",
         overrides, COUNTOF(overrides));
    assert_true(c.optim.lr == 2e-3 && c.optim.betas[0] == 0.8);
    assert_int_equal(c.model.name, MODEL_S);
    for (int i = 0; i < 4; i++) assert_int_equal(c.model.attention[i], ATTN_LINEAR);
    assert_true(c.aug.scale[0] == 0.5 && c.aug.scale[1] == 1);
    assert_string_equal(c.data.path, "2024");
    assert_string_equal(c.data.val, "va l");
    assert_true(c.train.seed == 9007199254740991);
    assert_int_equal(c.model.dims[3], 256);
    assert_int_equal(c.input.size[0], 64);
    assert_int_equal(c.input.size[1], 96);
    assert_int_equal(c.sched.epochs, 3);
    assert_true(c.train.ema && c.exist_ok);
    assert_null(c.model.weights);
    assert_true(options_given(&c.options, "optim.lr"));
    config_free(&c);
}

static void test_model_names(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int index;
    } cases[] = {
        {"mavit_t", MODEL_T}, {"MAViT_T", MODEL_T}, {"mala_b", MODEL_B}, {"MALA_L", MODEL_L}, {"mavit-s", MODEL_S}};
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        char override[60], *list[] = {override};
        snprintf(override, sizeof override, "model.name=%s", cases[i].name);
        Config c;
        load(&c, "{}", list, 1);
        assert_int_equal(c.model.name, cases[i].index);
        config_free(&c);
    }
    OVERRIDE_FAILS("model.name=resnet50",
                   "model.name: expected one of mavit_t, mavit_s, mavit_b, mavit_l, custom, found \"resnet50\"");
}

static void test_unknown_keys(void **state) {
    (void)state;
    TEXT_FAILS("{\n  \"optim\": {\n    \"learing_rate\": 1}}",
               "3:5: unknown key \"optim.learing_rate\" - did you mean \"optim.lr\"?");
    TEXT_FAILS("{\"lr\": 1}", "1:2: unknown key \"lr\" - did you mean \"optim.lr\"?");
    TEXT_FAILS("{\"train\": {\"Batch_size\": 1}}", "1:12: unknown key \"train.Batch_size\" - did you mean "
                                                   "\"train.batch_size\"?");
    TEXT_FAILS("{\"Optim\": {\"lr\": 1}}", "1:2: unknown section \"Optim\" - did you mean \"optim\"?");
    TEXT_FAILS("{\"optimizer\": {}}", "1:2: unknown section \"optimizer\" - did you mean \"optim\"?");
    TEXT_FAILS("{\"zebra\": {}}", "1:2: unknown section \"zebra\" - 'mala help config' lists what there is");
    TEXT_FAILS("{\"Train\": {}}", "1:2: unknown section \"Train\" - did you mean \"train\"?");
    TEXT_FAILS("{\"train\": {\"epochs\": 1}}", "1:12: unknown key \"train.epochs\" - did you mean \"sched.epochs\"?");
    TEXT_FAILS("{\"optim.lr\": 1}", "1:2: key \"optim.lr\" has a dot - write \"optim\": {\"lr\": ...}");
    TEXT_FAILS("{\"optim\": {\"optim.lr\": 1}}", "1:12: key \"optim.lr\" has a dot - write \"optim\": {\"lr\": ...}");
    TEXT_FAILS("{\"optim\": 3}", "1:2: section \"optim\": expected an object, found 3");
    TEXT_FAILS("[1]", "1:1: expected an object of sections, found a list");
    TEXT_FAILS("{\"optim\": {\"lr\": 1, \"\\u006cr\": 2}}",
               "1:21: key \"lr\" appears twice, first at line 1, column 12 - keep one");
    TEXT_FAILS("{\"optim\": {\"lr\": 1,}}", "1:20: a comma before '}' - remove the comma");
    OVERRIDE_FAILS("optim.lrr=1", "unknown option \"optim.lrr\" - did you mean \"optim.lr\"?");
    OVERRIDE_FAILS("imgsz=64", "unknown option \"imgsz\" - did you mean \"input.size\"?");
    OVERRIDE_FAILS("zebra=1", "unknown option \"zebra\" - 'mala help config' lists what there is");
    OVERRIDE_FAILS("lr", "\"lr\" is no key=value");
}

static void test_wrong_types(void **state) {
    (void)state;
    TEXT_FAILS("{\"optim\": {\"lr\": \"fast\"}}", "1:18: optim.lr: expected a number, found \"fast\"");
    TEXT_FAILS("{\"optim\": {\"lr\": null}}", "1:18: optim.lr: expected a number, found null");
    TEXT_FAILS("{\"optim\": {\"betas\": [0.9,\n true]}}", "2:2: optim.betas[1]: expected a number, found true");
    TEXT_FAILS("{\"optim\": {\"betas\": [0.9]}}", "1:21: optim.betas: expected a list of 2, found 1");
    TEXT_FAILS("{\"optim\": {\"betas\": 0.9}}", "1:21: optim.betas: expected a list of 2, found 0.9");
    TEXT_FAILS("{\"optim\": {\"lr\": [1]}}", "1:18: optim.lr: expected a number, found a list");
    TEXT_FAILS("{\"sched\": {\"epochs\": 1.5}}", "1:22: sched.epochs: expected a whole number, found 1.5");
    TEXT_FAILS("{\"model\": {\"num_classes\": \"ten\"}}",
               "1:27: model.num_classes: expected a whole number or auto, found \"ten\"");
    TEXT_FAILS("{\"train\": {\"ema\": 1}}", "1:19: train.ema: expected true or false, found 1");
    TEXT_FAILS("{\"data\": {\"train\": null}}", "1:20: data.train: expected a string, found null");
    TEXT_FAILS("{\"data\": {\"path\": {}}}", "1:19: data.path: expected a string or null, found an object");
    TEXT_FAILS("{\"model\": {\"attention\": [\"mala\", \"mala\", \"mala\", \"none\"]}}",
               "1:50: model.attention[3]: expected one of mala, softmax, linear, inline, found \"none\"");
    OVERRIDE_FAILS("optim.lr=1e999", "optim.lr: expected a number, found \"1e999\"");
    OVERRIDE_FAILS("optim.lr=0x10", "optim.lr: expected a number, found \"0x10\"");
    OVERRIDE_FAILS("optim.lr=", "optim.lr: expected a number, found \"\"");
    OVERRIDE_FAILS("model.dims=64,128,256", "model.dims: expected a list of 4, found 3");
    OVERRIDE_FAILS("model.attention=[mala,softmx,mala,mala]",
                   "model.attention[1]: expected one of mala, softmax, linear, inline, found \"softmx\"");
    OVERRIDE_FAILS("train.ema=yes", "train.ema: expected true or false, found \"yes\"");
    OVERRIDE_FAILS("optim.lr=\xff", "optim.lr: the value is not UTF-8");
    OVERRIDE_FAILS("data.path=caf\xe9", "data.path: the value is not UTF-8 - rename it, or give a link to it");
}

static void test_ranges(void **state) {
    (void)state;
    TEXT_FAILS("{\"optim\": {\"lr\": 0}}", "1:18: optim.lr: 0 is out of range - allowed: 1e-09 to 100");
    TEXT_FAILS("{\"optim\": {\"lr\": -1}}", "1:18: optim.lr: -1 is out of range - allowed: 1e-09 to 100");
    TEXT_FAILS("{\"optim\": {\"lr\": 1e30}}", "1:18: optim.lr: 1e+30 is out of range - allowed: 1e-09 to 100");
    TEXT_FAILS("{\"sched\": {\"epochs\": 0}}", "1:22: sched.epochs: 0 is out of range - allowed: 1 to 1000000");
    TEXT_FAILS("{\"train\": {\"batch_size\": 0}}", "1:26: train.batch_size: 0 is out of range - allowed: 1 to 65535");
    TEXT_FAILS("{\"train\": {\"batch_size\": 2147483648}}",
               "1:26: train.batch_size: 2147483648 is out of range - allowed: 1 to 65535");
    TEXT_FAILS("{\"train\": {\"seed\": 9007199254740993}}",
               "1:20: train.seed: 9007199254740992 is out of range - allowed: 0 to 9007199254740991");
    TEXT_FAILS("{\"train\": {\"seed\": 1e300}}",
               "1:20: train.seed: 1e+300 is out of range - allowed: 0 to 9007199254740991");
    TEXT_FAILS("{\"train\": {\"seed\": -1}}", "1:20: train.seed: -1 is out of range - allowed: 0 to 9007199254740991");
    TEXT_FAILS("{\"model\": {\"num_classes\": 0}}",
               "1:27: model.num_classes: 0 is out of range - allowed: 2 to 100000");
    TEXT_FAILS("{\"input\": {\"size\": 0}}", "1:20: input.size: 0 is out of range - allowed: 32 to 8192");
    TEXT_FAILS("{\"input\": {\"size\": 1}}", "1:20: input.size: 1 is out of range - allowed: 32 to 8192");
    TEXT_FAILS("{\"input\": {\"size\": [64, 100000]}}",
               "1:25: input.size[1]: 100000 is out of range - allowed: 32 to 8192");
    TEXT_FAILS("{\"optim\": {\"lr\": 1e-999}}", "1:18: number 1e-999 is too small: it would become 0");
}

static void test_semantics(void **state) {
    (void)state;
    TEXT_FAILS("{\"input\": {\"size\": 100}}", "1:20: input.size: 100 is no multiple of 32 - nearest: 96 or 128");
    TEXT_FAILS("{\"input\": {\"size\": [64, 225]}}",
               "1:20: input.size: 225 is no multiple of 32 - nearest: 224 or 256");
    TEXT_FAILS("{\"model\": {\"heads\": [1, 2, 3, 8]}}",
               "1:21: model.heads: stage 2: dim 256 is not divisible by 3 heads");
    TEXT_FAILS("{\"model\": {\"dims\": [64, 128, 250, 512]}}",
               "1:20: model.dims: stage 2: dim 250 is not divisible by 4 heads");
    TEXT_FAILS("{\"model\": {\"dims\": [66, 128, 256, 512]}}",
               "1:20: model.dims: stage 0: 66 channels per head (dim 66, 1 heads) - the rotary position encoding needs "
               "a multiple of 4");
    TEXT_FAILS("{\"model\": {\"dims\": [516, 128, 256, 512]}}",
               "1:20: model.dims: stage 0: 516 channels per head (dim 516, 1 heads) - at most 512");
    assert_string_equal(text_error("{\"model\": {\"dims\": [512, 128, 256, 512]}}"), "accepted");
    TEXT_FAILS("{\"model\": {\"dims\": [\"auto\", 128, 256, 512]}}",
               "1:20: model.dims: either all four or none may be auto");
    TEXT_FAILS("{\"model\": {\"layer_scale\": [1, 1, \"auto\", 1]}}",
               "1:27: model.layer_scale: either all four or none may be auto");
    TEXT_FAILS("{\"aug\": {\"scale\": [0.9, 0.5]}}", "1:19: aug.scale: 0.9 is above 0.5 - the smaller one comes first");
    TEXT_FAILS("{\"aug\": {\"ratio\": [2, 0.5]}}", "1:19: aug.ratio: 2 is above 0.5 - the smaller one comes first");
    TEXT_FAILS("{\"train\": {\"deterministic\": false}}",
               "1:29: train.deterministic: false is not possible - every run is deterministic here");
    TEXT_FAILS("{\"output\": \"\"}", "1:12: output: empty - name a directory");
    TEXT_FAILS("{\"base\": \"x.json\"}", "1:10: base: not possible here");
    OVERRIDE_FAILS("base=x.json", "base: for config files only - use --config FILE");
    assert_string_equal(override_error("model.name=custom"),
                        "command line: model.name: custom needs model.dims - give a list of 4");
}

static void test_presets(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int dims[4], depths[4], heads[4], projection;
        float drop_path, layer_scale[4];
    } sizes[] = {
        {"mavit_t", {64, 128, 256, 512}, {2, 2, 6, 2}, {1, 2, 4, 8}, 2048, 0.1f, {1, 1, 1, 1}},
        {"mavit_s", {64, 128, 320, 512}, {3, 5, 9, 3}, {1, 2, 5, 8}, 2048, 0.15f, {1, 1, 1, 1}},
        {"mavit_b", {96, 192, 384, 512}, {4, 6, 12, 6}, {1, 2, 6, 8}, 2048, 0.4f, {1, 1, 1e-6f, 1e-6f}},
        {"mavit_l", {96, 192, 448, 640}, {4, 7, 19, 8}, {1, 2, 7, 10}, 2560, 0.55f, {1e-6f, 1e-6f, 1e-6f, 1e-6f}},
    };
    for (size_t i = 0; i < COUNTOF(sizes); i++) {
        char override[40], *list[] = {override};
        snprintf(override, sizeof override, "model.name=%s", sizes[i].name);
        Config c;
        load(&c, "{}", list, 1);
        MavitConfig m = config_mavit(&c, 7);
        assert_memory_equal(m.dims, sizes[i].dims, sizeof m.dims);
        assert_memory_equal(m.depths, sizes[i].depths, sizeof m.depths);
        assert_memory_equal(m.heads, sizes[i].heads, sizeof m.heads);
        assert_int_equal(m.projection, sizes[i].projection);
        assert_true(m.drop_path == sizes[i].drop_path);
        assert_memory_equal(m.layer_scale, sizes[i].layer_scale, sizeof m.layer_scale);
        assert_true(m.mlp_ratio == 3.5);
        assert_int_equal(m.classes, 7);
        config_free(&c);
    }
    char *overrides[] = {"model.name=mavit_b", "model.drop_path=0", "model.layer_scale=0.5", "model.num_classes=3",
                         "model.depths=1,1,1,1"};
    Config c;
    load(&c, "{}", overrides, COUNTOF(overrides));
    MavitConfig m = config_mavit(&c, 7);
    assert_true(m.drop_path == 0 && m.layer_scale[0] == 0.5f && m.layer_scale[3] == 0.5f);
    assert_int_equal(m.classes, 3);
    assert_int_equal(m.depths[2], 1);
    assert_int_equal(m.dims[0], 96);
    config_free(&c);
    overrides[1] = "model.drop_path=0.25"; /* another than the size's own, which is 0.4 */
    load(&c, "{}", overrides, COUNTOF(overrides));
    assert_true(config_mavit(&c, 7).drop_path == 0.25f);
    config_free(&c);
}

static void test_devices(void **state) {
    (void)state;
    static const struct {
        const char *text;
        DeviceKind kind;
        int index;
    } devices[] = {{"auto", DEVICE_AUTO, 0},    {"cpu", DEVICE_CPU, 0},        {"cuda", DEVICE_CUDA, 0},
                   {"gpu", DEVICE_CUDA, 0},     {"cuda:7", DEVICE_CUDA, 7},    {"gpu:7", DEVICE_CUDA, 7},
                   {"cuda:12", DEVICE_CUDA, 12}, {"cuda:305", DEVICE_CUDA, 305}};
    for (size_t i = 0; i < COUNTOF(devices); i++) {
        char override[40], *list[] = {override};
        snprintf(override, sizeof override, "device=%s", devices[i].text);
        Config c;
        int index = -1;
        load(&c, "{}", list, 1);
        assert_int_equal(config_device(&c, &index), devices[i].kind);
        assert_int_equal(index, devices[i].index);
        config_free(&c);
    }
    OVERRIDE_FAILS("device=cuda:1234", "device: \"cuda:1234\" is none of auto, cpu, cuda, cuda:N");
    OVERRIDE_FAILS("device=cuda:1x", "device: \"cuda:1x\" is none of auto, cpu, cuda, cuda:N");
    OVERRIDE_FAILS("device=cuda:", "device: \"cuda:\" is none of auto, cpu, cuda, cuda:N");
}

static void test_auto(void **state) {
    (void)state;
    Config c;
    load(&c, "{}", NULL, 0);
    assert_true(config_crop_pct(&c) == 0.875);
    Schedule s = config_schedule(&c, 128, NULL);
    assert_true(s.peak_lr == 5e-4 * 128 / 512 && s.warmup_lr == 1e-6 && s.min_lr == 1e-5 && s.warmup_epochs == 5);
    s = config_schedule(&c, 8, NULL); /* a peak below what the cosine ends at otherwise */
    assert_true(s.peak_lr == 5e-4 * 8 / 512 && s.warmup_lr == s.peak_lr / 100 && s.min_lr == s.peak_lr / 10);
    assert_int_equal(config_eval_batch(&c), 128);
    assert_int_equal(config_threads(&c), cpus_usable());
    assert_in_range(config_workers(&c), 1, 16);
    config_free(&c);
    char *overrides[] = {"input.size=256",    "optim.lr_base_size=0", "sched.epochs=10",
                         "eval.batch_size=3", "train.threads=5",      "data.workers=0"};
    load(&c, "{}", overrides, COUNTOF(overrides));
    assert_true(config_crop_pct(&c) == 1.0);
    s = config_schedule(&c, 128, NULL);
    assert_true(s.peak_lr == 5e-4 && s.min_lr == 1e-5 && s.warmup_epochs == 1);
    assert_int_equal(config_eval_batch(&c), 3);
    assert_int_equal(config_threads(&c), 5);
    assert_int_equal(config_workers(&c), 0);
    config_free(&c);
}

/* The dump of a loaded dump is the same text, from defaults and from a config where everything differs from them. */
static void test_dump(void **state) {
    (void)state;
    static const char *const texts[] = {
        "{}",
        "{\"model\": {\"name\": \"custom\", \"dims\": [16, 32, 48, 64], \"depths\": [1, 1, 2, 1], \"heads\": [1, 2, 3, "
        "4],"
        " \"attention\": \"inline\", \"drop_path\": 0.3, \"layer_scale\": [1, 1, 1e-6, 0.1], \"num_classes\": 10,"
        " \"weights\": \"a \\\"b\\\".safetensors\", \"mlp_ratio\": 4, \"projection\": 96},"
        " \"input\": {\"size\": [64, 96], \"crop_pct\": 0.9, \"interpolation\": \"bilinear\"},"
        " \"optim\": {\"lr\": 0.000123456789}, \"train\": {\"seed\": 9007199254740991, \"ema\": true, \"threads\": 2},"
        " \"data\": {\"path\": \"/d\\u00e9\", \"on_bad_image\": \"error\", \"workers\": 0}, \"device\": \"cpu\"}"};
    for (size_t i = 0; i < COUNTOF(texts); i++) {
        Config a, b;
        load(&a, texts[i], NULL, 0);
        char *first = config_dump(&a);
        load(&b, first, NULL, 0);
        char *second = config_dump(&b);
        assert_string_equal(first, second);
        assert_true(a.optim.lr == b.optim.lr);
        assert_int_equal(a.model.attention[2], b.model.attention[2]);
        assert_memory_equal(a.model.dims, b.model.dims, sizeof a.model.dims);
        assert_memory_equal(a.input.size, b.input.size, sizeof a.input.size);
        free(first);
        free(second);
        config_free(&a);
        config_free(&b);
    }
    Config c;
    char *override = "input.size=64,96";
    load(&c, "{}", &override, 1);
    char *text = config_dump(&c);
    assert_non_null(strstr(text, "  \"input\": {\n    \"size\": [64, 96],\n    \"crop_pct\": \"auto\",\n"));
    assert_non_null(strstr(text, "    \"dims\": \"auto\",\n"));
    assert_non_null(strstr(text, "    \"lr\": 0.0005,\n"));
    assert_null(strstr(text, "\"base\""));
    free(text);
    config_free(&c);
}

/* ---- files ---- */

static char *in_folder(const char *name) { return path_join(scratch_folder, name); }

static void write_file(const char *name, const char *text) {
    char *path = in_folder(name);
    Err err = {0};
    assert_true(file_write(path, text, strlen(text), &err));
    free(path);
}

/* Loads a file of the folder and returns the error, the folder taken off. */
static const char *file_error(const char *name) {
    static Err err;
    Config c;
    err = (Err){0};
    char *path = in_folder(name);
    bool ok = config_load(&c, path, NULL, 0, &err);
    free(path);
    config_free(&c);
    if (ok) return "accepted";
    assert_int_equal(err.code, EXIT_USAGE);
    return strncmp(err.text, scratch_folder, strlen(scratch_folder)) ? err.text : err.text + strlen(scratch_folder) + 1;
}

static void test_base(void **state) {
    (void)state;
    char *sub = in_folder("recipes");
    assert_int_equal(mkdir(sub, 0777), 0);
    free(sub);
    write_file("recipes/base.json", "{\"optim\": {\"lr\": 0.25, \"eps\": 1e-6}, \"sched\": {\"epochs\": 9}}");
    write_file("child.json", "{\"base\": \"recipes/base.json\", \"optim\": {\"lr\": 0.5}}");
    write_file("grandchild.json", "{\"base\": \"child.json\"}");
    write_file("self.json", "{\n\"base\": \"self.json\"}");
    write_file("orphan.json", "{\"base\": \"none.json\"}");
    write_file("recipes/bad.json", "{\"sched\":\n {\"epoch\": 9}}");
    write_file("of_bad.json", "{\"base\": \"recipes/bad.json\"}");

    Config c;
    Err err = {0};
    char *path = in_folder("child.json"), *overrides[] = {"sched.epochs=11"};
    assert_true(config_load(&c, path, overrides, 1, &err));
    assert_true(c.optim.lr == 0.5 && c.optim.eps == 1e-6);
    assert_int_equal(c.sched.epochs, 11);
    assert_null(c.base);
    config_free(&c);
    free(path);

    assert_string_equal(file_error("grandchild.json"),
                        "child.json:1:10: base: a base cannot have a base of its own - name "
                        "\"recipes/base.json\" directly");
    assert_string_equal(file_error("self.json"), "self.json:2:9: base: a base cannot have a base of its own - name "
                                                 "\"self.json\" directly");
    assert_string_equal(file_error("of_bad.json"),
                        "recipes/bad.json:2:3: unknown key \"sched.epoch\" - did you mean \"sched.epochs\"?");
    assert_non_null(strstr(file_error("orphan.json"), "none.json: "));
    assert_non_null(strstr(file_error("missing.json"), "missing.json: "));
    assert_non_null(strstr(file_error("recipes"), "recipes: "));
}

static void test_size_limit(void **state) {
    (void)state;
    size_t count = (1 << 20) + 1;
    char *text = malloc(count + 1);
    memset(text, ' ', count);
    text[count] = '\0';
    memcpy(text, "{}", 2);
    write_file("large.json", text);
    assert_string_not_equal(file_error("large.json"), "accepted");
    text[count - 1] = '\0';
    write_file("large.json", text);
    assert_string_equal(file_error("large.json"), "accepted");
    free(text);
}

static const char *training_error(char *const *overrides, int count) {
    static Err err;
    Config c;
    err = (Err){0};
    bool ok = config_load(&c, NULL, overrides, count, &err) && config_check_training(&c, &err);
    config_free(&c);
    return ok ? "accepted" : err.text;
}

static void test_training_checks(void **state) {
    (void)state;
    char *data = in_folder("set"), *link = in_folder("link"), path[300], output[300], expected[800];
    assert_int_equal(mkdir(data, 0777), 0);
    assert_int_equal(symlink("set", link), 0);
    snprintf(path, sizeof path, "data.path=%s", data);

    assert_string_equal(training_error(NULL, 0),
                        "config: data.path: not given - name the data set's directory with --data DIR");
    assert_string_equal(training_error((char *[]){"data.path=/nowhere"}, 1),
                        "command line: data.path: \"/nowhere\" is no directory - name one that holds train/ and val/, "
                        "in each a folder per class");
    snprintf(output, sizeof output, "output=%s/runs", scratch_folder);
    char *list[] = {path, output, "sched.epochs=8", "sched.warmup_epochs=0.8"};
    assert_string_equal(training_error(list, 4), "accepted");
    list[3] = "sched.warmup_epochs=8";
    assert_string_equal(training_error(list, 4), "command line: sched.warmup_epochs: 8 of 8 epochs - the warm-up must "
                                                 "end before the run");
    list[3] = "train.batch_size=8";
    assert_string_equal(training_error(list, 4), "accepted");
    list[2] = "sched.min_lr=1e-5";
    assert_string_equal(
        training_error(list, 4),
        "command line: sched.min_lr: 1e-05 is above the peak learning rate, 7.8125e-06 (0.0005 for 512 images "
        "a step, batch 8) - lower it, or set optim.lr_base_size=0");
    snprintf(output, sizeof output, "output=%s/runs/a", link);
    snprintf(expected, sizeof expected,
             "command line: output: \"%s/runs/a\" lies inside the data set \"%s\", which mala never writes to", link,
             data);
    assert_string_equal(training_error(list, 3), expected);
    free(data);
    free(link);
}

static void test_shipped_configs(void **state) {
    (void)state;
    static const struct {
        const char *path;
        int input_size;
    } files[] = {{"configs/cifar10_small.json", 32},
                 {"configs/flowers5_small.json", 128},
                 {"configs/mavit_t_imagenet.json", 224}};
    for (size_t i = 0; i < COUNTOF(files); i++) {
        Config c;
        Err err = {0};
        bool ok = config_load(&c, files[i].path, NULL, 0, &err);
        assert_string_equal(err.text, "");
        assert_true(ok);
        assert_int_equal(c.input.size[0], files[i].input_size);
        /* the data say how many classes there are, so that a config serves anybody's pictures */
        assert_int_equal(config_mavit(&c, 7).classes, 7);
        config_free(&c);
    }
}

/* Every row: a name of one section's block, a default that parses, help, numbers with a range. */
static void test_table(void **state) {
    (void)state;
    for (int i = 0; i < config_table_count; i++) {
        const Option *o = &config_table[i];
        char text[400];
        assert_true(o->help && o->help[0]);
        assert_ptr_equal(option_find(config_table, config_table_count, o->name), o); /* no name twice */
        option_describe(text, sizeof text, o);
        assert_true(strlen(text) < sizeof text - 1);
        bool number = o->type == OPTION_INT || o->type == OPTION_INT64 || o->type == OPTION_FLOAT;
        if (number) assert_true(o->min < o->max);
        const char *dot = strchr(o->name, '.');
        for (int k = i + 1; dot && k < config_table_count; k++) {
            bool same = !strncmp(config_table[k].name, o->name, (size_t)(dot - o->name) + 1);
            bool before = !strncmp(config_table[k - 1].name, o->name, (size_t)(dot - o->name) + 1);
            assert_true(!same || before); /* sections stand together */
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_model_names),
        cmocka_unit_test(test_unknown_keys),
        cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_semantics),
        cmocka_unit_test(test_presets),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_auto),
        cmocka_unit_test(test_dump),
        cmocka_unit_test(test_base),
        cmocka_unit_test(test_size_limit),
        cmocka_unit_test(test_training_checks),
        cmocka_unit_test(test_shipped_configs),
        cmocka_unit_test(test_table),
    };
    return cmocka_run_group_tests_name("config", tests, scratch_set_up, scratch_tear_down);
}
