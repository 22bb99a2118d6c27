/* test_webp.c - WebP: lossless pictures come back as they were, lossy ones as Pillow decodes them, animations as their
 * first frame, upright; every kind of damage to the container is refused. Files are made here, by libwebp's encoder. */
#include "data/image.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>
#include <webp/encode.h>

typedef struct {
    uint8_t bytes[4096];
    size_t count;
} File;

enum { W = 7, H = 5 };

static uint8_t stored[4 * W * H]; /* R G B A, every alpha there is */

static int make_picture(void **state) {
    (void)state;
    for (int i = 0; i < 4 * W * H; i++) stored[i] = (uint8_t)(37 * i + 11 * (i / 9));
    return 0;
}

/* A lossless WebP of the stored picture, alpha and all. */
static File lossless(void) {
    WebPConfig config;
    WebPPicture picture;
    WebPMemoryWriter writer;
    File f = {0};
    assert_true(WebPConfigInit(&config) && WebPPictureInit(&picture));
    WebPMemoryWriterInit(&writer);
    config.lossless = config.exact = 1; /* also the colours that nobody sees */
    picture.use_argb = 1;
    picture.width = W, picture.height = H;
    picture.writer = WebPMemoryWrite, picture.custom_ptr = &writer;
    assert_true(WebPPictureImportRGBA(&picture, stored, 4 * W) && WebPEncode(&config, &picture));
    assert_true(writer.size <= sizeof f.bytes);
    memcpy(f.bytes, writer.mem, f.count = writer.size);
    WebPPictureFree(&picture);
    WebPMemoryWriterClear(&writer);
    return f;
}

static void put(File *f, const void *bytes, size_t count) {
    assert_true(f->count + count <= sizeof f->bytes);
    memcpy(f->bytes + f->count, bytes, count);
    f->count += count;
}

static void put_number(File *f, size_t number, int count) {
    for (int i = 0; i < count; i++) put(f, (uint8_t[]){(uint8_t)(number >> 8 * i)}, 1);
}

static void put_chunk(File *f, const char *name, const void *body, size_t count) {
    put(f, name, 4);
    put_number(f, count, 4);
    put(f, body, count);
    if (count & 1) put(f, "", 1);
}

/* A container with its canvas; flags: 2 animated, 8 EXIF, 16 alpha */
static File extended(int flags, size_t width, size_t height) {
    File f = {0}, body = {0};
    put(&f, "RIFF\0\0\0\0WEBP", 12);
    put_number(&body, (size_t)flags, 4);
    put_number(&body, width - 1, 3), put_number(&body, height - 1, 3);
    put_chunk(&f, "VP8X", body.bytes, body.count);
    return f;
}

static void close_file(File *f) {
    for (int i = 0; i < 4; i++) f->bytes[4 + i] = (uint8_t)((f->count - 8) >> 8 * i);
}

/* A frame of the stored picture at (x, y), both even; its chunks are those of a file that holds nothing else. */
static void put_frame(File *f, size_t x, size_t y) {
    File picture = lossless(), body = {0};
    put_number(&body, x / 2, 3), put_number(&body, y / 2, 3);
    put_number(&body, W - 1, 3), put_number(&body, H - 1, 3);
    put_number(&body, 100, 3), put_number(&body, 2, 1);
    put(&body, picture.bytes + 12, picture.count - 12);
    put_chunk(f, "ANMF", body.bytes, body.count);
}

static File animation(size_t x, size_t y) {
    File f = extended(2 | 16, 12, 10);
    put_chunk(&f, "ANIM", "\x10\x20\x30\xff\0\0", 6);
    put_frame(&f, x, y);
    put_frame(&f, 0, 0);
    close_file(&f);
    return f;
}

static const char *error_of(const File *f) {
    static Err err;
    Image image;
    err = (Err){0};
    uint8_t *exact = malloc(f->count); /* so that reading on is noticed */
    memcpy(exact, f->bytes, f->count);
    bool ok = image_decode(&image, exact, f->count, "F", &err);
    free(exact);
    image_free(&image);
    assert_true(ok || err.code == EXIT_INPUT);
    return ok ? "accepted" : err.text;
}

static Image decoded(const File *f) {
    Image image;
    Err err = {0};
    if (!image_decode(&image, f->bytes, f->count, "F", &err)) fail_msg("%s", err.text);
    return image;
}

static void expect_pixel(const Image *image, int x, int y, int from_x, int from_y) {
    assert_memory_equal(image->pixels + 3 * (y * image->width + x), stored + 4 * (from_y * W + from_x), 3);
}

static void test_lossless_alpha_dropped(void **state) {
    (void)state;
    File f = lossless();
    Image image = decoded(&f);
    assert_int_equal(image.width, W);
    assert_int_equal(image.height, H);
    for (int i = 0; i < W * H; i++) expect_pixel(&image, i % W, i / W, i % W, i / W);
    image_free(&image);
}

/* 6 x 4 pixels of (40 x, 60 y, 20 (x + y)) at quality 60, and what Pillow 12 makes of them */
static void test_lossy_as_pillow(void **state) {
    (void)state;
    static const char file[] =
        "RIFF\x44\0\0\0WEBPVP8 \x38\0\0\0\xd0\x01\0\x9d\x01\x2a\x06\0\x04\0\x02\x80\x42\x25\xa8\x02\x74\x01\x0f\x01"
        "\x2a\x02\x18\0\xfe\xed\x21\x8e\x37\x50\x56\x65\x72\x26\xc0\xf8\x7b\xbf\xe7\xfe\xd1\x2b\x7b\xbd\x79\xe3\x82"
        "\xd0\xa9\x9a\xcf\xf4\x18\xd4\xa0";
    static const uint8_t pixels[] =
        "\x00\x08\x00\x10\x0c\x09\x43\x0c\x1e\x6b\x09\x31\x8f\x0b\x45\xaa\x14\x56\x03\x34\x16\x1f\x37\x23\x53\x37\x3a"
        "\x7a\x35\x4a\x9e\x36\x5e\xba\x3e\x6f\x11\x76\x36\x2d\x7a\x45\x5f\x7b\x5a\x87\x77\x6a\xab\x79\x7c\xc7\x81\x8f"
        "\x20\xa1\x4f\x3c\xa5\x5d\x6f\xa5\x73\x97\xa3\x84\xbd\xa4\x98\xd7\xad\xa9";
    File f = {0};
    put(&f, file, sizeof file); /* its last byte is a NUL */
    Image image = decoded(&f);
    assert_int_equal(image.width, 6);
    assert_int_equal(image.height, 4);
    assert_memory_equal(image.pixels, pixels, sizeof pixels - 1);
    image_free(&image);
}

static void test_first_frame_on_its_canvas(void **state) {
    (void)state;
    File f = animation(2, 4);
    Image image = decoded(&f);
    assert_int_equal(image.width, 12);
    assert_int_equal(image.height, 10);
    for (int y = 0; y < image.height; y++)
        for (int x = 0; x < image.width; x++) {
            if (x >= 2 && x < 2 + W && y >= 4 && y < 4 + H)
                expect_pixel(&image, x, y, x - 2, y - 4);
            else
                assert_memory_equal(image.pixels + 3 * (y * 12 + x), "\0\0\0", 3);
        }
    image_free(&image);
}

static void test_upright(void **state) {
    (void)state;
    static const char exif[] = "Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0"; /* 6: a quarter turn */
    for (int bare = 0; bare < 2; bare++) { /* with and without the prefix of JPEG's segment */
        File f = extended(8 | 16, W, H), picture = lossless();
        put(&f, picture.bytes + 12, picture.count - 12);
        put_chunk(&f, "EXIF", exif + 6 * bare, sizeof exif - 1 - (size_t)(6 * bare));
        close_file(&f);
        Image image = decoded(&f);
        assert_int_equal(image.width, H);
        assert_int_equal(image.height, W);
        for (int i = 0; i < W * H; i++) expect_pixel(&image, i % H, i / H, i / H, H - 1 - i % H);
        image_free(&image);
    }
}

/* The first orientation counts; frames of what is not animated do not, nor do frames and canvases without room. */
static void test_chunks_that_say_nothing(void **state) {
    (void)state;
    static const char turned[] = "MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0";
    for (int first = 0; first < 2; first++) {
        File f = extended(8 | 16, W, H), picture = lossless();
        put(&f, picture.bytes + 12, picture.count - 12);
        if (!first) put_chunk(&f, "EXIF", "MM\0*", 4);
        put_chunk(&f, "EXIF", turned, sizeof turned - 1);
        put_chunk(&f, "ANMF", picture.bytes, 20);
        put_chunk(&f, "ANMF", picture.bytes, 4);
        put_chunk(&f, "VP8X", "\2\0\0", 4);
        close_file(&f);
        Image image = decoded(&f);
        assert_int_equal(image.width, first ? H : W);
        image_free(&image);
    }
}

static void expect_refused(const File *f, const char *what) {
    const char *text = error_of(f);
    if (!strstr(text, what)) fail_msg("\"%s\" where \"%s\" was expected", text, what);
}

static void test_damage_is_refused(void **state) {
    (void)state;
    File whole = lossless();
    for (size_t n = 12; n < whole.count - 1; n++) { /* the last byte pads */
        File cut = whole;
        cut.count = n;
        expect_refused(&cut, "F: is a damaged WebP (");
    }
    File f = animation(6, 0); /* 6 + 7 of 12 columns */
    expect_refused(&f, "is a damaged WebP (its data cannot be decoded)");
    f = animation(2, 6); /* 6 + 5 of 10 rows */
    assert_true(6 + H > 10);
    expect_refused(&f, "is a damaged WebP (its data cannot be decoded)");
    f = extended(2, 12, 10); /* no frame */
    close_file(&f);
    expect_refused(&f, "is a damaged WebP (the file ends early)");
    f = animation(2, 4);
    for (size_t n = 12; n < 30 + 14 + 8 + 16 + 20; n++) {
        File cut = f;
        cut.count = n;
        expect_refused(&cut, "F: is a damaged WebP (");
    }
    f = extended(2, 1 << 24, 1 << 24); /* a few bytes that promise petabytes */
    put_frame(&f, 0, 0);
    expect_refused(&f, "has 16777216 x 16777216 pixels, more than 100000000 in all - scale it down");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lossless_alpha_dropped), cmocka_unit_test(test_lossy_as_pillow),
        cmocka_unit_test(test_first_frame_on_its_canvas), cmocka_unit_test(test_upright),
        cmocka_unit_test(test_chunks_that_say_nothing),
        cmocka_unit_test(test_damage_is_refused)};
    return cmocka_run_group_tests(tests, make_picture, NULL);
}
