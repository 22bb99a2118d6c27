/* test_resize.c - resampling and crops: equal to Pillow's bytes, equal with and without wide vectors, windows equal to
 * the whole; what training draws depends on the stream alone. */
#include "base/file.h"
#include "data/transform.h"
#include "pack.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

static Image made_picture(int width, int height) {
    Err err = {0};
    Image image;
    assert_true(image_new(&image, width, height, &err));
    uint32_t s = (uint32_t)width * 1000003u + (uint32_t)height;
    for (size_t i = 0; i < (size_t)3 * (size_t)width * (size_t)height; i++) {
        s = s * 1664525u + 1013904223u;
        image.pixels[i] = (uint8_t)(s >> 24);
    }
    return image;
}

static Box whole(int width, int height) { return (Box){0, 0, width, height}; }

static void must_resize(Resizer *r, uint8_t *out, const Image *image, Box from, int width, int height, Box window,
                        ResizeFilter filter) {
    Err err = {0};
    assert_true(resize(r, out, image, from, width, height, window, filter, &err));
}

/* FNV-1a of what Pillow 9.4 makes of the made pictures */
static void test_pillows_bytes(void **state) {
    (void)state;
    static const struct {
        int from_width, from_height, width, height;
        ResizeFilter filter;
        uint32_t hash;
    } rows[] = {
        {97, 61, 32, 32, FILTER_BILINEAR, 0x497d6fbbu},     {97, 61, 32, 32, FILTER_BICUBIC, 0x46a1255bu},
        {97, 61, 200, 150, FILTER_BILINEAR, 0x2e2658feu},   {97, 61, 200, 150, FILTER_BICUBIC, 0x23ff02a5u},
        {640, 3, 7, 90, FILTER_BILINEAR, 0xc99611d6u},      {640, 3, 7, 90, FILTER_BICUBIC, 0x2d89c371u},
        {1, 50, 9, 9, FILTER_BILINEAR, 0x3f7422fcu},        {1, 50, 9, 9, FILTER_BICUBIC, 0x942de4dau},
        {33, 17, 33, 17, FILTER_BILINEAR, 0x3ddb127du},     {33, 17, 33, 17, FILTER_BICUBIC, 0x3ddb127du},
        {300, 200, 299, 201, FILTER_BILINEAR, 0x0986775du}, {300, 200, 299, 201, FILTER_BICUBIC, 0xfdcf8680u},
        {5, 5, 1, 1, FILTER_BILINEAR, 0x744e8a85u},         {5, 5, 1, 1, FILTER_BICUBIC, 0x901258efu},
    };
    for (int plain = 0; plain < 2; plain++) {
        Resizer r = {.plain = plain};
        for (size_t i = 0; i < COUNTOF(rows); i++) {
            Image image = made_picture(rows[i].from_width, rows[i].from_height);
            size_t bytes = (size_t)3 * (size_t)rows[i].width * (size_t)rows[i].height;
            uint8_t *out = mem_zalloc(bytes, 1);
            must_resize(&r, out, &image, whole(image.width, image.height), rows[i].width, rows[i].height,
                        whole(rows[i].width, rows[i].height), rows[i].filter);
            uint32_t hash = 0x811c9dc5u;
            for (size_t k = 0; k < bytes; k++) hash = (hash ^ out[k]) * 16777619u;
            assert_int_equal(hash, rows[i].hash);
            image_free(&image);
            free(out);
        }
        resizer_free(&r);
    }
}

/* A box is a cutting made first; a window is a part of the whole result; vectors change nothing. */
static void test_boxes_and_windows(void **state) {
    (void)state;
    Err err = {0};
    Resizer r = {0}, plain = {.plain = true};
    Rng rng = rng_make(1, RNG_TEST, 0, 0);
    for (int round = 0; round < 300; round++) {
        int w = 1 + (int)rng_below(&rng, 60), h = 1 + (int)rng_below(&rng, 60);
        int width = 1 + (int)rng_below(&rng, 70), height = 1 + (int)rng_below(&rng, 70);
        ResizeFilter filter = rng_below(&rng, 2) ? FILTER_BICUBIC : FILTER_BILINEAR;
        Image image = made_picture(w, h), cut;
        Box from = {.width = 1 + (int)rng_below(&rng, (uint32_t)w), .height = 1 + (int)rng_below(&rng, (uint32_t)h)};
        from.x = (int)rng_below(&rng, (uint32_t)(w - from.width + 1));
        from.y = (int)rng_below(&rng, (uint32_t)(h - from.height + 1));
        assert_true(image_new(&cut, from.width, from.height, &err));
        for (int y = 0; y < from.height; y++)
            memcpy(cut.pixels + 3 * y * from.width, image.pixels + 3 * ((from.y + y) * w + from.x),
                   (size_t)(3 * from.width));
        Box window = {.width = 1 + (int)rng_below(&rng, (uint32_t)width),
                      .height = 1 + (int)rng_below(&rng, (uint32_t)height)};
        window.x = (int)rng_below(&rng, (uint32_t)(width - window.width + 1));
        window.y = (int)rng_below(&rng, (uint32_t)(height - window.height + 1));

        uint8_t *all = mem_zalloc((size_t)(3 * width * height), 1);
        uint8_t *part = mem_zalloc((size_t)(3 * window.width * window.height), 1);
        must_resize(&plain, all, &cut, whole(from.width, from.height), width, height, whole(width, height), filter);
        must_resize(&r, part, &image, from, width, height, window, filter);
        for (int y = 0; y < window.height; y++)
            assert_memory_equal(part + 3 * y * window.width, all + 3 * ((window.y + y) * width + window.x),
                                (size_t)(3 * window.width));
        free(all), free(part);
        image_free(&image), image_free(&cut);
    }
    resizer_free(&r), resizer_free(&plain);
}

/* Sizes and offsets as Python's int() and round() give them. */
static void test_eval_geometry(void **state) {
    (void)state;
    static const int rows[][7] = {
        {500, 375, 224, 341, 256, 58, 16},
        {375, 500, 224, 256, 341, 16, 58},
        {301, 300, 224, 256, 256, 16, 16},
        {1, 20000, 224, 256, 5120000, 16, 2559888},
        {32, 32, 32, 36, 36, 2, 2},
        {640, 480, 384, 512, 384, 64, 0},
        {75, 56, 224, 342, 256, 59, 16},
        {500, 333, 96, 163, 109, 34, 6},
        {65500, 1, 224, 16768000, 256, 8383888, 16},
    };
    int width, height;
    Box window;
    for (size_t i = 0; i < COUNTOF(rows); i++) {
        const int *row = rows[i];
        EvalTransform t = {.width = row[2], .height = row[2]};
        transform_eval_geometry(&width, &height, &window, row[0], row[1], &t);
        assert_int_equal(width, row[3]);
        assert_int_equal(height, row[4]);
        assert_int_equal(window.x, row[5]);
        assert_int_equal(window.y, row[6]);
    }
}

/* What covers an oblong, its other side as Python's round() gives it: 100 * 1.28 = 128, 151 * 0.5 = 75.5 is 76 and
 * 101 * 0.5 = 50.5 is 50, 101 * 1.5 = 151.5 is 152 and 103 * 1.5 = 154.5 is 154, 200 / 3 = 66.67 is 67. */
static void test_eval_geometry_of_oblongs(void **state) {
    (void)state;
    static const int rows[][8] = { /* of an image of that size, a window of that: scaled to, window at */
        {100, 100, 128, 64, 128, 128, 0, 32}, {151, 200, 60, 100, 76, 100, 8, 0}, {101, 200, 40, 100, 50, 100, 5, 0},
        {101, 100, 90, 150, 152, 150, 31, 0}, {103, 100, 90, 150, 154, 150, 32, 0}, {300, 200, 100, 40, 100, 67, 0, 14},
        {200, 151, 100, 60, 100, 76, 0, 8},   {100, 101, 150, 90, 150, 152, 0, 31}, {200, 300, 40, 100, 67, 100, 14, 0},
    };
    for (size_t i = 0; i < COUNTOF(rows); i++) {
        const int *row = rows[i];
        int width, height;
        Box window;
        EvalTransform t = {.width = row[2], .height = row[3], .crop_pct = 1};
        transform_eval_geometry(&width, &height, &window, row[0], row[1], &t);
        assert_int_equal(width, row[4]);
        assert_int_equal(height, row[5]);
        assert_int_equal(window.x, row[6]);
        assert_int_equal(window.y, row[7]);
        assert_int_equal(window.width, row[2]);
        assert_int_equal(window.height, row[3]);
    }
}

/* int(size / crop_pct) for every share in hundredths: what whole numbers give, not what 0.8 as a float does. In 15 of
 * them the double itself is larger (0.14, 0.17, twice and four times that), and Python's int(224 / 0.14), which timm takes, is 1599. */
static void test_eval_size_of_every_share(void **state) {
    (void)state;
    int less = 0;
    for (int size = 32; size <= 1024; size += 32)
        for (int hundredths = 10; hundredths <= 100; hundredths++) {
            EvalTransform t = {.width = size, .height = size, .crop_pct = hundredths / 100.0};
            int width, height, exact = size * 100 / hundredths;
            Box window;
            transform_eval_geometry(&width, &height, &window, 3000, 2000, &t);
            bool one_less = height == exact - 1 && (hundredths % 14 == 0 || hundredths % 17 == 0) && size * 100 % hundredths == 0;
            if (height != exact && !one_less)
                fail_msg("%d / 0.%02d: %d instead of %d", size, hundredths, height, exact);
            less += one_less;
        }
    assert_int_equal(less, 15);
}

/* Ratios, too: of a strip that lies, all that a ratio of 1.1 allows is cut out, and 15 * 1.1 = 16.5 is 16 to even; of
 * one that stands, all that 0.9 allows, and 15 / 0.9 = 16.67 is 17. */
static void test_cutting_of_a_ratio(void **state) {
    (void)state;
    static const struct {
        int width, height;
        double ratio;
        Box widest;
    } rows[] = {{40, 15, 1.1, {12, 0, 16, 15}}, {15, 40, 0.9, {0, 11, 15, 17}}};
    Err err = {0};
    Resizer r = {0};
    for (size_t i = 0; i < COUNTOF(rows); i++) {
        Image image = made_picture(rows[i].width, rows[i].height);
        uint8_t expected[3 * 8 * 8], out[3 * 8 * 8];
        TrainTransform t = {.width = 8, .height = 8, .scale_min = 1, .scale_max = 1, .ratio_min = rows[i].ratio,
                            .ratio_max = rows[i].ratio};
        Rng rng = rng_make(6, RNG_TEST, 0, 0);
        assert_true(resize(&r, expected, &image, rows[i].widest, 8, 8, (Box){0, 0, 8, 8}, t.filter, &err));
        assert_true(transform_train(&r, out, &image, &t, &rng, &err));
        assert_memory_equal(out, expected, sizeof out);
        image_free(&image);
    }
    resizer_free(&r);
}

/* A strip of extreme length costs neither the time nor the memory of its scaled size. */
static void test_strips(void **state) {
    (void)state;
    Err err = {0};
    Resizer r = {0};
    EvalTransform t = {.width = 64, .height = 64, .filter = FILTER_BICUBIC};
    TrainTransform train = train_transform_defaults(64, 64);
    uint8_t *out = mem_zalloc(3 * 64 * 64, 1);
    const int sizes[][2] = {{1, 20000}, {20000, 1}, {1, 1}, {2, 60000}};
    for (size_t i = 0; i < COUNTOF(sizes); i++) {
        Image image;
        assert_true(image_new(&image, sizes[i][0], sizes[i][1], &err));
        memset(image.pixels, 77, (size_t)3 * (size_t)image.width * (size_t)image.height);
        Rng rng = rng_make(2, RNG_TEST, i, 0);
        for (int k = 0; k < 2; k++) {
            memset(out, 0, 3 * 64 * 64);
            bool ok =
                k ? transform_train(&r, out, &image, &train, &rng, &err) : transform_eval(&r, out, &image, &t, &err);
            assert_true(ok);
            for (int j = 0; j < 3 * 64 * 64; j++) assert_int_equal(out[j], 77);
        }
        image_free(&image);
    }
    resizer_free(&r);
    free(out);
}

static void test_train_depends_on_stream_alone(void **state) {
    (void)state;
    Err err = {0};
    Resizer r = {0}, other = {0};
    Image image = made_picture(90, 70), distraction = made_picture(300, 11);
    TrainTransform t = train_transform_defaults(24, 40);
    t.random_filter = true;
    size_t bytes = 3 * 24 * 40;
    uint8_t *a = mem_zalloc(bytes, 1), *b = mem_zalloc(bytes, 1);
    int same = 0;
    for (uint64_t sample = 0; sample < 20; sample++) {
        Rng first = rng_make(3, RNG_AUGMENT, sample, 1), again = first, next = rng_make(3, RNG_AUGMENT, sample, 2);
        assert_true(transform_train(&r, a, &image, &t, &first, &err));
        assert_true(transform_train(&other, b, &distraction, &t, &(Rng){.used = 4}, &err));
        assert_true(transform_train(&other, b, &image, &t, &again, &err));
        assert_memory_equal(a, b, bytes);
        assert_true(transform_train(&r, b, &image, &t, &next, &err));
        same += memcmp(a, b, bytes) == 0;
    }
    assert_int_equal(same, 0);
    image_free(&image), image_free(&distraction);
    resizer_free(&r), resizer_free(&other);
    free(a), free(b);
}

/* Every place of the cutting comes up, and mirroring about as often as asked. */
static void test_padded_crop(void **state) {
    (void)state;
    Err err = {0};
    Resizer r = {0};
    enum { W = 12, H = 10, PAD = 4, SIDE = 2 * PAD + 1 };
    Image image = made_picture(W, H);
    uint8_t out[3 * W * H];
    for (int reflect = 0; reflect < 2; reflect++) {
        TrainTransform t = {.width = W, .height = H, .crop = CROP_PADDED, .pad = PAD, .pad_reflect = reflect};
        bool met[SIDE][SIDE] = {0};
        for (uint64_t sample = 0; sample < 1000; sample++) {
            Rng rng = rng_make(4, RNG_TEST, sample, 0);
            assert_true(transform_train(&r, out, &image, &t, &rng, &err));
            int matches = 0;
            for (int dy = -PAD; dy <= PAD; dy++)
                for (int dx = -PAD; dx <= PAD; dx++) {
                    bool equal = true;
                    for (int y = 0; y < H && equal; y++)
                        for (int x = 0; x < W && equal; x++) {
                            int sx = x + dx, sy = y + dy;
                            bool inside = sx >= 0 && sx < W && sy >= 0 && sy < H;
                            sx = sx < 0 ? -sx : sx >= W ? 2 * (W - 1) - sx : sx;
                            sy = sy < 0 ? -sy : sy >= H ? 2 * (H - 1) - sy : sy;
                            for (int c = 0; c < 3; c++) {
                                int want = inside || reflect ? image.pixels[3 * (sy * W + sx) + c] : 0;
                                equal = equal && out[3 * (y * W + x) + c] == want;
                            }
                        }
                    if (equal) matches++, met[dy + PAD][dx + PAD] = true;
                }
            assert_int_equal(matches, 1);
        }
        for (int i = 0; i < SIDE * SIDE; i++) assert_true(met[i / SIDE][i % SIDE]);
    }
    TrainTransform still = {.width = W, .height = H, .crop = CROP_PADDED, .flip = 0.25};
    int mirrored = 0;
    for (uint64_t sample = 0; sample < 1000; sample++) {
        Rng rng = rng_make(5, RNG_TEST, sample, 0);
        assert_true(transform_train(&r, out, &image, &still, &rng, &err));
        if (memcmp(out, image.pixels, sizeof out) == 0) continue;
        for (int i = 0; i < W * H; i++)
            assert_memory_equal(out + 3 * i, image.pixels + 3 * (i / W * W + W - 1 - i % W), 3);
        mirrored++;
    }
    assert_in_range(mirrored, 200, 300);
    /* of one size only the same: fitted first; nothing but itself to mirror */
    TrainTransform fit = {.width = W, .height = W, .crop = CROP_PADDED, .filter = FILTER_BICUBIC};
    EvalTransform alike = {.width = W, .height = W, .filter = FILTER_BICUBIC, .crop_pct = 1};
    uint8_t fitted[3 * W * W], wanted[3 * W * W];
    Rng rng = rng_make(6, RNG_TEST, 0, 0);
    assert_true(transform_train(&r, fitted, &image, &fit, &rng, &err));
    assert_true(transform_eval(&r, wanted, &image, &alike, &err));
    assert_memory_equal(fitted, wanted, sizeof fitted);
    Image line = {.width = 1, .height = H, .pixels = image.pixels};
    TrainTransform thin = {.width = 1, .height = H, .crop = CROP_PADDED, .pad = PAD, .pad_reflect = true};
    for (uint64_t sample = 0; sample < 20; sample++) {
        rng = rng_make(7, RNG_TEST, sample, 0);
        assert_true(transform_train(&r, out, &line, &thin, &rng, &err));
        int matches = 0;
        for (int dy = -PAD; dy <= PAD; dy++) {
            bool equal = true;
            for (int y = 0; y < H; y++) {
                int from = abs(y + dy) < H ? abs(y + dy) : 2 * (H - 1) - (y + dy);
                equal = equal && memcmp(out + 3 * y, line.pixels + 3 * from, 3) == 0;
            }
            matches += equal;
        }
        assert_int_equal(matches, 1);
    }
    image_free(&image);
    resizer_free(&r);
}

/* One golden: at most one grey level anywhere, 0.05 on average. */
static void expect_golden(const char *folder, const char *pack, const char *source, const char *file, int size,
                          int filter) {
    Err err = {0};
    Resizer r = {0};
    Image photo, golden;
    char *path = path_join(pack, source), *golden_path = path_join(folder, file);
    assert_true(image_load(&photo, path, &err));
    assert_true(image_load(&golden, golden_path, &err));
    size_t bytes = (size_t)3 * (size_t)golden.width * (size_t)golden.height, sum = 0;
    uint8_t *out = mem_zalloc(bytes, 1);
    EvalTransform t = {.width = size, .height = size, .filter = FILTER_BICUBIC};
    bool ok = size ? transform_eval(&r, out, &photo, &t, &err)
                   : resize(&r, out, &photo, whole(photo.width, photo.height), golden.width, golden.height,
                            whole(golden.width, golden.height), (ResizeFilter)filter, &err);
    assert_true(ok);
    for (size_t i = 0; i < bytes; i++) {
        int apart = abs(out[i] - golden.pixels[i]);
        assert_in_range(apart, 0, 1);
        sum += (size_t)apart;
    }
    assert_true((double)sum / (double)bytes < 0.05);
    image_free(&photo), image_free(&golden);
    resizer_free(&r);
    free(out), free(path), free(golden_path);
}

static void test_goldens(void **state) {
    (void)state;
    static const struct {
        const char *pack, *source, *file;
        int size; /* of an evaluation crop; 0: a plain resize by filter */
        ResizeFilter filter;
    } rows[] = {
#define DAISY "flowers5", "images/daisy/100080576_f52e8ee070_n.jpg"
        {DAISY, "eval_0_224.png", 224, 0},
        {DAISY, "eval_0_384.png", 384, 0},
        {DAISY, "eval_0_32.png", 32, 0},
        {DAISY, "crop.png", 96, 0},
        {DAISY, "resize_97x61_bilinear.png", 0, FILTER_BILINEAR},
        {DAISY, "resize_401x333_bilinear.png", 0, FILTER_BILINEAR},
        {DAISY, "resize_97x61_bicubic.png", 0, FILTER_BICUBIC},
        {DAISY, "resize_401x333_bicubic.png", 0, FILTER_BICUBIC},
        {"flowers5", "images/dandelion/17135145776_4c2ec21b05_m.jpg", "eval_1_224.png", 224, 0},
        {"flowers5", "images/roses/3451177763_729a4d54af_n.jpg", "eval_2_224.png", 224, 0},
        {"imagenet_sample", "images/n01496331/n01496331_electric_ray.JPEG", "eval_3_224.png", 224, 0},
        {"imagenet_sample", "images/n02692877/n02692877_airship.JPEG", "eval_4_224.png", 224, 0},
#undef DAISY
    };
    const char *data = getenv("MALA_DATA"), *given = getenv("MALA_GOLDEN");
    char folder[1024];
    snprintf(folder, sizeof folder, "%s%s", given ? given : data ? data : "", given ? "/images" : "/../golden/images");
    if ((!given && !data) || !path_is_dir(folder)) {
        printf("no golden pictures: set MALA_GOLDEN to their folder\n");
        skip();
    }
    for (size_t i = 0; i < COUNTOF(rows);) {
        const char *name = rows[i].pack;
        char *pack = pack_open(name);
        if (!pack) skip();
        for (; i < COUNTOF(rows) && strcmp(rows[i].pack, name) == 0; i++)
            expect_golden(folder, pack, rows[i].source, rows[i].file, rows[i].size, rows[i].filter);
        pack_close(pack);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pillows_bytes),
        cmocka_unit_test(test_boxes_and_windows),
        cmocka_unit_test(test_eval_geometry),
        cmocka_unit_test(test_eval_geometry_of_oblongs),
        cmocka_unit_test(test_eval_size_of_every_share),
        cmocka_unit_test(test_cutting_of_a_ratio),
        cmocka_unit_test(test_strips),
        cmocka_unit_test(test_train_depends_on_stream_alone),
        cmocka_unit_test(test_padded_crop),
        cmocka_unit_test(test_goldens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
