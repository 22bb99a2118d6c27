/* test_task.c - the numbers of a classification task, beside ones worked out by hand: metrics and ranks, learning
 * rates, what an update is told, when a run is given up. What it does: test_update.c. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/health.h"
#include "lib/config.h"
#include "task/classify.h"

static Err err;

#define OK(call) \
    do { \
        if (!(call)) fail_msg("%s: %s", #call, err.text); \
    } while (0)

static void expect_near(const char *what, int64_t number, double got, double want, double tolerance) {
    if (!(fabs(got - want) <= tolerance)) fail_msg("%s %lld: %.9g instead of %.9g", what, (long long)number, got, want);
}

/* ---- metrics ---- */

/* Six answers among seven classes. Of equal scores the lower class comes first. */
static void test_metrics_of_six_rows_with_ties(void **state) {
    (void)state;
    enum { K = 7 };
    const float logits[6][K] = {{0, 0, 0, 0, 0, 0, 0},         /* 0: first of seven equal ones */
                                {0, 0, 0, 0, 0, 0, 0},         /* 4: the fifth of them, just among five */
                                {0, 0, 0, 0, 0, 0, 0},         /* 5: the sixth, just not */
                                {3, 9, 9, 1, 2, 9, 0},         /* 2: second, behind class 1 */
                                {1, 2, 3, 4, 5, 6, 7},         /* 6: best */
                                {-1, -2, -3, -4, -5, -6, -7}}; /* 6: last */
    const int32_t labels[6] = {0, 4, 5, 2, 6, 6};
    ClassifyMetrics m;
    classify_metrics_init(&m, K);
    classify_metrics_add(&m, &logits[0][0], labels, 4); /* in two parts, as batches come */
    classify_metrics_add(&m, &logits[4][0], labels + 4, 2);
    assert_int_equal(m.images, 6);
    assert_int_equal(m.top1, 2);
    assert_int_equal(m.top5, 4);
    assert_int_equal(m.not_finite, 0);
    const int64_t images[K] = {1, 0, 1, 0, 1, 1, 2}, top1[K] = {1, 0, 0, 0, 0, 0, 1};
    for (int k = 0; k < K; k++) {
        assert_int_equal(m.class_images[k], images[k]);
        assert_int_equal(m.class_top1[k], top1[k]);
    }
    const double steps = 1 + exp(-1) + exp(-2) + exp(-3) + exp(-4) + exp(-5) + exp(-6),
                 fourth = log(3 * exp(9) + exp(3) + exp(2) + exp(1) + 1) - 9;
    expect_near("loss of row", 6, m.loss, 3 * log(7) + fourth + log(steps) + log(steps) + 6, 1e-5);
    classify_metrics_free(&m);
    for (int k = 4; k < 8; k++) assert_int_equal(classify_has_top5(k), k > 5);
}

/* Scores far from zero: a loss by exp alone would be infinite. */
static void test_loss_of_large_scores(void **state) {
    (void)state;
    const float logits[3][2] = {{1000, 998}, {-1000, -999}, {2000, 0}};
    const int32_t labels[3] = {1, 0, 1};
    ClassifyMetrics m;
    classify_metrics_init(&m, 2);
    classify_metrics_add(&m, &logits[0][0], labels, 3);
    expect_near("loss of rows", 3, m.loss, log(1 + exp(-2)) + 2 + log(1 + exp(-1)) + 1 + 2000, 1e-9);
    classify_metrics_free(&m);
    static const float largest[2] = {3e38f, 3e38f}, lowest[2] = {-3e38f, -3e38f}; /* a logarithm is lost beside them */
    classify_metrics_init(&m, 2);
    classify_metrics_add(&m, largest, labels, 1);
    classify_metrics_add(&m, lowest, labels, 1);
    expect_near("loss of rows", 2, m.loss, 2 * log(2), 1e-9);
    classify_metrics_free(&m);
}

static void expect_top(const float *scores, int classes, int k, const int32_t *want) {
    int32_t top[9];
    for (int i = 0; i < 9; i++) top[i] = -7;
    classify_top(top, scores, classes, k);
    for (int i = 0; i < 9; i++)
        if (top[i] != (i < MIN(k, classes) ? want[i] : -7)) fail_msg("place %d of %d is class %d", i + 1, k, top[i]);
}

static void test_best_classes_and_their_ties(void **state) {
    (void)state;
    const float equal[5] = {2, 2, 2, 2, 2}, mixed[6] = {1, 5, 3, 5, 3, 9}, rising[4] = {1, 2, 3, 4};
    expect_top(equal, 5, 5, (int32_t[]){0, 1, 2, 3, 4});
    expect_top(equal, 5, 8, (int32_t[]){0, 1, 2, 3, 4});
    expect_top(equal, 5, 2, (int32_t[]){0, 1});
    expect_top(mixed, 6, 6, (int32_t[]){5, 1, 3, 2, 4, 0});
    expect_top(mixed, 6, 4, (int32_t[]){5, 1, 3, 2});
    expect_top(mixed, 6, 1, (int32_t[]){5});
    expect_top(rising, 4, 3, (int32_t[]){3, 2, 1});
}

static void test_numbers_that_are_finite(void **state) {
    (void)state;
    const float bad[] = {0, -INFINITY, INFINITY, NAN};
    assert_true(classify_finite(bad, 1) && classify_finite(bad, 0));
    for (int i = 1; i < 4; i++) {
        float row[3] = {1, 2, bad[i]};
        assert_false(classify_finite(row, 3));
        assert_true(classify_finite(row, 2));
    }
}

/* ---- learning rates ---- */

/* 4 steps of warm-up of 20: linear, so step 0 has the first rate and step 4 the peak; the middle of the cosine, step
 * 12, has the mean of peak and least; the end, and what comes after it, the least. */
static void test_learning_rate_of_every_part(void **state) {
    (void)state;
    const OptimizerConfig c = {.lr = 1, .warmup_lr = 0.2f, .min_lr = 0.1f, .warmup_steps = 4, .total_steps = 20};
    const struct {
        int64_t step;
        double rate;
    } points[] = {{0, 0.2},
                  {1, 0.4},
                  {3, 0.8},
                  {4, 1},
                  {8, 0.55 + 0.45 * sqrt(0.5)},
                  {12, 0.55},
                  {16, 0.55 - 0.45 * sqrt(0.5)},
                  {20, 0.1},
                  {21, 0.1},
                  {1000, 0.1}};
    for (size_t i = 0; i < COUNTOF(points); i++)
        expect_near("rate of step", points[i].step, optimizer_lr(&c, points[i].step), points[i].rate, 1e-6);
}

static void test_learning_rate_without_warm_up(void **state) {
    (void)state;
    const OptimizerConfig c = {.lr = 3, .warmup_lr = 0.2f, .min_lr = 1, .total_steps = 6};
    const double rates[] = {3, 2 + 0.5 * sqrt(3), 2.5, 2, 1.5, 2 - 0.5 * sqrt(3), 1};
    for (int i = 0; i < 7; i++) expect_near("rate of step", i, optimizer_lr(&c, i), rates[i], 1e-6);
}

/* A warm-up that fills the run, or is longer, ends at the peak and stays there. */
static void test_learning_rate_of_warm_up_alone(void **state) {
    (void)state;
    const OptimizerConfig c = {.lr = 2, .warmup_lr = 1, .min_lr = 0.5f, .warmup_steps = 4, .total_steps = 4};
    const double rates[] = {1, 1.25, 1.5, 1.75, 2, 2};
    for (int i = 0; i < 6; i++) expect_near("rate of step", i, optimizer_lr(&c, i), rates[i], 1e-6);
}

/* What a config asks for, at this batch: what is auto, what does not fit, and what is given. */
static void test_rates_that_a_config_asks_for(void **state) {
    (void)state;
    static const struct {
        const char *given[6];
        int batch;
        double peak, warmup, least, epochs;
    } cases[] = {{{"optim.lr=1e-3", "optim.lr_base_size=256", "sched.epochs=300"}, 64, 2.5e-4, 1e-6, 1e-5, 5},
                 {{"optim.lr=1e-3", "optim.lr_base_size=256", "sched.epochs=20"}, 512, 2e-3, 1e-6, 1e-5, 2},
                 {{"optim.lr=1e-5", "optim.lr_base_size=0", "sched.epochs=300"}, 512, 1e-5, 1e-7, 1e-6, 5},
                 {{"optim.lr=1e-3", "optim.lr_base_size=0", "sched.warmup_lr=2e-4", "sched.min_lr=3e-4",
                   "sched.warmup_epochs=7", "sched.epochs=8"},
                  9,
                  1e-3,
                  2e-4,
                  3e-4,
                  7},
                 {{"optim.lr=1e-3", "optim.lr_base_size=0", "sched.warmup_lr=2e-3", "sched.min_lr=3e-3",
                   "sched.warmup_epochs=8", "sched.epochs=8"},
                  9,
                  1e-3,
                  1e-6,
                  1e-5,
                  0.8},
                 {{"optim.lr=1e-3", "optim.lr_base_size=0", "sched.warmup_lr=1e-3", "sched.min_lr=1e-3",
                   "sched.warmup_epochs=0"},
                  9,
                  1e-3,
                  1e-3,
                  1e-3,
                  0}};
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        Config c;
        int given = 0;
        while (given < 6 && cases[i].given[given]) given++;
        OK(config_load(&c, NULL, (char *const *)cases[i].given, given, &err));
        const Schedule s = config_schedule(&c, cases[i].batch, NULL);
        expect_near("peak of case", (int64_t)i, s.peak_lr, cases[i].peak, 1e-12);
        expect_near("first rate of case", (int64_t)i, s.warmup_lr, cases[i].warmup, 1e-12);
        expect_near("least rate of case", (int64_t)i, s.min_lr, cases[i].least, 1e-12);
        expect_near("warm-up of case", (int64_t)i, s.warmup_epochs, cases[i].epochs, 1e-12);
        config_free(&c);
    }
}

static void test_what_an_update_is_told(void **state) {
    (void)state;
    OptimizerConfig c = {.lr = 0.5f,
                         .weight_decay = 0.25f,
                         .beta1 = 0.5f,
                         .beta2 = 0.75f,
                         .eps = 0.125f,
                         .clip = 3,
                         .ema_decay = 0.6f,
                         .min_lr = 0.5f,
                         .total_steps = 100};
    float h[HYPER_COUNT];
    for (int64_t step = 0; step < 3; step++) {
        memset(h, 0x7f, sizeof h);
        optimizer_hyper(&c, step, h);
        const float want[HYPER_COUNT] = {[HYPER_LR] = 0.5f,
                                         [HYPER_WEIGHT_DECAY] = 0.25f,
                                         [HYPER_BETA1] = 0.5f,
                                         [HYPER_BETA2] = 0.75f,
                                         [HYPER_EPS] = 0.125f,
                                         [HYPER_CLIP] = 3,
                                         [HYPER_EMA_DECAY] = 0.6f,
                                         [HYPER_INV_SCALE] = 1,
                                         [HYPER_CORRECTION1] = (float[]){0.5f, 0.75f, 0.875f}[step],
                                         [HYPER_CORRECTION2] = (float[]){0.25f, 0.4375f, 0.578125f}[step]};
        for (int i = 0; i < HYPER_COUNT; i++) expect_near("number", i, h[i], want[i], 0);
    }
    c.ema_ramp = true;
    const struct {
        int64_t step;
        double decay;
    } ramp[] = {{0, 0.1}, {2, 0.25}, {5, 0.4}, {12, 13.0 / 22}, {13, 0.6}, {1000, 0.6}};
    for (size_t i = 0; i < COUNTOF(ramp); i++) {
        optimizer_hyper(&c, ramp[i].step, h);
        expect_near("decay of the average at step", ramp[i].step, h[HYPER_EMA_DECAY], ramp[i].decay, 1e-7);
    }
}

/* ---- when a run is given up ---- */

static void test_scales_of_losses(void **state) {
    (void)state;
    assert_true(LOSS_SCALE_FIRST == 65536 && LOSS_SCALE_LEAST == 1 && LOSS_SCALE_MOST == 4294967296.0f);
    LossScale s = {4, 0};
    for (int i = 0; i < 2000; i++) {
        assert_true(s.scale == 4);
        loss_scale_update(&s, 4, true);
    }
    assert_true(s.scale == 8 && s.good == 0);
    loss_scale_update(&s, 8, true);
    loss_scale_update(&s, 8, false); /* good ones before count no more */
    assert_true(s.scale == 4 && s.good == 0);
}

static bool bad_step(Health *h, int64_t step, float used) { return health_step(h, step, used, NAN, NAN, NULL, &err); }

/* 20 bad steps in a row; one that counts begins the count anew. */
static void test_twenty_bad_steps_in_a_row_end_a_run(void **state) {
    (void)state;
    Health h = {.scale = {1, 0}};
    int64_t step = 0;
    for (int i = 0; i < 19; i++) assert_true(bad_step(&h, step++, 1));
    assert_true(health_step(&h, step++, 1, 2.5f, 1, NULL, &err));
    for (int i = 0; i < 19; i++) assert_true(bad_step(&h, step++, 1));
    assert_false(bad_step(&h, step, 1));
    assert_int_equal(err.code, EXIT_HEALTH);
    assert_non_null(strstr(err.text, "20 steps in a row"));
    h = (Health){.scale = {1, 0}}; /* the scale is for float16 alone */
    for (int i = 0; i <= LOSS_SCALE_PATIENCE; i++) assert_true(health_step(&h, i, 1, 1, 1, NULL, &err));
    assert_true(h.scale.scale == 1);
}

/* Either number tells; a loss that is finite with a gradient that is not counts as bad, too, where nothing is scaled.
 */
static void test_what_a_bad_step_is(void **state) {
    (void)state;
    const float outcomes[][2] = {{NAN, 1}, {1, NAN}, {INFINITY, 1}, {1, INFINITY}, {1, -INFINITY}};
    for (size_t i = 0; i < COUNTOF(outcomes); i++) {
        Health h = {.scale = {1, 0}};
        assert_true(health_step(&h, 0, 1, outcomes[i][0], outcomes[i][1], NULL, &err));
        assert_int_equal(h.bad_steps, 1);
    }
}

/* With float16 a gradient that goes too far halves the scale and is no bad step, until the scale is the least one; a
 * loss that is no number is always bad. */
static void test_scaled_losses_may_go_too_far(void **state) {
    (void)state;
    Health h = {.scaled = true, .scale = {8, 0}};
    for (float scale = 8; scale > 1; scale /= 2) {
        assert_true(health_step(&h, 0, scale, 1, INFINITY, NULL, &err));
        assert_true(h.scale.scale == scale / 2);
        assert_int_equal(h.bad_steps, 0);
    }
    for (int i = 0; i < 19; i++) assert_true(health_step(&h, 0, 1, 1, INFINITY, NULL, &err));
    assert_false(health_step(&h, 0, 1, 1, INFINITY, NULL, &err));
    Health loss = {.scaled = true, .scale = {8, 0}};
    assert_true(bad_step(&loss, 0, 8));
    assert_int_equal(loss.bad_steps, 1);
    assert_true(loss.scale.scale == 4);
    assert_true(health_step(&loss, 1, 4, 1, 1, NULL, &err));
    assert_int_equal(loss.scale.good, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metrics_of_six_rows_with_ties),
        cmocka_unit_test(test_loss_of_large_scores),
        cmocka_unit_test(test_best_classes_and_their_ties),
        cmocka_unit_test(test_numbers_that_are_finite),
        cmocka_unit_test(test_learning_rate_of_every_part),
        cmocka_unit_test(test_learning_rate_without_warm_up),
        cmocka_unit_test(test_learning_rate_of_warm_up_alone),
        cmocka_unit_test(test_rates_that_a_config_asks_for),
        cmocka_unit_test(test_what_an_update_is_told),
        cmocka_unit_test(test_twenty_bad_steps_in_a_row_end_a_run),
        cmocka_unit_test(test_what_a_bad_step_is),
        cmocka_unit_test(test_scales_of_losses),
        cmocka_unit_test(test_scaled_losses_may_go_too_far),
    };
    return cmocka_run_group_tests_name("task", tests, NULL, NULL);
}
