/* test_bitmaps.c - GIF and BMP: every depth, order of rows and kind of palette comes back as it was drawn, files cut
 * anywhere are refused. */
#include "bitmaps.h"
#include "data/image.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

static Image decoded(const Buffer *b) {
    Image image;
    Err err = {0};
    if (!image_decode(&image, b->bytes, b->count, "F", &err)) fail_msg("%s", err.text);
    return image;
}

static void expect_colour(const Image *image, int x, int y, int colour) {
    uint8_t want[3];
    bitmap_colour(want, colour);
    const uint8_t *got = image->pixels + 3 * (y * image->width + x);
    if (memcmp(got, want, 3) != 0)
        fail_msg("(%d, %d): %d %d %d, not %d %d %d", x, y, got[0], got[1], got[2], want[0], want[1], want[2]);
}

/* Whether cutting it there is refused, with an error that says what it is. */
static void expect_cuts_refused(const Buffer *b, size_t from, size_t to, const char *what) {
    for (size_t n = from; n < to; n++) {
        Image image;
        Err err = {0};
        uint8_t *cut = malloc(n); /* of that size, so that reading on is noticed */
        memcpy(cut, b->bytes, n);
        if (image_decode(&image, cut, n, "F", &err)) fail_msg("%zu of %zu bytes are accepted", n, b->count);
        assert_int_equal(err.code, EXIT_INPUT);
        if (!strstr(err.text, what)) fail_msg("%s", err.text);
        free(cut);
    }
}

/* Noise, which fills the table of codes, over runs, which make long ones. */
static uint8_t *drawn(int w, int h, int bits) {
    uint8_t *colours = mem_zalloc((size_t)(w * h), 1);
    uint32_t state = 1;
    for (int i = 0; i < w * h; i++) {
        state = state * 1664525 + 1013904223;
        colours[i] = (uint8_t)((i / w % 7 < 3 ? state >> 24 : (uint32_t)(i / 50)) & ((1u << bits) - 1));
    }
    return colours;
}

static void check_gif(const GifSpec *spec) {
    Buffer b = gif_make(spec);
    Image image = decoded(&b);
    assert_int_equal(image.width, MAX(spec->width, spec->x + spec->w));
    assert_int_equal(image.height, MAX(spec->height, spec->y + spec->h));
    for (int y = 0; y < image.height; y++)
        for (int x = 0; x < image.width; x++) {
            int fx = x - spec->x, fy = y - spec->y;
            bool inside = fx >= 0 && fy >= 0 && fx < spec->w && fy < spec->h;
            expect_colour(&image, x, y, inside ? spec->colours[fy * spec->w + fx] : MAX(spec->transparent, 0));
        }
    image_free(&image);
    buffer_free(&b);
}

static void test_gif(void **state) {
    (void)state;
    static const int sizes[][2] = {{1, 1}, {3, 2}, {17, 9}, {5, 40}, {120, 110}};
    for (size_t i = 0; i < COUNTOF(sizes); i++)
        for (int bits = 1; bits <= 8; bits++) {
            const int w = sizes[i][0], h = sizes[i][1];
            uint8_t *colours = drawn(w, h, bits);
            GifSpec s = {.width = w, .height = h, .w = w, .h = h, .bits = bits, .transparent = -1, .colours = colours};
            check_gif(&s);
            s.interlaced = s.local = true;
            check_gif(&s);
            s.width += 9, s.height += 4, s.x = 5, s.y = 1, s.transparent = 1;
            check_gif(&s);
            s.x = 20; /* beyond the canvas, which grows */
            check_gif(&s);
            free(colours);
        }
}

/* 5 x 3 pixels by Pillow's own encoder, of colours (10, 20, 30), (200, 100, 0), (1, 2, 3) in turn, interlaced */
static void test_gif_of_another_program(void **state) {
    (void)state;
    static const char file[] =
        "\x47\x49\x46\x38\x37\x61\x05\x00\x03\x00\x81\x00\x00\x0a\x14\x1e\xc8\x64\x00\x01\x02\x03\x00\x00\x00"
        "\x2c\x00\x00\x00\x00\x05\x00\x03\x00\x00\x08\x0c\x00\x01\x04\x10\x20\x90\xe0\xc0\x82\x05\x03\x02\x00"
        "\x3b";
    static const uint8_t colours[3][3] = {{10, 20, 30}, {200, 100, 0}, {1, 2, 3}};
    Buffer b = {.bytes = (uint8_t *)(uintptr_t)file, .count = sizeof file - 1};
    Image image = decoded(&b);
    assert_int_equal(image.width, 5);
    assert_int_equal(image.height, 3);
    for (int i = 0; i < 15; i++) assert_memory_equal(image.pixels + 3 * i, colours[i % 3], 3);
    image_free(&image);
}

/* 0 1 3 7 15 by a palette of four: beyond it is black, but where it holds the grey levels 0 to 3 they go on. */
static void test_gif_beyond_its_palette(void **state) {
    (void)state;
    char file[] = "GIF89a\5\0\1\0\x81\0\0" "\0\0\0\1\1\1\2\2\2\3\3\3" ",\0\0\0\0\5\0\1\0\0"
                  "\4\7\x10\xc0\0\7\x3c\xf0\x45\0;";
    static const uint8_t levels[] = {0, 1, 3, 7, 15};
    Buffer b = {.bytes = (uint8_t *)file, .count = sizeof file - 1};
    Image image = decoded(&b);
    for (int i = 0; i < 15; i++) assert_int_equal(image.pixels[i], levels[i / 3]);
    image_free(&image);
    file[13 + 3] = 9;
    image = decoded(&b);
    assert_memory_equal(image.pixels, "\0\0\0\x09\1\1\3\3\3\0\0\0\0\0\0", 15);
    image_free(&image);
}

static void test_damaged_gif(void **state) {
    (void)state;
    uint8_t *colours = drawn(30, 20, 4);
    GifSpec s = {.width = 30, .height = 20, .w = 30, .h = 20, .bits = 4, .transparent = -1, .colours = colours};
    Buffer b = gif_make(&s);
    size_t codes = 13 + 48 + 9 + 10; /* screen, palette, comment, frame */
    expect_cuts_refused(&b, 6, codes + 1, "is a damaged GIF (no first frame)");
    expect_cuts_refused(&b, codes + 1, b.count - 4, "is a damaged GIF (its first frame ends early)");
    b.bytes[codes + 2] = 0xff; /* the first codes: nothing is named so yet */
    Image image;
    Err err = {0};
    assert_false(image_decode(&image, b.bytes, b.count, "F", &err));
    buffer_free(&b);
    free(colours);
}

static uint8_t scaled(uint32_t value, uint32_t mask) {
    while (!(mask & 1)) mask >>= 1, value >>= 1;
    return (uint8_t)((value & mask) * 255 / mask);
}

static void check_bmp(const BmpSpec *s, const uint32_t mask[3]) {
    Buffer b = bmp_make(s);
    Image image = decoded(&b);
    for (int i = 0; i < s->width * s->height; i++) {
        if (s->bits <= 8)
            expect_colour(&image, i % s->width, i / s->width, (int)s->values[i]);
        for (int c = 0; c < 3 && s->bits > 8; c++)
            assert_int_equal(image.pixels[3 * i + c], scaled(s->values[i] & mask[c], mask[c]));
    }
    image_free(&image);
    buffer_free(&b);
}

static void test_bmp(void **state) {
    (void)state;
    static const int headers[] = {12, 40, 52, 56, 108, 124}, depths[] = {1, 4, 8, 16, 24, 32};
    static const uint32_t own[3] = {0xff0000, 0xff00, 0xff}, own16[3] = {0x7c00, 0x3e0, 0x1f};
    static const uint32_t other[3] = {0xff, 0xff00, 0xff0000}, other16[3] = {0xf800, 0x7e0, 0x1f};
    uint32_t values[13 * 5];
    for (size_t h = 0; h < COUNTOF(headers); h++)
        for (size_t d = 0; d < COUNTOF(depths); d++)
            for (int top = 0; top < (headers[h] == 12 ? 1 : 2); top++) {
                const int bits = depths[d];
                for (size_t i = 0; i < COUNTOF(values); i++)
                    values[i] = (uint32_t)(i * i * 2654435761u + i) & (bits == 32 ? UINT32_MAX : (1u << bits) - 1);
                BmpSpec s = {.width = 13, .height = 5, .bits = bits, .header = headers[h], .top_first = top,
                             .values = values};
                check_bmp(&s, bits == 16 ? own16 : own);
                s.mask = bits == 16 ? other16 : other;
                if (headers[h] >= 52 && (bits == 16 || bits == 32)) check_bmp(&s, s.mask);
            }
}

static void test_damaged_bmp(void **state) {
    (void)state;
    uint32_t values[35] = {0};
    BmpSpec s = {.width = 7, .height = 5, .bits = 24, .header = 40, .values = values};
    Buffer b = bmp_make(&s);
    expect_cuts_refused(&b, 26, 54, "is a BMP that cannot be read (the file ends early)");
    expect_cuts_refused(&b, 54, b.count, "is a damaged BMP (the file ends early)");
    static const struct {
        size_t at;
        uint8_t byte;
        const char *what;
    } rows[] = {{28, 7, "a kind of pixels that mala does not read"},
                {30, 1, "its pixels are compressed, which mala does not read"},
                {13, 0x7f, "the file ends early"},
                {18, 0, "has a size of 0 x 5"},
                {21, 0x7f, "has 2130706439 x 5 pixels, more than"}};
    for (size_t i = 0; i < COUNTOF(rows); i++) {
        Image image;
        Err err = {0};
        uint8_t before = b.bytes[rows[i].at];
        b.bytes[rows[i].at] = rows[i].byte;
        bool ok = image_decode(&image, b.bytes, b.count, "F", &err);
        b.bytes[rows[i].at] = before;
        assert_false(ok);
        if (!strstr(err.text, rows[i].what)) fail_msg("%s", err.text);
    }
    buffer_free(&b);
}

/* A colour whose bits have gaps, are more than 8 or none is not made up. */
static void test_bmp_of_unknown_masks(void **state) {
    (void)state;
    static const struct {
        int bits;
        uint32_t mask[3];
        bool known;
    } rows[] = {{32, {0xff0000, 0xff00, 0xff}, true},   {32, {0xfd0000, 0xff00, 0xff}, false},
                {32, {0xff0000, 0xa500, 0xff}, false},  {32, {0xff0000, 0xff00, 0x81}, false},
                {32, {0x1ff0000, 0xff00, 0xff}, false}, {32, {0xff0000, 0, 0xff}, false},
                {16, {0xf800, 0x7e0, 0x1f}, true},      {16, {0xf800, 0x7a0, 0x1f}, false}};
    uint32_t values[6] = {0x123456, 0x789abc, 0xdef012, 0x345678, 0x9abcde, 0xf01234};
    for (size_t i = 0; i < COUNTOF(rows); i++) {
        if (rows[i].bits == 16)
            for (size_t k = 0; k < COUNTOF(values); k++) values[k] &= 0xffff;
        BmpSpec s = {.width = 3, .height = 2, .bits = rows[i].bits, .header = 56, .mask = rows[i].mask,
                     .values = values};
        if (rows[i].known) {
            check_bmp(&s, rows[i].mask);
            continue;
        }
        Buffer b = bmp_make(&s);
        Image image;
        Err err = {0};
        assert_false(image_decode(&image, b.bytes, b.count, "F", &err));
        assert_int_equal(err.code, EXIT_INPUT);
        assert_string_equal(err.text, "F: is a BMP that cannot be read (a kind of pixels that mala does not read) - "
                                      "convert it to PNG");
        buffer_free(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gif), cmocka_unit_test(test_gif_of_another_program),
                                       cmocka_unit_test(test_gif_beyond_its_palette),
                                       cmocka_unit_test(test_damaged_gif), cmocka_unit_test(test_bmp),
                                       cmocka_unit_test(test_damaged_bmp),
                                       cmocka_unit_test(test_bmp_of_unknown_masks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
