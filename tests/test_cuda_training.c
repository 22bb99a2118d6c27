/* test_cuda_training.c - whole training runs on the emulated device, in float32 and in half precision with scaled
 * losses, beside the same runs done by a second hand (retrace.h). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/trainer.h"
#include "colours.h"
#include "program.h"
#include "retrace.h"

static char pictures[200];

static int make_data(void **state) {
    (void)state;
    folder_make();
    snprintf(pictures, sizeof pictures, "%s/pictures", folder);
    colours_make(pictures, 2, 1);
    return 0;
}

static int remove_data(void **state) {
    (void)state;
    folder_remove();
    return 0;
}

static Recipe recipe(void) {
    return (Recipe){.data = pictures, .seed = 3, .batch = 4, .epochs = 3, .pad = 2, .warmup_epochs = 1, .flip = 0.25,
                    .crop_pct = 0.8, .lr = 1e-2, .warmup_lr = 4e-3, .min_lr = 2e-3, .decay = 0.3, .beta1 = 0.8,
                    .beta2 = 0.96, .eps = 1e-2, .clip = 0.5, .smoothing = 0.1, .drop_path = 0.1, .layer_scale = 0.5,
                    .ema_decay = 0.5, .stop = 12};
}

/* The settings one by one, as a shell would hand them over. */
static int split(char *text, char *out[64]) {
    int count = 0;
    for (char *part = strtok(text, " "); part; part = strtok(NULL, " ")) {
        size_t n = strlen(part);
        if (*part == '\'') part[n - 1] = '\0', part++;
        out[count++] = part;
    }
    return count;
}

static void run(const Recipe *r, const char *precision, const char *name) {
    char text[2000], *overrides[64];
    Err err = {0};
    Config c;
    TrainResult result;
    Log log;
    FILE *nowhere = fopen("/dev/null", "w");
    log_init(&log, nowhere, LOG_INFO, COLOR_NEVER);
    recipe_settings(text, 1400, r);
    snprintf(text + strlen(text), sizeof text - strlen(text), "device=cuda train.precision=%s output=%s/%s log.interval=1",
             precision, folder, name);
    int count = split(text, overrides);
    if (!config_load(&c, NULL, overrides, count, &err) || !train(&result, &c, 0, NULL, false, &log, &err))
        fail_msg("%s", err.text);
    free(result.run);
    log_close(&log);
    fclose(nowhere);
    config_free(&c);
}

static void check(const char *precision, DType compute) {
    static Retraced t;
    static char text[1 << 14];
    char path[300];
    Err err = {0};
    Backend backend;
    Recipe r = recipe();
    if (compute == DT_F16) r.eps = 1e-1; /* not so small that a rounding of halves in a faint gradient is a step */
    run(&r, precision, precision); /* first: the emulation has two devices at a time, and a run takes them */
    if (!backend_open_cuda(&backend, 0, &err)) fail_msg("%s", err.text);
    backend.compute = compute;
    (void)retrace(&t, &r, &backend);
    snprintf(path, sizeof path, "%s/%s/weights/last.safetensors", folder, precision);
    expect_retraced(&t, r.epochs - 1, path);
    snprintf(path, sizeof path, "%s/%s/metrics.jsonl", folder, precision);
    read_text(text, sizeof text, path);
    const char *line = text;
    int skipped = 0;
    for (int s = 0; s < 12; s++, line = strchr(line, '\n') + 1) {
        cJSON *json = json_line(line);
        assert_float_equal(number_of(json, "train/loss"), t.loss[s], 1e-3 * t.loss[s]);
        if (isfinite(t.norm[s]))
            assert_float_equal(number_of(json, "train/grad_norm"), t.norm[s], 1e-2 * t.norm[s]);
        else
            assert_true(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(json, "train/grad_norm")));
        skipped += !isfinite(t.norm[s]);
        if (s == 11 && compute == DT_F16) assert_true(number_of(json, "train/loss_scale") == t.scale.scale);
        cJSON_Delete(json);
    }
    assert_true(compute == DT_F16 ? skipped > 0 && skipped < 6 && t.scale.scale < 65536 : skipped == 0);
    retrace_free(&t);
    backend.close(&backend);
}

static void test_float32_on_the_device(void **state) {
    (void)state;
    check("float32", DT_F32);
}

/* Gradients come scaled by 65536, and updates divide by it: weights, norms and clipping are those of the recipe. Where a
 * gradient goes beyond float16, the step is skipped and the scale halved: that happens here. */
static void test_scaled_losses_change_no_update(void **state) {
    (void)state;
    check("float16", DT_F16);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_float32_on_the_device),
                                       cmocka_unit_test(test_scaled_losses_change_no_update)};
    return cmocka_run_group_tests_name("cuda_training", tests, make_data, remove_data);
}
