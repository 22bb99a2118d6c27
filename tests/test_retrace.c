/* test_retrace.c - training runs of the program beside the same runs done by a second hand (retrace.h): what is drawn,
 * decided, judged and kept. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "colours.h"
#include "io/tensor_file.h"
#include "program.h"
#include "retrace.h"

static Backend backend;
static char pictures[200];

static int make_data(void **state) {
    (void)state;
    Err err = {0};
    folder_make();
    snprintf(pictures, sizeof pictures, "%s/pictures", folder);
    colours_make(pictures, 5, 3);
    return backend_open_cpu(&backend, 1, &err) ? 0 : -1;
}

static int remove_data(void **state) {
    (void)state;
    backend.close(&backend);
    folder_remove();
    return 0;
}

/* Every number is another than the default, and none follows from another. */
static Recipe recipe(void) {
    return (Recipe){.data = pictures,
                    .seed = 3,
                    .batch = 7,
                    .epochs = 6,
                    .pad = 3,
                    .warmup_epochs = 2,
                    .flip = 0.25,
                    .crop_pct = 0.8,
                    .lr = 4e-2,
                    .lr_base = 28,
                    .warmup_lr = 1e-3,
                    .min_lr = 2e-3,
                    .decay = 0.3,
                    .beta1 = 0.8,
                    .beta2 = 0.96,
                    .eps = 1e-3,
                    .clip = 0.4,
                    .smoothing = 0.2,
                    .drop_path = 0.2,
                    .layer_scale = 0.5};
}

static void run_program(const Recipe *r, const char *name) {
    char settings[1400], arguments[1800];
    recipe_settings(settings, sizeof settings, r);
    snprintf(arguments, sizeof arguments, "train %s output=$T/%s log.interval=1 eval.batch_size=5 --json", settings,
             name);
    EXPECT(0, arguments);
}

static const char *file_of(const char *run, const char *name) {
    static char path[300];
    snprintf(path, sizeof path, "%s/%s/%s", folder, run, name);
    return path;
}

static void expect_near(const char *what, int number, double got, double want, double tolerance) {
    if (!(fabs(got - want) <= tolerance)) fail_msg("%s %d: %.9g instead of %.9g", what, number, got, want);
}

/* A row an epoch: epoch,time,train/loss,top1,top5,val/loss,lr */
static void expect_results(const Retraced *t, const char *run) {
    static char text[1 << 14];
    read_text(text, sizeof text, file_of(run, "results.csv"));
    const char *row = strchr(text, '\n') + 1;
    for (int e = 0; e < t->recipe.epochs; e++, row = strchr(row, '\n') + 1) {
        int epoch;
        double time, loss, top1, top5, val, rate;
        int read = sscanf(row, "%d,%lf,%lf,%lf,%lf,%lf,%lf\n", &epoch, &time, &loss, &top1, &top5, &val, &rate);
        assert_int_equal(read, 7);
        const RetracedEpoch *want = &t->epoch[e];
        assert_int_equal(epoch, e + 1);
        expect_near("training loss of epoch", epoch, loss, want->train_loss, 2e-4);
        expect_near("top-1 of epoch", epoch, top1, want->top1, want->unsure1 + 1e-6);
        expect_near("top-5 of epoch", epoch, top5, want->top5, want->unsure5 + 1e-6);
        expect_near("validation loss of epoch", epoch, val, want->val_loss, 5e-4 * want->val_loss);
        expect_near("last learning rate of epoch", epoch, rate, want->lr, 1e-6 * want->lr);
    }
    assert_int_equal(*row, '\0');
}

/* A line a step. */
static void expect_metrics(const Retraced *t, const char *run) {
    static char text[1 << 16];
    read_text(text, sizeof text, file_of(run, "metrics.jsonl"));
    const char *line = text;
    const int steps = (int)t->steps;
    for (int s = 0; s < t->recipe.epochs * steps; s++, line = strchr(line, '\n') + 1) {
        cJSON *json = json_line(line);
        assert_int_equal((int)number_of(json, "step"), s + 1);
        assert_int_equal((int)number_of(json, "epoch"), s / steps + 1);
        expect_near("loss of step", s, number_of(json, "train/loss"), t->loss[s], 1e-3 * t->loss[s]);
        expect_near("gradient norm of step", s, number_of(json, "train/grad_norm"), t->norm[s], 5e-3 * t->norm[s]);
        expect_near("learning rate of step", s, number_of(json, "lr/pg0"), t->rate[s], 1e-6 * t->rate[s]);
        cJSON_Delete(json);
    }
    assert_int_equal(*line, '\0');
}

/* A file's metadata of that name. */
static void expect_metadata(const char *path, const char *key, const char *part) {
    TensorFile f;
    Err err = {0};
    if (!tensor_file_open(&f, path, NULL, &err)) fail_msg("%s", err.text);
    const char *text = tensor_file_metadata(&f, key);
    if (!text || !strstr(text, part)) fail_msg("%s: %s is %s, without %s", path, key, text ? text : "not there", part);
    tensor_file_close(&f);
}

/* What a file's metadata say of its weights. */
static void expect_figures(const Retraced *t, int epoch, const char *path) {
    TensorFile f;
    Err err = {0};
    if (!tensor_file_open(&f, path, NULL, &err)) fail_msg("%s", err.text);
    cJSON *json = cJSON_Parse(tensor_file_metadata(&f, "mala.metrics"));
    const RetracedEpoch *e = &t->epoch[epoch];
    expect_near("images of epoch", epoch + 1, number_of(json, "images"), (double)t->val.count, 0);
    expect_near("top-1 in the file of epoch", epoch + 1, number_of(json, "top1"), e->top1, e->unsure1 + 1e-6);
    expect_near("top-5 in the file of epoch", epoch + 1, number_of(json, "top5"), e->top5, e->unsure5 + 1e-6);
    expect_near("loss in the file of epoch", epoch + 1, number_of(json, "loss"), e->val_loss, 5e-4 * e->val_loss);
    cJSON_Delete(json);
    tensor_file_close(&f);
}

/* What the program says at its end, and the weights that it kept. */
static void expect_kept(const Retraced *t, int best, const char *run) {
    const int last = t->recipe.epochs - 1;
    cJSON *json = json_line(output);
    assert_int_equal((int)number_of(json, "best_epoch"), best + 1);
    assert_int_equal((int)number_of(json, "epochs"), last + 1);
    expect_near("best top-1 of epoch", best + 1, number_of(json, "best_top1"), t->epoch[best].top1, 1e-6);
    expect_near("top-1 of epoch", last + 1, number_of(json, "top1"), t->epoch[last].top1, 1e-6);
    const double loss = t->epoch[last].val_loss;
    expect_near("loss of epoch", last + 1, number_of(json, "loss"), loss, 5e-4 * loss);
    cJSON_Delete(json);
    expect_figures(t, best, file_of(run, "weights/best.safetensors"));
    expect_figures(t, last, file_of(run, "weights/last.safetensors"));
    expect_metadata(file_of(run, "weights/best.safetensors"), "mala.ema", t->recipe.ema_decay ? "true" : "false");
    expect_retraced(t, best, file_of(run, "weights/best.safetensors"));
    expect_retraced(t, last, file_of(run, "weights/last.safetensors"));
}

/* Of the last run that was compared. */
static int best_epoch;
static double best_top1, last_top1;

static void retrace_and_compare(const Recipe *r, const char *name) {
    static Retraced t;
    const int best = retrace(&t, r, &backend);
    run_program(r, name);
    expect_results(&t, name);
    expect_metrics(&t, name);
    expect_kept(&t, best, name);
    best_epoch = best + 1, best_top1 = t.epoch[best].top1, last_top1 = t.epoch[r->epochs - 1].top1;
    retrace_free(&t);
}

/* Seed, order, learning rate scaled by the batch, warm-up, cosine, decay, clipping, smoothing, dropped paths. */
static void test_every_step_is_the_recipes(void **state) {
    (void)state;
    Recipe r = recipe();
    retrace_and_compare(&r, "weights");
    /* the same in words */
    EXPECT(0, "train --config $T/weights/config.json output=$T/text");
    char part[80];
    snprintf(part, sizeof part, "/text: best top-1 %.2f %% (epoch %d of 6) in ", 100 * best_top1, best_epoch);
    expect_text(output, part);
    assert_true(best_top1 > last_top1);
}

/* How training pictures are cut: the parts that are drawn, the filter, or nothing drawn at all. */
static void test_pictures_are_cut_as_the_recipe_says(void **state) {
    (void)state;
    Recipe r = recipe();
    r.epochs = 3, r.stop = 15, r.lr = 1e-2, r.bilinear = true, r.flip = 0.75;
    r.scale[0] = 0.3, r.scale[1] = 0.7, r.ratio[0] = 0.6, r.ratio[1] = 1.2;
    retrace_and_compare(&r, "random");
    r.scale[1] = 0, r.pad = 0, r.flip = 0;
    retrace_and_compare(&r, "none");
}

/* With an average it is the average that is judged, and kept, from its start at the first weights on. */
static void test_the_average_is_judged_and_kept(void **state) {
    (void)state;
    Recipe r = recipe();
    r.ema_decay = 0.75, r.clip = 0, r.lr_base = 0, r.lr = 1e-2, r.seed = 5000000012;
    retrace_and_compare(&r, "average");
    r.ema_ramp = true, r.warmup_epochs = 0, r.seed = 9; /* whose two best epochs are equal: the first is kept */
    retrace_and_compare(&r, "ramp");
}

/* ---- stopped ---- */

static Recipe stopped_recipe(void) {
    Recipe r = recipe();
    r.ema_decay = 0.75, r.epochs = 4, r.stop = 12; /* of 20, in the third epoch */
    return r;
}

/* Runs it with a signal sent when a row of a file is written. */
static void run_stopped(const Recipe *r, const char *name, const char *file, int signal, int row, int code) {
    char settings[1400], arguments[1800], faults[100];
    recipe_settings(settings, sizeof settings, r);
    snprintf(arguments, sizeof arguments, "train %s output=$T/%s log.interval=1", settings, name);
    snprintf(faults, sizeof faults, "write:%s:-%d:%d:1", file, signal, row);
    expect_failing(code, faults, arguments);
}

static int rows_of(const char *run, const char *name) {
    static char text[1 << 16];
    int rows = 0;
    read_text(text, sizeof text, file_of(run, name));
    for (const char *at = text; (at = strchr(at, '\n')); at++) rows++;
    return rows;
}

/* The row of step 11 is written while step 12 is computed, after which the run stops: in the middle of its third epoch,
 * which is neither judged nor written down. The average as it is then is saved. */
static void test_a_stop_saves_the_step_in_hand(void **state) {
    (void)state;
    static Retraced t;
    const Recipe r = stopped_recipe();
    (void)retrace(&t, &r, &backend);
    static const int signals[] = {SIGTERM, SIGINT, SIGUSR1, SIGHUP};
    for (int i = 0; i < 4; i++) {
        char name[16], text[64];
        snprintf(name, sizeof name, "stop%d", i);
        run_stopped(&r, name, "metrics.jsonl", signals[i], 10, 75);
        snprintf(text, sizeof text, "stopped by signal %d at step 12 - ", signals[i]);
        expect_text(errors, text);
        assert_null(strstr(output, "best top-1"));
        assert_int_equal(rows_of(name, "results.csv"), 1 + 2);
        assert_int_equal(rows_of(name, "metrics.jsonl"), 12);
        expect_retraced_stop(&t, file_of(name, "weights/last.safetensors"));
        expect_metadata(file_of(name, "weights/last.safetensors"), "mala.ema", "true");
    }
    retrace_free(&t);
}

/* A signal while an epoch's row is written: what that epoch left stays, with its figures, and no other one begins. In
 * the last epoch there is nothing left to stop. */
static void test_a_stop_between_epochs(void **state) {
    (void)state;
    static Retraced t;
    const Recipe r = stopped_recipe();
    (void)retrace(&t, &r, &backend);
    run_stopped(&r, "between", "results.csv", SIGTERM, 2, 75);
    expect_text(errors, " at step 10 - ");
    assert_int_equal(rows_of("between", "results.csv"), 1 + 2);
    assert_int_equal(rows_of("between", "metrics.jsonl"), 10);
    expect_retraced(&t, 1, file_of("between", "weights/last.safetensors"));
    expect_metadata(file_of("between", "weights/last.safetensors"), "mala.metrics", "\"top1\":");
    run_stopped(&r, "done", "results.csv", SIGTERM, 4, 0);
    assert_int_equal(rows_of("done", "results.csv"), 1 + 4);
    expect_text(output, "best top-1");
    retrace_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_step_is_the_recipes), cmocka_unit_test(test_pictures_are_cut_as_the_recipe_says),
        cmocka_unit_test(test_the_average_is_judged_and_kept), cmocka_unit_test(test_a_stop_saves_the_step_in_hand),
        cmocka_unit_test(test_a_stop_between_epochs)};
    return cmocka_run_group_tests_name("retrace", tests, make_data, remove_data);
}
