/* test_malformed_images.c - from good pictures, tens of thousands of damaged ones. Whatever the damage: no crash, no
 * wait, no flood of memory, and an error that names the file. A PNG's checksums are made right again in every other
 * case, so that damage reaches what lies behind them. MALFORMED=N makes N of each format. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>
#include <webp/encode.h>

#include "bitmaps.h"
#include "damage.h"
#include "data/image.h"
#include "io/zip.h"

#define CASES 12000
#define SECONDS 5          /* for one file */
#define MEMORY (64 << 10) /* KiB at most, of the whole program */

enum { SIDE = 24 };

static int case_count(void) { return getenv("MALFORMED") ? atoi(getenv("MALFORMED")) : CASES; }

static Image made_picture(void) {
    Err err = {0};
    Image image;
    assert_true(image_new(&image, SIDE, SIDE, &err));
    for (int i = 0; i < 3 * SIDE * SIDE; i++) image.pixels[i] = (uint8_t)(i * i / 40 + 5 * i);
    return image;
}

static Buffer taken(uint8_t *bytes, size_t count) {
    return (Buffer){.bytes = bytes, .count = count, .capacity = count};
}

static Buffer made_jpeg(void) {
    Err err = {0};
    Image image = made_picture();
    Buffer b = {0};
    assert_true(image_encode_jpeg(&b.bytes, &b.count, &image, 80, &err));
    image_free(&image);
    return taken(b.bytes, b.count);
}

static Buffer made_png(void) {
    Err err = {0};
    Image image = made_picture();
    Buffer b = {0};
    assert_true(image_encode_png(&b.bytes, &b.count, &image, &err));
    image_free(&image);
    return taken(b.bytes, b.count);
}

static Buffer made_webp(bool lossless) {
    Image image = made_picture();
    uint8_t *bytes;
    size_t count = lossless ? WebPEncodeLosslessRGB(image.pixels, SIDE, SIDE, 3 * SIDE, &bytes)
                            : WebPEncodeRGB(image.pixels, SIDE, SIDE, 3 * SIDE, 80, &bytes);
    assert_true(count > 0);
    Buffer b = {0};
    buffer_put(&b, bytes, count);
    WebPFree(bytes);
    image_free(&image);
    return b;
}

/* Every chunk that still lies within the file gets the checksum of what it holds now. */
static void repair_png(Buffer *b) {
    ZipCrc crc;
    zip_crc_init(&crc);
    for (size_t at = 8; at + 12 <= b->count;) {
        const uint8_t *p = b->bytes + at;
        size_t length = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        if (length > b->count - at - 12) return;
        uint32_t sum = zip_crc(&crc, 0, b->bytes + at + 4, length + 4);
        for (int i = 0; i < 4; i++) b->bytes[at + 8 + length + (size_t)i] = (uint8_t)(sum >> (24 - 8 * i));
        at += length + 12;
    }
}

static bool try_picture(const Buffer *b, int number) {
    Err err = {0};
    Image image;
    uint8_t *exact = malloc(b->count ? b->count : 1); /* so that a sanitizer sees what is read beyond it */
    assert_non_null(exact);
    if (b->count > 0) memcpy(exact, b->bytes, b->count);
    alarm(SECONDS);
    bool ok = image_decode(&image, exact, b->count, "p", &err);
    alarm(0);
    free(exact);
    if (!ok && (err.code != EXIT_INPUT || strncmp(err.text, "p: ", 3) != 0 || strchr(err.text, '\n')))
        fail_msg("case %d: exit %d: %s", number, err.code, err.text);
    if (!ok) assert_null(image.pixels);
    image_free(&image);
    return ok;
}

static void damage_all(const char *format, const Buffer *seeds, int seed_count, uint64_t stream, bool checksums) {
    int accepted = 0, total = case_count();
    for (int i = 0; i < total; i++) {
        Rng r = rng_make(stream, RNG_TEST, (uint64_t)i, 0);
        Buffer b = copy_of(&seeds[i % seed_count]);
        for (uint32_t k = rng_below(&r, 3) + 1; k > 0; k--) damage_bytes(&b, &r);
        if (checksums && i % 2) repair_png(&b);
        accepted += try_picture(&b, i);
        buffer_free(&b);
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    print_message("%d %s files, %d of them still good; %ld MiB at most\n", total, format, accepted,
                  usage.ru_maxrss >> 10);
    assert_in_range(accepted, 1, total * 3 / 4);
#ifndef __SANITIZE_ADDRESS__
    assert_true(usage.ru_maxrss < MEMORY);
#endif
}

static void test_jpeg(void **state) {
    (void)state;
    Buffer seed = made_jpeg();
    damage_all("JPEG", &seed, 1, 1, false);
    buffer_free(&seed);
}

static void test_png(void **state) {
    (void)state;
    Buffer seed = made_png();
    damage_all("PNG", &seed, 1, 2, true);
    buffer_free(&seed);
}

static void test_webp(void **state) {
    (void)state;
    Buffer seeds[] = {made_webp(false), made_webp(true)};
    damage_all("WebP", seeds, COUNTOF(seeds), 3, false);
    for (size_t i = 0; i < COUNTOF(seeds); i++) buffer_free(&seeds[i]);
}

static uint8_t colours[SIDE * SIDE];
static uint32_t values[SIDE * SIDE];

static void test_gif(void **state) {
    (void)state;
    for (int i = 0; i < SIDE * SIDE; i++) colours[i] = (uint8_t)(i * i / 40 % 16);
    Buffer seeds[] = {
        gif_make(&(GifSpec){SIDE, SIDE, 0, 0, SIDE, SIDE, 4, false, false, -1, colours}),
        gif_make(&(GifSpec){SIDE + 9, SIDE + 5, 3, 2, SIDE, SIDE, 5, true, true, 2, colours})};
    damage_all("GIF", seeds, COUNTOF(seeds), 4, false);
    for (size_t i = 0; i < COUNTOF(seeds); i++) buffer_free(&seeds[i]);
}

static void test_bmp(void **state) {
    (void)state;
    static const uint32_t mask[] = {0xf800, 0x7e0, 0x1f};
    for (int i = 0; i < SIDE * SIDE; i++) values[i] = (uint32_t)(i * i / 40 % 16);
    Buffer seeds[] = {bmp_make(&(BmpSpec){SIDE, SIDE, 4, 40, false, NULL, values}),
                      bmp_make(&(BmpSpec){SIDE, SIDE, 16, 56, true, mask, values})};
    damage_all("BMP", seeds, COUNTOF(seeds), 5, false);
    for (size_t i = 0; i < COUNTOF(seeds); i++) buffer_free(&seeds[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_jpeg), cmocka_unit_test(test_png),
                                       cmocka_unit_test(test_webp), cmocka_unit_test(test_gif),
                                       cmocka_unit_test(test_bmp)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
