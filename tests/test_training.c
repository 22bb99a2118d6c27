/* test_training.c - what a training run must never do: call what is not finite a result, mix two runs in one folder,
 * lose work to a disk that fails for a while, or find out at its end what could be known at its start. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "io/safetensors.h"
#include "program.h"
#include "task/classify.h"
#include "task/optimizer.h"

static int make_data(void **state) {
    (void)state;
    folder_make();
    EXPECT(0, "synth $T/data --train 3 --val 2 --scenes 0 --size 32 --seed 7 --quiet");
    EXPECT(0, "train data.path=$T/data output=$T/run " SMALL "--quiet");
    return 0;
}

static int remove_data(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

static bool exists(const char *name) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

static int lines_of(const char *name) {
    static char text[1 << 20];
    char path[256];
    int lines = 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    read_text(text, sizeof text, path);
    for (const char *at = text; (at = strchr(at, '\n')); at++) lines++;
    return lines;
}

/* ---- not finite ---- */

static void test_answers_that_are_no_numbers_are_never_right(void **state) {
    (void)state;
    ClassifyMetrics m;
    const float logits[] = {NAN, NAN, NAN, 0, 1, NAN, INFINITY, 0, 0, 3, 2, 1};
    const int32_t labels[] = {0, 1, 0, 0};
    classify_metrics_init(&m, 3);
    classify_metrics_add(&m, logits, labels, 4);
    assert_int_equal(m.images, 4);
    assert_int_equal(m.top1, 1);
    assert_int_equal(m.top5, 1);
    assert_int_equal(m.class_top1[0], 1);
    assert_int_equal(m.not_finite, 3);
    assert_true(isnan(m.loss));
    classify_metrics_free(&m);
}

/* A copy of a file with NaN in one tensor, and without its seal, which would tell first. */
static void poison(const char *from, const char *to, const char *tensor) {
    char path[256];
    TensorFile f;
    Err err = {0};
    snprintf(path, sizeof path, "%s/%s", folder, from);
    if (!tensor_file_open(&f, path, NULL, &err)) fail_msg("%s", err.text);
    const StoredTensor *t = tensor_file_find(&f, tensor);
    assert_non_null(t);
    float *values = mem_zalloc(t->count, sizeof *values);
    if (!tensor_file_read_f32(values, &f, t, &err)) fail_msg("%s", err.text);
    values[0] = NAN;
    f.tensors[t - f.tensors].data = values;
    snprintf(path, sizeof path, "%s/%s", folder, to);
    if (!safetensors_write(path, f.tensors, f.tensor_count, f.metadata, f.metadata_count - 2, &err))
        fail_msg("%s", err.text);
    free(values);
    tensor_file_close(&f);
}

static void test_weights_that_do_not_compute_are_refused(void **state) {
    (void)state;
    poison("run/weights/best.safetensors", "nan.safetensors", "head.bias");
    EXPECT(3, "eval $T/nan.safetensors --data $T/data --json");
    assert_string_equal(output, "");
    expect_text(errors, "nan.safetensors: 24 of 24 answers are not finite");
    EXPECT(3, "infer $T/data/val --weights $T/nan.safetensors");
    assert_string_equal(output, "");
    expect_text(errors, "the scores are not finite");
    EXPECT(3, "infer $T/data/val --weights $T/nan.safetensors --json");
    assert_null(strstr(output, "predictions"));
    EXPECT(3, "verify $T/nan.safetensors");
    expect_text(errors, "not finite");
    EXPECT(3, "export $T/nan.safetensors $T/nan.onnx");
    expect_text(errors, "head.bias holds values that are not finite");
    EXPECT(3, "export $T/nan.safetensors $T/nan.pth");
    EXPECT(3, "export $T/nan.safetensors $T/nan2.safetensors --verify $T/data/val");
    assert_false(exists("nan.onnx") || exists("nan.pth") || exists("nan2.safetensors"));
}

static void test_a_diverged_run_is_no_success(void **state) {
    (void)state;
    EXPECT(8, "train data.path=$T/data output=$T/diverged " SMALL "optim.lr=100 optim.eps=1e-16 train.batch_size=36");
    shell("grep -q ^1, diverged/results.csv && ! grep -i 'nan\\|inf' diverged/results.csv"); /* such a field is empty */
    assert_null(strstr(errors, " 0.0000 "));
    assert_null(strstr(output, "best top-1"));
    assert_false(exists("diverged/weights/best.safetensors"));
}

/* ---- one folder, one run ---- */

static void test_a_folder_that_holds_anything_is_left_alone(void **state) {
    (void)state;
    shell("mkdir -p taken && echo mine >taken/results.csv");
    EXPECT(0, "train data.path=$T/data output=$T/taken " SMALL "--quiet");
    assert_int_equal(lines_of("taken/results.csv"), 1);
    assert_int_equal(lines_of("taken-2/results.csv"), 3);
    shell("mkdir -p empty");
    EXPECT(0, "train data.path=$T/data output=$T/empty " SMALL "--quiet");
    assert_true(exists("empty/results.csv"));
}

static void test_two_runs_are_never_mixed(void **state) {
    (void)state;
    shell("cp -r run mixed && cp mixed/weights/best.safetensors before && "
          "touch mixed/weights/best.safetensors.tmp.123.0 mixed/weights/mine.tmp.1.0 mixed/config.json.tmp.9.9");
    EXPECT(0, "train data.path=$T/data output=$T/mixed exist_ok=true " SMALL "sched.epochs=1 train.seed=5 --quiet");
    shell("cmp before mixed/earlier-1/weights/best.safetensors");
    assert_int_equal(lines_of("mixed/earlier-1/results.csv"), 3);
    assert_int_equal(lines_of("mixed/results.csv"), 2);
    assert_false(exists("mixed/weights/best.safetensors.tmp.123.0") || exists("mixed/config.json.tmp.9.9"));
    assert_true(exists("mixed/weights/mine.tmp.1.0"));
}

static void test_the_command_is_kept(void **state) {
    (void)state;
    static char text[1 << 12];
    char path[256], part[300];
    snprintf(path, sizeof path, "%s/run/command.json", folder);
    read_text(text, sizeof text, path);
    snprintf(part, sizeof part, "\"train\",\"data.path=%s/data\"", folder);
    expect_text(text, part);
    expect_text(text, "--quiet");
}

/* ---- what can be known at the start ---- */

static void test_classes_that_no_reader_would_take(void **state) {
    (void)state;
    EXPECT(2, "train data.path=$T/data output=$T/spare --num-classes 50 " SMALL);
    expect_text(errors, "model.num_classes: is 50");
    assert_false(exists("spare"));
}

static void test_one_class_is_nothing_to_learn(void **state) {
    (void)state;
    shell("mkdir -p single/train single/val && cp -r data/train/car single/train && cp -r data/val/car single/val");
    EXPECT(3, "train data.path=$T/single output=$T/spare " SMALL);
    expect_text(errors, "/single: holds 1 class, at least 2 are needed - put the pictures into ");
    assert_false(exists("spare"));
    shell("cp -r data/train/fish single/train && cp -r data/val/fish single/val"); /* two are enough */
    EXPECT(0, "train data.path=$T/single output=$T/spare " SMALL "--dry-run");
}

/* Every batch and any number of epochs, with the defaults, and the released recipe on anybody's pictures. */
static void test_small_runs_with_defaults(void **state) {
    (void)state;
    static const char *const given[] = {"-b 8", "--epochs 1", "-b 1 --epochs 1", "--epochs 2 -b 3", "-b 5 --epochs 300",
                                        "--config configs/mavit_t_imagenet.json -b 8",
                                        "--config configs/mavit_t_imagenet.json --epochs 1 -b 4",
                                        "--config configs/flowers5_small.json --epochs 1",
                                        "--config configs/cifar10_gpu.json --epochs 3 -b 2"};
    for (size_t i = 0; i < COUNTOF(given); i++) {
        char line[256];
        snprintf(line, sizeof line, "train --data $T/data --output $T/small --dry-run input.size=32 %s", given[i]);
        EXPECT(0, line);
    }
    assert_false(exists("small"));
    EXPECT(0, "train data.path=$T/data output=$T/small " SMALL
              "optim.lr_base_size=512 train.batch_size=1 sched.epochs=1 sched.warmup_epochs=auto --quiet");
    EXPECT(2, "train --data $T/data --output $T/small --epochs 1 --warmup-epochs 2 --dry-run");
    EXPECT(2, "train --data $T/data --output $T/small -b 8 --min-lr 1e-3 --dry-run");
}

static void test_a_written_config_works_from_anywhere(void **state) {
    (void)state;
    EXPECT(0, "version >/dev/null; M=$(realpath ${MALA:-./mala}); cd $T && \"$M\" train data.path=data output=here "
              "model.weights=run/weights/last.safetensors " SMALL "--quiet >/dev/null && cd / && "
              "\"$M\" train --config $T/here/config.json --quiet");
    assert_true(exists("here-2/weights/best.safetensors"));
    EXPECT(0, "version >/dev/null; M=$(realpath ${MALA:-./mala}); cd / && "
              "\"$M\" eval $T/here/weights/best.safetensors"); /* it knows where its pictures are */
}

/* With 9 steps a fixed decay of 0.9999 averages to the untrained network. */
static void test_an_average_leaves_its_start(void **state) {
    (void)state;
    const char *const fixed = "train data.path=$T/data output=$T/fixed train.ema=true train.ema_ramp=false " SMALL,
               *const ramp = "train data.path=$T/data output=$T/ramp train.ema=true " SMALL;
    EXPECT(0, fixed);
    expect_text(errors, "the average, which is judged and kept, is still 100 %");
    EXPECT(0, ramp);
    assert_null(strstr(errors, "the average"));
    OptimizerConfig o = {.ema_decay = 0.99f, .ema_ramp = true};
    float hyper[HYPER_COUNT];
    optimizer_hyper(&o, 0, hyper);
    assert_true(hyper[HYPER_EMA_DECAY] == 0.1f);
    optimizer_hyper(&o, 8, hyper);
    assert_true(hyper[HYPER_EMA_DECAY] == 0.5f);
    optimizer_hyper(&o, 100000, hyper);
    assert_true(hyper[HYPER_EMA_DECAY] == 0.99f);
}

/* ---- memory ---- */

static void test_what_cannot_fit_says_so_first(void **state) {
    (void)state;
    setenv("MALA_MEMORY", "2G", 1);
    EXPECT(5, "train --data $T/data --output $T/large --dry-run");
    expect_text(errors, "the largest batch that fits is ");
    int most = atoi(strstr(errors, "fits is ") + 8);
    char line[256];
    for (int more = 0; more < 2; more++) {
        snprintf(line, sizeof line, "train --data $T/data --output $T/large --dry-run -b %d", most + more);
        EXPECT(more ? 5 : 0, line);
    }
    setenv("MALA_MEMORY", "20M", 1);
    EXPECT(5, "train --data $T/data --output $T/large " SMALL);
    EXPECT(5, "eval $T/run/weights/best.safetensors --data $T/data");
    EXPECT(5, "infer $T/data/val --weights $T/run/weights/best.safetensors");
    EXPECT(5, "bench infer");
    unsetenv("MALA_MEMORY");
    assert_false(exists("large"));
}

/* A limit that cannot be read is refused: passed over, the run would end without one. */
static void test_memory_is_a_size_or_an_error(void **state) {
    (void)state;
    setenv("MALA_MEMORY", "4Gx", 1);
    EXPECT(2, "train --data $T/data --output $T/large --dry-run");
    EXPECT(2, "infer $T/data/val --weights $T/run/weights/best.safetensors");
    EXPECT(2, "plan --train");
    expect_text(errors, "MALA_MEMORY: \"4Gx\" is no number of bytes");
    assert_string_equal(output, "");
    unsetenv("MALA_MEMORY");
}

/* ---- disks that fail ---- */

/* A failing disk is no bad picture: asked again it may read, else the run ends, and never goes on without it. */
static void test_a_failing_disk_is_no_bad_picture(void **state) {
    (void)state;
    const char *const train = "train data.path=$T/data output=$T/disk " SMALL "data.workers=1 --quiet",
               *const steady[] = {"pread:0000:5:3:2", "open:0000:24:3:2", "opendir:data/:5:1:2"};
    shell("cp run/results.csv steady");
    for (size_t i = 0; i < COUNTOF(steady); i++) {
        shell("rm -rf disk");
        expect_failing(0, steady[i], train);
        shell("cut -d, -f1,3- steady >a; cut -d, -f1,3- disk/results.csv >b; cmp a b");
    }
    shell("rm -rf disk");
    expect_failing(4, "pread:0000:5:3:99999", train);
    expect_failing(4, "open:0000:23:3:99999", train);
    expect_failing(4, "opendir:data/:5:1:99999", train);
    expect_failing(4, "pread:0000:5:3:99999", "infer $T/data/val --weights $T/run/weights/best.safetensors");
    expect_failing(4, "pread:0000:5:3:99999", "eval $T/run/weights/best.safetensors --data $T/data");
    expect_failing(4, "open:0000:13:3:1", "train data.path=$T/data output=$T/closed data.max_bad=0.5 " SMALL);
    expect_text(errors, "Permission denied");
}

/* Stopped by SIGTERM when it writes the row of its second epoch. */
static void test_a_stopped_run_can_be_verified(void **state) {
    (void)state;
    expect_failing(75, "write:results.csv:-15:2:1",
                   "train data.path=$T/data output=$T/stopped " SMALL "sched.epochs=100000 --quiet");
    EXPECT(0, "verify $T/stopped/weights/last.safetensors");
    EXPECT(0, "verify $T/stopped/weights/best.safetensors");
}

static void test_a_file_system_without_locks_is_warned_of(void **state) {
    (void)state;
    expect_failing(0, "flock:.lock:38:0:9", "train data.path=$T/data output=$T/nolock " SMALL); /* ENOSYS */
    expect_text(errors, "warning");
    expect_text(errors, "cannot be locked");
    expect_failing(9, "flock:.lock:11:0:9", "train data.path=$T/data output=$T/nolock exist_ok=true " SMALL);
}

/* ENOSPC, while rows or weights are written: nothing that can be written later is lost. */
static void test_a_full_disk_ends_no_run(void **state) {
    (void)state;
    expect_failing(0, "write:results.csv:28:1:1 write:metrics.jsonl:28:0:2 write:log.txt:28:2:2",
                   "train data.path=$T/data output=$T/rows log.interval=1 " SMALL);
    const char *first = strstr(errors, "rows wait in memory"), *second = first ? strstr(first + 1, "rows wait") : NULL;
    assert_true(second && !strstr(second + 1, "rows wait")); /* once for each time that rows began to wait */
    assert_int_equal(lines_of("rows/results.csv"), 3);
    assert_int_equal(lines_of("rows/metrics.jsonl"), 8);
    assert_int_equal(lines_of("rows/log.txt"), lines_of("err") - 1); /* that log.txt failed is not said in it */
    expect_failing(0, "write:best.safetensors:28:0:1 write:last.safetensors:28:0:1",
                   "train data.path=$T/data output=$T/late " SMALL);
    expect_text(errors, "training goes on");
    EXPECT(0, "verify $T/late/weights/best.safetensors");
    EXPECT(0, "verify $T/late/weights/last.safetensors");
    expect_failing(0, "write:last.safetensors:28:0:3", "train data.path=$T/data output=$T/patient sched.epochs=1 " SMALL
                   "sched.epochs=1");
    setenv("MALA_FAULT_HURRY", "1", 1);
    expect_failing(4, "write:last.safetensors:28:1:99", "train data.path=$T/data output=$T/former " SMALL);
    expect_text(errors, "last.safetensors");
    unsetenv("MALA_FAULT_HURRY");
    expect_failing(4, "write:.safetensors:28:0:99", "train data.path=$T/data output=$T/full " SMALL);
    assert_null(strstr(output, "best top-1"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_that_are_no_numbers_are_never_right),
        cmocka_unit_test(test_weights_that_do_not_compute_are_refused),
        cmocka_unit_test(test_a_diverged_run_is_no_success),
        cmocka_unit_test(test_a_folder_that_holds_anything_is_left_alone),
        cmocka_unit_test(test_two_runs_are_never_mixed),
        cmocka_unit_test(test_the_command_is_kept),
        cmocka_unit_test(test_classes_that_no_reader_would_take),
        cmocka_unit_test(test_one_class_is_nothing_to_learn),
        cmocka_unit_test(test_small_runs_with_defaults),
        cmocka_unit_test(test_a_written_config_works_from_anywhere),
        cmocka_unit_test(test_an_average_leaves_its_start),
        cmocka_unit_test(test_what_cannot_fit_says_so_first),
        cmocka_unit_test(test_memory_is_a_size_or_an_error),
        cmocka_unit_test(test_a_stopped_run_can_be_verified),
        cmocka_unit_test(test_a_failing_disk_is_no_bad_picture),
        cmocka_unit_test(test_a_file_system_without_locks_is_warned_of),
        cmocka_unit_test(test_a_full_disk_ends_no_run),
    };
    return cmocka_run_group_tests(tests, make_data, remove_data);
}
