/* test_jpeg.c - which damage to a JPEG is one to its pixels: what stands around the scans may be odd, as long as every
 * pixel decodes to what it was; what went astray inside a scan is refused. */
#include "data/image.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <setjmp.h>

#include <cmocka.h>
#include <jpeglib.h>

#include "damage.h"

enum { WIDTH = 48, HEIGHT = 32 };

static Buffer baseline, progressive;

static void take_pixels(struct jpeg_compress_struct *jpeg) {
    while (jpeg->next_scanline < HEIGHT) {
        uint8_t row[3 * WIDTH];
        for (int i = 0; i < 3 * WIDTH; i++) row[i] = (uint8_t)(5 * i + 7 * (int)jpeg->next_scanline);
        jpeg_write_scanlines(jpeg, &(JSAMPROW){row}, 1);
    }
}

static Buffer made_jpeg(bool scans) {
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    unsigned char *bytes = NULL;
    unsigned long count = 0;
    Buffer b = {0};
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &bytes, &count);
    jpeg.image_width = WIDTH, jpeg.image_height = HEIGHT;
    jpeg.input_components = 3;
    jpeg.in_color_space = JCS_RGB;
    jpeg_set_defaults(&jpeg);
    if (scans) jpeg_simple_progression(&jpeg);
    jpeg_start_compress(&jpeg, TRUE);
    take_pixels(&jpeg);
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    buffer_put(&b, bytes, count);
    free(bytes);
    return b;
}

static int make_pictures(void **state) {
    (void)state;
    baseline = made_jpeg(false), progressive = made_jpeg(true);
    return 0;
}

static int free_pictures(void **state) {
    (void)state;
    buffer_free(&baseline), buffer_free(&progressive);
    return 0;
}

/* The n-th marker of that kind, from 0. */
static size_t find_marker(const Buffer *b, uint8_t marker, int n) {
    for (size_t at = 0; at + 1 < b->count; at++)
        if (b->bytes[at] == 0xff && b->bytes[at + 1] == marker && n-- == 0) return at;
    fail_msg("no marker %x", marker);
    return 0;
}

static Image decoded(const Buffer *b, const char *what) {
    Image image;
    Err err = {0};
    if (!image_decode(&image, b->bytes, b->count, "F", &err)) fail_msg("%s: %s", what, err.text);
    return image;
}

/* Grey levels of noise: bytes that no coding makes few. */
static Buffer made_noise(int side, int quality) {
    Image image;
    Err err = {0};
    Buffer b = {0};
    uint32_t state = 1;
    assert_true(image_new(&image, side, side, &err));
    for (int i = 0; i < 3 * side * side; i++) image.pixels[i] = (uint8_t)((state = state * 1664525 + 1013904223) >> 24);
    if (!image_encode_jpeg(&b.bytes, &b.count, &image, quality, &err)) fail_msg("%s", err.text);
    image_free(&image);
    return b;
}

/* Changed: b with `cut` bytes at a place replaced by others, which must decode to the same pixels. */
static void expect_same(const Buffer *b, size_t at, size_t cut, const void *piece, size_t count, const char *what) {
    Buffer changed = copy_of(b);
    splice(&changed, at, cut, piece, count);
    Image want = decoded(b, "unchanged"), got = decoded(&changed, what);
    assert_memory_equal(got.pixels, want.pixels, 3 * WIDTH * HEIGHT);
    image_free(&want), image_free(&got);
    buffer_free(&changed);
}

static void expect_refused(const Buffer *b, size_t at, const void *piece, size_t count) {
    Buffer changed = copy_of(b);
    Image image;
    Err err = {0};
    splice(&changed, at, 0, piece, count);
    assert_false(image_decode(&image, changed.bytes, changed.count, "F", &err));
    assert_int_equal(err.code, EXIT_INPUT);
    assert_non_null(strstr(err.text, "F: is a damaged JPEG (Corrupt JPEG data: "));
    buffer_free(&changed);
}

/* Lossless, arithmetic over differences, 12 bits a sample: said to be unread, not damaged. */
static void test_kinds_that_are_not_read(void **state) {
    (void)state;
    const size_t frame = find_marker(&baseline, 0xc0, 0);
    const struct {
        size_t at;
        uint8_t byte;
    } kinds[] = {{frame + 1, 0xc3}, {frame + 1, 0xcd}, {frame + 4, 12}};
    for (size_t i = 0; i < COUNTOF(kinds); i++) {
        Buffer changed = copy_of(&baseline);
        Image image;
        Err err = {0};
        changed.bytes[kinds[i].at] = kinds[i].byte;
        assert_false(image_decode(&image, changed.bytes, changed.count, "F", &err));
        assert_int_equal(err.code, EXIT_INPUT);
        assert_non_null(strstr(err.text, "F: is a JPEG of a kind that is not read (Unsupported JPEG "));
        assert_non_null(strstr(err.text, ") - convert it to PNG"));
        buffer_free(&changed);
    }
}

static void test_oddities_of_headers(void **state) {
    (void)state;
    static const uint8_t adobe[] = "\xff\xee\0\x0e" "Adobe\0\x64\0\0\0\0\5"; /* a colour transform that there is not */
    size_t jfif = find_marker(&baseline, 0xe0, 0), tables = find_marker(&baseline, 0xdb, 0);
    expect_same(&baseline, jfif + 9, 2, "\0\0", 2, "JFIF 0.0");
    expect_same(&baseline, jfif + 9, 2, "\2\1", 2, "JFIF 2.1");
    expect_same(&baseline, jfif, tables - jfif, adobe, sizeof adobe - 1, "Adobe transform 5");
    expect_same(&baseline, tables, 0, "\0\0", 2, "zeros in the header");
    expect_same(&baseline, tables, 0, "something else", 14, "text in the header");
}

static void test_coefficient_range_of_a_sequential_scan(void **state) {
    (void)state;
    size_t scan = find_marker(&baseline, 0xda, 0);
    expect_same(&baseline, scan + 12, 1, "\0", 1, "coefficients 0 to 0");
}

static void test_bytes_between_segments(void **state) {
    (void)state;
    for (int n = 0; n < 4; n++)
        expect_same(&progressive, find_marker(&progressive, 0xda, n), 0, "something else", 14, "text before a scan");
}

static void test_padding_behind_the_last_scan(void **state) {
    (void)state;
    static const uint8_t zeros[40], junk[40] = {[39] = 1};
    expect_same(&baseline, baseline.count - 2, 0, zeros, sizeof zeros, "padding");
    expect_same(&progressive, progressive.count - 2, 0, zeros, sizeof zeros, "padding");
    expect_same(&baseline, baseline.count, 0, "anything", 8, "bytes behind the end");
    expect_refused(&baseline, baseline.count - 2, junk, sizeof junk);
    expect_refused(&progressive, progressive.count - 2, junk, sizeof junk);
}

/* Whichever segment stands before them. */
static void test_bytes_behind_each_segment(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t count;
    } segments[] = {{"\xff\xdd\0\4\0\0", 6}, {"\xff\xfe\0\6note", 8}, {"\xff\xe5\0\5\xff\xfe\0", 7}};
    int n = 0;
    while (find_marker(&progressive, 0xc4, n) < find_marker(&progressive, 0xda, 0)) n++;
    const size_t between = find_marker(&progressive, 0xc4, n); /* right behind the first scan */
    for (size_t i = 0; i < COUNTOF(segments); i++) {
        Buffer piece = {0};
        buffer_put(&piece, segments[i].bytes, segments[i].count);
        buffer_put(&piece, "something else", 14);
        expect_same(&progressive, between, 0, piece.bytes, piece.count, "text behind a segment");
        buffer_free(&piece);
    }
    size_t table = find_marker(&progressive, 0xdb, 0); /* the same table once more, between two scans */
    size_t bytes = 2 + (size_t)progressive.bytes[table + 2] * 256 + progressive.bytes[table + 3];
    Buffer piece = {0};
    buffer_put(&piece, progressive.bytes + table, bytes);
    buffer_put(&piece, "something else", 14);
    expect_same(&progressive, between, 0, piece.bytes, piece.count, "text behind a table");
    buffer_free(&piece);
    /* a restart, which has no length */
    expect_refused(&progressive, between, "\xff\xd7\0\6note and more", 17);
}

/* No segment is as long as what lies before the bytes. */
static void test_bytes_behind_a_long_scan(void **state) {
    (void)state;
    static const uint8_t junk[40] = {[39] = 1};
    Buffer noise = made_noise(256, 100);
    assert_true(noise.count > 0x18000);
    expect_refused(&noise, noise.count - 2, junk, sizeof junk);
    buffer_free(&noise);
}

static void test_two_components(void **state) {
    (void)state;
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    unsigned char *bytes = NULL;
    unsigned long count = 0;
    Image image;
    Err err = {0};
    uint8_t row[16] = {0};
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &bytes, &count);
    jpeg.image_width = 8, jpeg.image_height = 8;
    jpeg.input_components = 2;
    jpeg.in_color_space = JCS_UNKNOWN;
    jpeg_set_defaults(&jpeg);
    jpeg_start_compress(&jpeg, TRUE);
    for (int y = 0; y < 8; y++) jpeg_write_scanlines(&jpeg, &(JSAMPROW){row}, 1);
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    assert_false(image_decode(&image, bytes, count, "F", &err));
    assert_string_equal(err.text, "F: has 2 colour components - convert it to RGB");
    assert_int_equal(err.code, EXIT_INPUT);
    free(bytes);
}

/* The format's sizes end at 65,500, and begin at 1. */
static void test_encoder_refuses(void **state) {
    (void)state;
    static const struct {
        int width, height;
        ExitCode code;
        const char *text;
    } sizes[] = {
        {65501, 1, EXIT_USAGE, "JPEG encoder: 65501 x 1 is beyond the format's 65500 - scale it down or write PNG"},
        {1, 65501, EXIT_USAGE, "JPEG encoder: 1 x 65501 is beyond the format's 65500 - scale it down or write PNG"},
        {0, 1, EXIT_BUG, "JPEG encoder: Empty JPEG image (DNL not supported) - close other programs"}};
    static uint8_t pixels[3];
    for (size_t i = 0; i < COUNTOF(sizes); i++) {
        Image image = {.width = sizes[i].width, .height = sizes[i].height, .pixels = pixels};
        uint8_t *bytes = pixels;
        size_t count = 1;
        Err err = {0};
        assert_false(image_encode_jpeg(&bytes, &count, &image, 90, &err));
        assert_int_equal(err.code, sizes[i].code);
        assert_string_equal(err.text, sizes[i].text);
        assert_null(bytes);
        assert_int_equal(count, 0);
    }
    Image widest, got;
    uint8_t *bytes;
    size_t count;
    Err err = {0};
    assert_true(image_new(&widest, 65500, 1, &err));
    memset(widest.pixels, 100, 3 * 65500);
    assert_true(image_encode_jpeg(&bytes, &count, &widest, 90, &err));
    assert_true(image_decode(&got, bytes, count, "F", &err));
    assert_int_equal(got.width, 65500);
    image_free(&widest), image_free(&got);
    free(bytes);
}

/* A scan that lost or gained something in its middle. */
static void test_damage_inside_a_scan(void **state) {
    (void)state;
    uint8_t ones[64];
    memset(ones, 0x55, sizeof ones);
    size_t scan = find_marker(&baseline, 0xda, 0) + 14;
    expect_refused(&baseline, (scan + baseline.count) / 2, ones, sizeof ones);
    expect_refused(&baseline, (scan + baseline.count) / 2, "\xff\xd9", 2);
}

/* A progressive picture takes memory for all its coefficients before the first is read. */
static void test_few_bytes_that_promise_much(void **state) {
    (void)state;
    Buffer changed = copy_of(&progressive);
    Image image;
    Err err = {0};
    memcpy(changed.bytes + find_marker(&changed, 0xc2, 0) + 5, "\x25\x80\x25\x80", 4);
    assert_false(image_decode(&image, changed.bytes, changed.count, "F", &err));
    assert_non_null(strstr(err.text, " bytes for 9600 x 9600 pixels) - replace it"));
    buffer_free(&changed);
#ifndef __SANITIZE_ADDRESS__
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    assert_true(usage.ru_maxrss < 200 * 1024); /* kB */
#endif
}

/* A JPEG of four components, 8 x 8 pixels for each colour: their one coefficient keeps the colour as it is. */
static Buffer made_of_four(const uint8_t colours[][4], int count) {
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    unsigned char *bytes = NULL;
    unsigned long size = 0;
    Buffer b = {0};
    uint8_t *row = mem_zalloc((size_t)count * 8, 4);
    for (int i = 0; i < 8 * count; i++) memcpy(row + 4 * i, colours[i / 8], 4);
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &bytes, &size);
    jpeg.image_width = (JDIMENSION)(8 * count), jpeg.image_height = 8;
    jpeg.input_components = 4;
    jpeg.in_color_space = JCS_CMYK;
    jpeg_set_defaults(&jpeg); /* with Adobe's marker */
    jpeg_set_quality(&jpeg, 100, TRUE);
    jpeg_start_compress(&jpeg, TRUE);
    for (int y = 0; y < 8; y++) jpeg_write_scanlines(&jpeg, &(JSAMPROW){row}, 1);
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    buffer_put(&b, bytes, size);
    free(bytes), free(row);
    return b;
}

/* Cyan, magenta, yellow and key as files hold them, 255 less the ink; each colour times the key, of 255. */
static void test_print_colours_become_light(void **state) {
    (void)state;
    static const uint8_t stored[][4] = {{255, 255, 255, 255}, {255, 128, 0, 255}, {204, 51, 102, 100},
                                        {10, 20, 30, 0},      {0, 255, 255, 255}, {255, 0, 255, 51}};
    static const uint8_t want[][3] = {{255, 255, 255}, {255, 128, 0}, {80, 20, 40},
                                      {0, 0, 0},       {0, 255, 255}, {51, 0, 51}};
    Buffer b = made_of_four(stored, COUNTOF(stored));
    Image image = decoded(&b, "four components");
    assert_int_equal(image.width, 8 * COUNTOF(stored));
    assert_int_equal(image.height, 8);
    for (int i = 0; i < image.width * image.height; i++)
        assert_memory_equal(image.pixels + 3 * i, want[i % image.width / 8], 3);
    image_free(&image);
    buffer_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds_that_are_not_read),
        cmocka_unit_test(test_oddities_of_headers), cmocka_unit_test(test_coefficient_range_of_a_sequential_scan),
        cmocka_unit_test(test_bytes_between_segments), cmocka_unit_test(test_padding_behind_the_last_scan),
        cmocka_unit_test(test_bytes_behind_each_segment), cmocka_unit_test(test_bytes_behind_a_long_scan),
        cmocka_unit_test(test_damage_inside_a_scan), cmocka_unit_test(test_few_bytes_that_promise_much),
        cmocka_unit_test(test_two_components), cmocka_unit_test(test_encoder_refuses),
        cmocka_unit_test(test_print_colours_become_light)};
    return cmocka_run_group_tests(tests, make_pictures, free_pictures);
}
