/* test_asked.c - what a config becomes before anything runs: the network, the loader, the memory that is asked for. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/memory.h"
#include "lib/model_file.h"

static Err err;
static Config c;

#define OK(call) \
    do { \
        if (!(call)) fail_msg("%s: %s", #call, err.text); \
    } while (0)

static void load(const char *const *settings, int count) {
    OK(config_load(&c, NULL, (char *const *)settings, count, &err));
}
#define LOAD(...) load((const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

/* ---- the network ---- */

static void test_network_of_a_config(void **state) {
    (void)state;
    LOAD("model.name=custom", "model.dims=[8,16,24,32]", "model.depths=[1,2,3,4]", "model.heads=[1,2,3,4]",
         "model.projection=40", "model.mlp_ratio=2.5", "model.attention=mala,linear,inline,softmax",
         "model.drop_path=0.375", "model.layer_scale=[0.5,0.25,0.125,1]", "input.mean=[0.25,0.5,0.75]",
         "input.std=[0.125,0.375,0.625]", "train.smoothing=0.25", "train.ema=true");
    const ClassifySpec s = config_classify(&c, 9);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(s.model.dims[i], 8 * (i + 1));
        assert_int_equal(s.model.depths[i], i + 1);
        assert_int_equal(s.model.heads[i], i + 1);
        assert_int_equal(s.model.attention[i],
                         ((AttentionKind[]){ATTN_MALA, ATTN_LINEAR, ATTN_INLINE, ATTN_SOFTMAX})[i]);
        assert_true(s.model.layer_scale[i] == ((float[]){0.5f, 0.25f, 0.125f, 1})[i]);
    }
    for (int i = 0; i < 3; i++)
        assert_true(s.mean[i] == 0.25f * (float)(i + 1) && s.std[i] == 0.25f * (float)i + 0.125f);
    assert_true(s.model.drop_path == 0.375f && s.model.mlp_ratio == 2.5f && s.smoothing == 0.25f);
    assert_true(s.model.projection == 40 && s.model.classes == 9 && s.ema && !s.recompute && s.compute == DT_F32);
    config_free(&c);
}

/* A host trains the graph as written and keeps everything; a GPU fuses it and computes cheap things twice. */
static void test_network_on_a_backend(void **state) {
    (void)state;
    const Backend host = {.host_memory = true}, gpu = {.compute = DT_BF16};
    static const char *const choices[] = {"train.recompute=auto", "train.recompute=none", "train.recompute=cheap"};
    for (int i = 0; i < 3; i++) {
        load(&choices[i], 1);
        const ClassifySpec on_host = config_classify_on(&c, 9, &host), on_gpu = config_classify_on(&c, 9, &gpu);
        assert_true(on_host.unfused && !on_gpu.unfused && on_host.compute == DT_F32 && on_gpu.compute == DT_BF16);
        assert_int_equal(on_host.recompute, i == 2);
        assert_int_equal(on_gpu.recompute, i != 1);
        config_free(&c);
    }
}

/* What a backend that has these types, and best of them this one, is set to; where `says` is given, it is refused. */
static void expect_precision(unsigned types, DType best, const char *key, const char *word, DType compute, bool tf32,
                             const char *says) {
    char setting[48];
    Backend b = {.name = "gpu", .description = "gpu:0: some", .types = types, .best = best};
    snprintf(setting, sizeof setting, "%s=%s", key, word);
    load((const char *const[]){setting}, 1);
    err = (Err){0};
    const bool training = strncmp(key, "train", 5) == 0, ok = config_set_precision(&b, &c, training, &err);
    if (ok == (says != NULL)) fail_msg("%s with types %x: %d, %s", setting, types, ok, err.text);
    if (b.compute != compute || b.tf32 != tf32)
        fail_msg("%s with types %x: computes in %s, tf32 %d", setting, types, dtype_name(b.compute), b.tf32);
    if (says && (err.code != EXIT_USAGE || !strstr(err.text, says) || !strstr(err.text, key)))
        fail_msg("%s with types %x: %d, %s", setting, types, err.code, err.text);
    config_free(&c);
}

/* Of training and of evaluation, each by its own key. */
static void test_precision_on_a_backend(void **state) {
    (void)state;
    const unsigned none = 0, old = 1u << DT_F32 | 1u << DT_F16, all = old | 1u << DT_BF16;
    static const char *const keys[] = {"train.precision", "eval.precision"};
    for (int i = 0; i < 2; i++) {
        const char *key = keys[i];
        expect_precision(none, DT_F32, key, "auto", DT_F32, false, NULL);
        expect_precision(none, DT_F32, key, "float32", DT_F32, false, NULL);
        expect_precision(none, DT_F32, key, "tf32", DT_F32, false, "tf32 needs a GPU");
        expect_precision(none, DT_F32, key, "bfloat16", DT_F32, false, "bfloat16 needs a GPU");
        expect_precision(old, DT_F16, key, "auto", DT_F16, false, NULL);
        expect_precision(old, DT_F16, key, "bfloat16", DT_F32, false, "bfloat16 is more than this GPU has (gpu:0");
        expect_precision(old, DT_F16, key, "float16", DT_F16, false, NULL);
        expect_precision(all, DT_BF16, key, "auto", DT_BF16, false, NULL);
        expect_precision(all, DT_BF16, key, "float16", DT_F16, false, NULL);
        expect_precision(all, DT_BF16, key, "float32", DT_F32, false, NULL);
        expect_precision(all, DT_BF16, key, "tf32", DT_F32, true, NULL);
    }
}

/* ---- the loader ---- */

static void test_loader_of_a_config(void **state) {
    (void)state;
    LOAD("input.size=[64,96]", "input.crop_pct=0.75", "input.interpolation=bilinear", "aug.scale=[0.25,0.5]",
         "aug.ratio=[0.5,1.5]", "aug.hflip=0.125", "aug.pad=7", "data.workers=3", "data.cache_mb=5",
         "data.max_bad=0.25", "data.on_bad_image=error", "train.seed=9007199254740991");
    const LoaderOptions o = config_loader(&c, 11, true), e = config_loader(&c, 12, false);
    assert_true(o.train && !e.train && o.batch == 11 && e.batch == 12 && o.workers == 3);
    assert_true(o.seed == 9007199254740991u && o.keep_bytes == 5u << 20 && o.max_bad == 0.25 && o.on_bad == BAD_ERROR);
    assert_true(o.last == LAST_DROP && e.last == LAST_SHORT);
    const TrainTransform t = o.train_transform;
    assert_true(t.width == 96 && t.height == 64 && t.crop == CROP_RESIZED && t.filter == FILTER_BILINEAR);
    assert_true(t.scale_min == 0.25 && t.scale_max == 0.5 && t.ratio_min == 0.5 && t.ratio_max == 1.5 &&
                t.flip == 0.125);
    assert_true(e.eval_transform.width == 96 && e.eval_transform.height == 64 && e.eval_transform.crop_pct == 0.75 &&
                e.eval_transform.filter == FILTER_BILINEAR);
    assert_true(config_picture_bytes(&c) == 64 * 96 * 3);
    config_free(&c);
    LOAD("aug.crop=pad", "aug.pad=7");
    assert_true(config_loader(&c, 1, true).train_transform.crop == CROP_PADDED);
    assert_int_equal(config_loader(&c, 1, true).train_transform.pad, 7);
    assert_int_equal(config_loader(&c, 1, true).on_bad, BAD_SKIP);
    config_free(&c);
    LOAD("aug.crop=none", "aug.pad=7");
    assert_true(config_loader(&c, 1, true).train_transform.crop == CROP_PADDED);
    assert_int_equal(config_loader(&c, 1, true).train_transform.pad, 0);
    config_free(&c);
}

/* ---- memory ---- */

static Backend cpu;

static size_t spare_of(MemoryRun run, const char *limit, bool fits) {
    size_t spare;
    err = (Err){0};
    setenv("MALA_MEMORY", limit, 1);
    run.config = &c, run.backend = &cpu, run.classes = 10;
    if (memory_check(&spare, &run, &err) != fits) fail_msg("%s: %s", limit, err.text);
    unsetenv("MALA_MEMORY");
    return spare;
}

/* What is asked for: both networks, 32 MiB, the pictures of both loaders, and the golden network's weights twice; what
 * is left is the rest. Inference gives its weights back as it folds them. */
static void test_memory_that_a_run_asks_for(void **state) {
    (void)state;
    OK(backend_open_cpu(&cpu, 1, &err));
    LOAD("input.size=32");
    MemoryNeeds needs;
    OK(memory_predict(&needs, &c, 10, 6, true, &cpu, &err));
    const size_t weights = needs.evaluation.weights, beside = (size_t)32 << 20;
    size_t want = needs.total + 2 * weights + (6 + 6) * 1000 + beside;
    const MemoryRun train = {.train = true, .batch = 6, .eval_most = 50, .picture_bytes = 1000};
    assert_true(spare_of(train, "4G", true) == ((size_t)4 << 30) - want);
    char limit[32];
    snprintf(limit, sizeof limit, "%zu", want);
    assert_int_equal(spare_of(train, limit, true), 0);
    snprintf(limit, sizeof limit, "%zu", want - 1);
    (void)spare_of(train, limit, false);
    assert_int_equal(err.code, EXIT_MEMORY);
    assert_non_null(strstr(err.text, "the largest batch that fits is 5"));
    (void)spare_of(train, "33M", false);
    assert_non_null(strstr(err.text, "use a smaller model or input.size"));

    MemoryNeeds small, less; /* an evaluation of its own size; a validation set that is smaller than a batch */
    config_free(&c);
    LOAD("input.size=32", "eval.batch_size=2");
    OK(memory_predict(&small, &c, 10, 6, true, &cpu, &err));
    assert_true(small.total < needs.total);
    const MemoryRun own = {.train = true, .batch = 6, .eval_batch = 2, .eval_most = 50, .picture_bytes = 1000};
    assert_true(spare_of(own, "4G", true) == ((size_t)4 << 30) - (small.total + 2 * weights + (6 + 2) * 1000 + beside));
    const MemoryRun few = {.train = true, .batch = 6, .eval_batch = 9, .eval_most = 2, .picture_bytes = 1000};
    assert_true(spare_of(few, "4G", true) == spare_of(own, "4G", true));

    OK(memory_predict(&less, &c, 10, 3, false, &cpu, &err));
    assert_true(less.training.batch == 0 && less.evaluation.batch == 3);
    want = less.total - (cpu.discard ? less.evaluation.weights : 0) + 3 * 1000 + beside;
    const MemoryRun infer = {.batch = 3, .eval_most = 3, .picture_bytes = 1000};
    assert_true(spare_of(infer, "4G", true) == ((size_t)4 << 30) - want);
    config_free(&c);
    cpu.close(&cpu);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_network_of_a_config),
        cmocka_unit_test(test_network_on_a_backend),
        cmocka_unit_test(test_precision_on_a_backend),
        cmocka_unit_test(test_loader_of_a_config),
        cmocka_unit_test(test_memory_that_a_run_asks_for),
    };
    return cmocka_run_group_tests_name("asked", tests, NULL, NULL);
}
