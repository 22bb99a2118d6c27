/* test_draws.c - what is drawn, as distributions: orders, cuttings, mirroring, filters, dropped paths and initial
 * weights. Streams are fixed, so that every count here is the same on every run; the limits are wide enough for any
 * other stream (4.5 deviations), and far closer than what another distribution would give. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "data/loader.h"
#include "distribution.h"
#include "run/plan.h"
#include "scratch.h"

static Err err;

#define OK(call) \
    do { \
        if (!(call)) fail_msg("%s: %s", #call, err.text); \
    } while (0)

/* ---- the generator ---- */

/* Salmon et al.'s known answers for Philox4x32-10 */
static void test_philox_is_the_published_one(void **state) {
    (void)state;
    static const struct {
        uint32_t key[2], counter[4], out[4];
    } known[] = {
        {{0, 0}, {0, 0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u}, {~0u, ~0u, ~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0xa4093822, 0x299f31d0},
         {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < COUNTOF(known); i++) {
        uint32_t out[4];
        philox4x32(known[i].key, known[i].counter, out);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
}

/* Every number that names a stream matters, in both halves where it has two, and a stream never repeats itself. */
static void test_every_stream_differs(void **state) {
    (void)state;
    const Rng streams[] = {
        rng_make(1, RNG_TEST, 1, 1),  rng_make(2, RNG_TEST, 1, 1),          rng_make(1 | 1ull << 32, RNG_TEST, 1, 1),
        rng_make(1, RNG_ORDER, 1, 1), rng_make(1, RNG_AUGMENT, 1, 1),       rng_make(1, RNG_INIT, 1, 1),
        rng_make(1, RNG_TEST, 2, 1),  rng_make(1, RNG_TEST, 1 | 1ull << 32, 1), rng_make(1, RNG_TEST, 1, 2),
        rng_make(1, RNG_TEST, 1 | 1ull << 55, 1),
    };
    enum { DRAWS = 64 };
    uint32_t all[COUNTOF(streams) * DRAWS];
    for (size_t s = 0; s < COUNTOF(streams); s++) {
        Rng r = streams[s];
        for (int i = 0; i < DRAWS; i++) all[s * DRAWS + (size_t)i] = rng_u32(&r);
    }
    for (size_t i = 0; i < COUNTOF(all); i++) /* 2^-14 that two of 640 words meet by chance: these do not */
        for (size_t j = 0; j < i; j++) assert_int_not_equal(all[i], all[j]);
}

static void test_numbers_below_are_even(void **state) {
    (void)state;
    static const uint32_t below[] = {1, 2, 3, 7, 100};
    Rng r = rng_make(3, RNG_TEST, 0, 0);
    for (size_t k = 0; k < COUNTOF(below); k++) {
        int met[100] = {0};
        for (int i = 0; i < 20000; i++) {
            uint32_t x = rng_below(&r, below[k]);
            assert_true(x < below[k]);
            met[x]++;
        }
        for (uint32_t x = 0; below[k] > 1 && x < below[k]; x++) expect_share(met[x], 20000, 1.0 / below[k], "below");
    }
    /* of a word's upper 24 bits, so that the largest does not round to 1 */
    assert_true(rng_unit(0xffffffff) == 1 - 0x1p-24f && rng_unit(0x80000000) == 0.5f && rng_unit(0x80000080) == 0.5f);
    assert_true(rng_unit(0xff) == 0 && rng_unit(0x100) == 0x1p-24f);
    Histogram h = {0};
    for (int i = 0; i < 20000; i++) {
        float x = rng_uniform(&r);
        assert_true(x >= 0 && x < 1);
        histogram_add(&h, (double)x);
    }
    expect_even(&h, "uniform");
}

/* ---- the loader's orders ---- */

enum { SIDE = 6 };

typedef struct {
    char folder[SCRATCH_PATH];
    Dataset data;
} Scene;

static void put_picture(const char *folder, int sample, int side) {
    Image image;
    uint8_t *bytes;
    size_t count;
    char name[SCRATCH_PATH + 64];
    OK(image_new(&image, side, side, &err));
    for (int i = 0; i < 3 * side * side; i++) image.pixels[i] = (uint8_t)(5 * sample + i);
    OK(image_encode_png(&bytes, &count, &image, &err));
    snprintf(name, sizeof name, "%s/train/a/%02d.png", folder, sample);
    OK(file_write_quickly(name, bytes, count, &err));
    image_free(&image);
    free(bytes);
}

static Scene scene_new(int samples) {
    Scene s;
    char folder[SCRATCH_PATH + 16];
    scratch_make(s.folder);
    snprintf(folder, sizeof folder, "%s/train/a", s.folder);
    OK(dir_make(folder, &err));
    for (int i = 0; i < samples; i++) put_picture(s.folder, i, SIDE);
    OK(dataset_open_folder(&s.data, s.folder, "train", NULL, 0, &err));
    return s;
}

static void scene_free(Scene *s) {
    dataset_close(&s->data);
    scratch_remove(s->folder);
}

static Loader *loader_of(const Scene *s, uint64_t seed, bool train, size_t keep_bytes) {
    LoaderOptions o = loader_defaults(1, SIDE, SIDE, train);
    Loader *l;
    o.seed = seed, o.keep_bytes = keep_bytes, o.max_bad = 1;
    o.on_bad = BAD_SKIP;
    OK(loader_open(&l, &o, &s->data, &err));
    return l;
}

static void epoch_order(Loader *l, uint32_t epoch, int *order) {
    loader_start_epoch(l, epoch, 0);
    const Batch *b;
    for (int i = 0;; i++) {
        OK(loader_next(l, &b, &err));
        if (!b) return;
        order[i] = (int)b->samples[0];
    }
}

/* Each of the 24 orders of four pictures comes up as often as any other. */
static void test_every_order_is_as_likely(void **state) {
    (void)state;
    enum { N = 4, ORDERS = 24, EPOCHS = 2400 };
    Scene s = scene_new(N);
    Loader *l = loader_of(&s, 7, true, 1 << 20);
    int met[256] = {0}, order[N], different = 0; /* two bits a place */
    for (uint32_t epoch = 0; epoch < EPOCHS; epoch++) {
        int name = 0;
        epoch_order(l, epoch, order);
        for (int i = 0; i < N; i++) name = 4 * name + order[i];
        met[name]++;
    }
    for (int i = 0; i < 256; i++)
        if (met[i]) expect_share(met[i], EPOCHS, 1.0 / ORDERS, "an order"), different++;
    assert_int_equal(different, ORDERS);
    loader_close(l), scene_free(&s);
}

/* No two epochs of a seed, and no two seeds, go through the pictures alike. */
static void test_epochs_and_seeds_differ_in_order(void **state) {
    (void)state;
    enum { N = 16, SEEDS = 3, EPOCHS = 20 };
    Scene s = scene_new(N);
    int order[SEEDS * EPOCHS][N];
    for (int seed = 0; seed < SEEDS; seed++) {
        Loader *l = loader_of(&s, (uint64_t)seed, true, 1 << 20);
        for (uint32_t epoch = 0; epoch < EPOCHS; epoch++) epoch_order(l, epoch, order[seed * EPOCHS + (int)epoch]);
        loader_close(l);
    }
    for (int i = 0; i < SEEDS * EPOCHS; i++)
        for (int k = 0; k < i; k++) assert_memory_not_equal(order[i], order[k], sizeof order[i]);
    scene_free(&s);
}

enum { PICTURES = 12, EACH = 3 * SIDE * SIDE + sizeof(Image) };

/* How many pictures a loader holds after an epoch: those that are still there when the files have gone. */
static int kept_after_an_epoch(const Scene *s, uint64_t seed, bool train, size_t bytes) {
    Loader *l = loader_of(s, seed, train, bytes);
    int order[PICTURES], kept = 0;
    bool met[PICTURES] = {0};
    const Batch *b = NULL;
    Err end = {0};
    epoch_order(l, 0, order);
    for (size_t i = 0; i < s->data.count; i++) {
        char path[DATASET_PATH_MAX];
        dataset_path(&s->data, i, path);
        OK(file_write_quickly(path, "gone", 4, &err));
    }
    loader_start_epoch(l, 1, 0);
    while (loader_next(l, &b, &end) && b) met[b->samples[0]] = true;
    for (int i = 0; i < PICTURES; i++) kept += met[i];
    loader_close(l);
    return kept;
}

static void test_kept_pictures_end_at_their_limit(void **state) {
    (void)state;
    static const struct {
        size_t bytes;
        int kept;
    } rows[] = {{0, 0},        {EACH - 1, 0},     {EACH, 1},
                {4 * EACH, 4}, {5 * EACH - 1, 4}, {PICTURES * EACH, PICTURES},
                {99 * EACH, PICTURES}};
    for (size_t k = 0; k < COUNTOF(rows); k++)
        for (int train = 0; train < 2; train++) {
            Scene s = scene_new(PICTURES);
            int kept = kept_after_an_epoch(&s, 1, train, rows[k].bytes);
            if (kept != rows[k].kept) fail_msg("%zu bytes keep %d pictures, not %d", rows[k].bytes, kept, rows[k].kept);
            scene_free(&s);
        }
}

/* One that is too large takes no room from those that come after it, in whatever order. */
static void test_what_is_not_kept_takes_no_room(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 4; seed++) {
        Scene s = scene_new(PICTURES);
        for (int i = 0; i < 3; i++) put_picture(s.folder, 4 * i, 5 * SIDE);
        assert_int_equal(kept_after_an_epoch(&s, seed, true, 5 * EACH), 5);
        scene_free(&s);
    }
}

/* ---- cuttings ---- */

enum { WIDTH = 255, HEIGHT = 180, OUT = 16 };

/* red says the column, green the row */
static Image ruler(void) {
    Image image;
    OK(image_new(&image, WIDTH, HEIGHT, &err));
    for (int i = 0; i < WIDTH * HEIGHT; i++) {
        image.pixels[3 * i] = (uint8_t)(i % WIDTH);
        image.pixels[3 * i + 1] = (uint8_t)(i / WIDTH);
        image.pixels[3 * i + 2] = 0;
    }
    return image;
}

typedef struct {
    double x, y, width, height;
    bool flipped;
} Cutting;

/* What was cut, read off the result: ramps stay ramps inside, two pixels from the border. */
static Cutting measure(const uint8_t *out) {
    enum { FIRST = 2, LAST = OUT - 1 - FIRST };
    double left = 0, right = 0, top = 0, bottom = 0;
    for (int i = FIRST; i <= LAST; i++) {
        left += out[3 * (i * OUT + FIRST)], right += out[3 * (i * OUT + LAST)];
        top += out[3 * (FIRST * OUT + i) + 1], bottom += out[3 * (LAST * OUT + i) + 1];
    }
    const double lines = LAST - FIRST + 1, apart = (double)(LAST - FIRST) / OUT;
    Cutting c = {.flipped = left > right, .width = fabs(right - left) / lines / apart,
                 .height = (bottom - top) / lines / apart};
    c.x = (left + right) / lines / 2 + 0.5 - c.width / 2;
    c.y = (top + bottom) / lines / 2 + 0.5 - c.height / 2;
    return c;
}

/* Areas and places are even, ratios even in their logarithm, whatever the others are. */
static void test_cuttings_are_drawn_evenly(void **state) {
    (void)state;
    enum { DRAWS = 3000 };
    Image image = ruler();
    Resizer r = {0};
    TrainTransform t = train_transform_defaults(OUT, OUT);
    t.filter = FILTER_BILINEAR;
    t.scale_min = 0.1, t.scale_max = 0.35; /* always fits */
    t.ratio_min = 0.5, t.ratio_max = 2, t.flip = 0.3;
    Histogram area = {0}, ratio = {0}, x = {0}, y = {0};
    int flips = 0, flips_of_left = 0, of_left = 0;
    for (int i = 0; i < DRAWS; i++) {
        uint8_t out[3 * OUT * OUT];
        Rng rng = rng_make(9, RNG_AUGMENT, (uint64_t)i, 0);
        OK(transform_train(&r, out, &image, &t, &rng, &err));
        Cutting c = measure(out);
        histogram_add(&area, (c.width * c.height / (WIDTH * HEIGHT) - 0.1) / 0.25);
        histogram_add(&ratio, log(c.width / c.height / 0.5) / log(4));
        if (WIDTH - c.width > 40) histogram_add(&x, c.x / (WIDTH - c.width));
        if (HEIGHT - c.height > 40) histogram_add(&y, c.y / (HEIGHT - c.height));
        flips += c.flipped;
        bool left = c.x < (WIDTH - c.width) / 2;
        of_left += left, flips_of_left += left && c.flipped;
    }
    expect_even(&area, "area");
    expect_even(&ratio, "logarithm of the ratio");
    expect_even(&x, "column"), expect_even(&y, "row");
    expect_share(flips, DRAWS, 0.3, "mirrored");
    expect_share(flips_of_left, of_left, 0.3, "mirrored of those on the left");
    image_free(&image), resizer_free(&r);
}

/* A ratio of 4 fits where w = sqrt(4 * area) rounds to at most the width. Of ten tries as many fail as come of that,
 * and what is cut then is the widest of that ratio, in the centre: 255 / 4 = 63.75 rows, 64, below the first 58. */
static void test_ten_tries_come_before_the_widest_cutting(void **state) {
    (void)state;
    enum { DRAWS = 10000 };
    Image image = ruler();
    Resizer r = {0};
    TrainTransform t = {.width = OUT, .height = OUT, .scale_min = 0.2, .scale_max = 1, .ratio_min = 4, .ratio_max = 4,
                        .filter = FILTER_BILINEAR};
    double largest = (WIDTH + 0.5) * (WIDTH + 0.5) / 4 / (WIDTH * HEIGHT), fits = (largest - 0.2) / 0.8;
    uint8_t widest[3 * OUT * OUT], out[3 * OUT * OUT];
    OK(resize(&r, widest, &image, (Box){0, 58, WIDTH, 64}, OUT, OUT, (Box){0, 0, OUT, OUT}, t.filter, &err));
    int met = 0;
    for (int i = 0; i < DRAWS; i++) {
        Rng rng = rng_make(7, RNG_AUGMENT, (uint64_t)i, 0);
        OK(transform_train(&r, out, &image, &t, &rng, &err));
        met += memcmp(out, widest, sizeof out) == 0;
    }
    expect_share(met, DRAWS, pow(1 - fits, 10), "the widest");
    image_free(&image), resizer_free(&r);
}

/* The released recipe: its numbers, and that cuttings keep to them. */
static void test_default_cuttings(void **state) {
    (void)state;
    enum { DRAWS = 1000 };
    TrainTransform t = train_transform_defaults(OUT, OUT);
    assert_true(t.width == OUT && t.height == OUT && t.crop == CROP_RESIZED && t.filter == FILTER_BICUBIC);
    assert_true(t.scale_min == 0.08 && t.scale_max == 1 && t.ratio_min == 3.0 / 4 && t.ratio_max == 4.0 / 3);
    assert_true(t.flip == 0.5 && !t.random_filter);
    Image image = ruler();
    Resizer r = {0};
    int flips = 0;
    for (int i = 0; i < DRAWS; i++) {
        uint8_t out[3 * OUT * OUT];
        Rng rng = rng_make(2, RNG_AUGMENT, (uint64_t)i, 3);
        OK(transform_train(&r, out, &image, &t, &rng, &err));
        Cutting c = measure(out);
        flips += c.flipped;
        double ratio = c.width / c.height;
        assert_true(c.width * c.height > 0.07 * WIDTH * HEIGHT && ratio > 0.7 && ratio < 1.42);
    }
    expect_share(flips, DRAWS, 0.5, "mirrored");
    image_free(&image), resizer_free(&r);
}

/* Each place of a padded crop as often as any other, and each filter. */
static void test_padded_crops_are_drawn_evenly(void **state) {
    (void)state;
    enum { PAD = 2, PLACES = 2 * PAD + 1, DRAWS = 4000 };
    Image image;
    Resizer r = {0};
    OK(image_new(&image, SIDE, SIDE, &err));
    for (int i = 0; i < SIDE * SIDE; i++) image.pixels[3 * i] = (uint8_t)(i + 1);
    TrainTransform t = {.width = SIDE, .height = SIDE, .crop = CROP_PADDED, .pad = PAD};
    int met[PLACES][PLACES] = {0};
    for (int i = 0; i < DRAWS; i++) {
        uint8_t out[3 * SIDE * SIDE];
        Rng rng = rng_make(4, RNG_AUGMENT, (uint64_t)i, 0);
        OK(transform_train(&r, out, &image, &t, &rng, &err));
        int shown = out[3 * (PAD * SIDE + PAD)] - 1; /* where this pixel came from */
        met[shown / SIDE][shown % SIDE]++;
    }
    for (int i = 0; i < PLACES * PLACES; i++)
        expect_share(met[i / PLACES][i % PLACES], DRAWS, 1.0 / (PLACES * PLACES), "a place");
    image_free(&image);

    image = ruler();
    t = (TrainTransform){.width = OUT, .height = OUT, .crop = CROP_PADDED, .random_filter = true, .flip = 0};
    uint8_t want[2][3 * OUT * OUT];
    int filters[2] = {0};
    for (int k = 0; k < 2; k++) {
        EvalTransform e = {.width = OUT, .height = OUT, .crop_pct = 1, .filter = k ? FILTER_BICUBIC : FILTER_BILINEAR};
        OK(transform_eval(&r, want[k], &image, &e, &err));
    }
    assert_memory_not_equal(want[0], want[1], sizeof want[0]);
    for (int i = 0; i < 400; i++) {
        uint8_t out[3 * OUT * OUT];
        Rng rng = rng_make(5, RNG_AUGMENT, (uint64_t)i, 0);
        OK(transform_train(&r, out, &image, &t, &rng, &err));
        for (int k = 0; k < 2; k++) filters[k] += memcmp(out, want[k], sizeof out) == 0;
    }
    assert_int_equal(filters[0] + filters[1], 400);
    expect_share(filters[0], 400, 0.5, "bilinear");
    image_free(&image), resizer_free(&r);
}

/* ---- initial weights and dropped paths ---- */

enum { NUMBERS = 40000 };

static Graph *graph_of(const ParamSpec *params, int count) {
    Graph *g = graph_new();
    for (int i = 0; i < count; i++) graph_param(g, params[i]);
    return g;
}

static void read_weights(const State *s, int32_t param, float *x) {
    OK(state_read(s, s->params[param].buffer ? ROLE_BUFFER : ROLE_WEIGHT, param, x, &err));
}

/* Normal numbers of the deviation asked for, cut at +-2, which is no multiple of the deviation: at 0.02 nothing is cut,
 * and as many lie beyond two deviations as of any normal numbers; at 1 the cut shows, at 5 it is nearly even. */
static void expect_truncated_normal(const float *x, double deviation) {
    double sum = 0, squares = 0, limit = 2 / deviation, inside = erf(limit / sqrt(2));
    double density = exp(-limit * limit / 2) / sqrt(2 * acos(-1)), most = 0;
    int beyond[3] = {0}, positive = 0;
    for (int i = 0; i < NUMBERS; i++) {
        sum += (double)x[i], squares += (double)x[i] * (double)x[i], positive += x[i] > 0;
        most = fmax(most, fabs((double)x[i]));
        for (int k = 0; k < 3; k++) beyond[k] += fabs((double)x[i]) > (k + 1) * deviation / 2;
    }
    assert_true(most <= 2 && most > fmin(2, 4 * deviation) * 0.9);
    double variance = deviation * deviation * (1 - 2 * limit * density / inside), n = NUMBERS;
    assert_true(fabs(sum / n) < 4.5 * sqrt(variance / n));
    if (!(fabs(squares / n / variance - 1) < 4.5 * sqrt(2 / n)))
        fail_msg("deviation %g: %g instead of %g", deviation, sqrt(squares / n), sqrt(variance));
    expect_share(positive, NUMBERS, 0.5, "above 0");
    for (int k = 0; k < 3; k++) {
        double p = (inside - erf((k + 1) / 2.0 / sqrt(2))) / inside;
        if (p > 0)
            expect_share(beyond[k], NUMBERS, p, "beyond halves of the deviation");
        else
            assert_int_equal(beyond[k], 0);
    }
}

static void test_initial_weights_are_normal_and_cut_at_2(void **state) {
    (void)state;
    static const ParamSpec params[] = {
        {.name = "a", .shape = {1, {NUMBERS}}, .init = INIT_TRUNC_NORMAL, .init_value = 0.02f},
        {.name = "b", .shape = {1, {NUMBERS}}, .init = INIT_TRUNC_NORMAL, .init_value = 1},
        {.name = "c", .shape = {1, {NUMBERS}}, .init = INIT_TRUNC_NORMAL, .init_value = 5},
        {.name = "d", .shape = {1, {NUMBERS}}, .init = INIT_TRUNC_NORMAL, .init_value = 0.02f, .decay = true},
        {.name = "zero", .shape = {1, {3}}, .init = INIT_ZERO},
        {.name = "one", .shape = {1, {3}}, .init = INIT_ONE},
        {.name = "constant", .shape = {1, {3}}, .init = INIT_CONST, .init_value = 0.125f},
        {.name = "var", .shape = {1, {3}}, .init = INIT_ONE, .buffer = true},
    };
    static float x[4][NUMBERS], again[NUMBERS];
    Backend b;
    State s;
    Graph *g = graph_of(params, COUNTOF(params));
    OK(backend_open_cpu(&b, 1, &err));
    OK(state_new(&s, g, &b, 1u << ROLE_WEIGHT | 1u << ROLE_BUFFER, &err));
    OK(state_init(&s, 11, &err));
    for (int i = 0; i < 4; i++) read_weights(&s, i, x[i]), expect_truncated_normal(x[i], (double)params[i].init_value);
    assert_memory_not_equal(x[0], x[3], sizeof x[0]); /* a name is a stream */
    for (int i = 4; i < 8; i++) {
        read_weights(&s, i, again);
        for (int k = 0; k < 3; k++) assert_true(again[k] == (i == 4 ? 0 : i == 6 ? 0.125f : 1));
    }
    uint64_t seed = 11;
    StateSource source = state_initial_source(&seed);
    OK(source.read(source.self, &s, 0, again, &err));
    assert_memory_equal(again, x[0], sizeof again);
    OK(state_init(&s, 12, &err));
    read_weights(&s, 0, again);
    assert_memory_not_equal(again, x[0], sizeof again); /* a seed is a stream */
    state_free(&s), graph_free(g);
    b.close(&b);
}

enum { PATHS = 6, SAMPLES = 4000 };

static void drop_paths(Backend *b, uint64_t seed, uint64_t step, float keep[PATHS][SAMPLES]) {
    Graph *g = graph_new();
    Val counter = graph_input(g, "counter", DT_U64, SHAPE(2)), y = op_drop_path(g, counter, SAMPLES, 0.3f, PATHS);
    Plan *p;
    OK(plan_new(&p, g, b, NULL, &y, 1, (PlanOptions){0}, &err));
    OK(plan_upload(p, counter, (uint64_t[]){seed, step}, 16, &err));
    plan_run(p);
    OK(plan_download(p, y, keep, sizeof(float) * PATHS * SAMPLES, &err));
    plan_free(p), graph_free(g);
}

/* Two streams a block, the rate rising to 0.3 from block to block: as many samples lose the path as it says, and what
 * is left is scaled to the same mean. No stream, step or seed drops what another drops. */
static void test_paths_are_dropped_at_their_rate(void **state) {
    (void)state;
    static float first[PATHS][SAMPLES], other[2][PATHS][SAMPLES];
    Backend b;
    OK(backend_open_cpu(&b, 1, &err));
    drop_paths(&b, 1, 5, first);
    drop_paths(&b, 1, 6, other[0]), drop_paths(&b, 2, 5, other[1]);
    for (int s = 0; s < PATHS; s++) {
        float rate = 0.1f * (float)(s / 2 + 1);
        int dropped = 0;
        for (int i = 0; i < SAMPLES; i++) {
            dropped += first[s][i] == 0;
            assert_true(first[s][i] == 0 || fabsf(first[s][i] - 1 / (1 - rate)) < 1e-6f);
        }
        expect_share(dropped, SAMPLES, (double)rate, "dropped");
        for (int k = 0; k < 2; k++) assert_memory_not_equal(first[s], other[k][s], sizeof first[s]);
    }
    for (int s = 0; s < PATHS; s += 2) { /* both streams of a block: dropped together as often as by chance */
        int both = 0;
        double rate = 0.1 * (s / 2 + 1);
        for (int i = 0; i < SAMPLES; i++) both += first[s][i] == 0 && first[s + 1][i] == 0;
        expect_share(both, SAMPLES, rate * rate, "dropped in both");
    }
    b.close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox_is_the_published_one),
        cmocka_unit_test(test_every_stream_differs),
        cmocka_unit_test(test_numbers_below_are_even),
        cmocka_unit_test(test_every_order_is_as_likely),
        cmocka_unit_test(test_epochs_and_seeds_differ_in_order),
        cmocka_unit_test(test_kept_pictures_end_at_their_limit),
        cmocka_unit_test(test_what_is_not_kept_takes_no_room),
        cmocka_unit_test(test_cuttings_are_drawn_evenly),
        cmocka_unit_test(test_ten_tries_come_before_the_widest_cutting),
        cmocka_unit_test(test_default_cuttings),
        cmocka_unit_test(test_padded_crops_are_drawn_evenly),
        cmocka_unit_test(test_initial_weights_are_normal_and_cut_at_2),
        cmocka_unit_test(test_paths_are_dropped_at_their_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
