/* test_image.c - decoders and encoders: every kind of damage refused and named, every good file decoded upright, the
 * same pixels encoded to the same bytes. */
#include "base/file.h"
#include "bitmaps.h"
#include "data/image.h"
#include "io/zip.h"
#include "pack.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <setjmp.h>

#include <cmocka.h>
#include <jpeglib.h>

typedef struct {
    uint8_t *bytes;
    size_t count;
} Bytes;

/* smooth, so that JPEG keeps it */
static Image made_picture(int width, int height) {
    Err err = {0};
    Image image;
    assert_true(image_new(&image, width, height, &err));
    for (int i = 0; i < width * height; i++) {
        int x = i % width, y = i / width;
        image.pixels[3 * i] = (uint8_t)(255 * x / width);
        image.pixels[3 * i + 1] = (uint8_t)(255 * y / height);
        image.pixels[3 * i + 2] = (uint8_t)(128 + 60 * (x + y) / (width + height));
    }
    return image;
}

static Bytes made_file(bool jpeg, int width, int height) {
    Err err = {0};
    Bytes b;
    Image image = made_picture(width, height);
    assert_true(jpeg ? image_encode_jpeg(&b.bytes, &b.count, &image, 95, &err)
                     : image_encode_png(&b.bytes, &b.count, &image, &err));
    image_free(&image);
    return b;
}

static const char *error_of(const void *bytes, size_t count) {
    static Err err;
    Image image;
    err = (Err){0};
    if (image_decode(&image, bytes, count, "F", &err)) {
        image_free(&image);
        return "accepted";
    }
    assert_int_equal(err.code, EXIT_INPUT);
    assert_null(image.pixels);
    assert_memory_equal(err.text, "F: ", 3);
    return err.text;
}

static void expect_refused(const void *bytes, size_t count, const char *what) {
    const char *text = error_of(bytes, count);
    if (!strstr(text, what)) fail_msg("\"%s\" where \"%s\" was expected", text, what);
}

static void test_round_trips(void **state) {
    (void)state;
    static const int sizes[][2] = {{1, 1}, {7, 9}, {16, 16}, {1, 300}, {131, 67}};
    for (size_t i = 0; i < COUNTOF(sizes); i++)
        for (int jpeg = 0; jpeg < 2; jpeg++) {
            Err err = {0};
            Image image = made_picture(sizes[i][0], sizes[i][1]), back;
            Bytes a = made_file(jpeg, image.width, image.height), b = made_file(jpeg, image.width, image.height);
            assert_int_equal(a.count, b.count);
            assert_memory_equal(a.bytes, b.bytes, a.count);
            assert_true(image_decode(&back, a.bytes, a.count, "F", &err));
            assert_int_equal(back.width, image.width);
            assert_int_equal(back.height, image.height);
            for (int k = 0; k < 3 * image.width * image.height; k++)
                assert_in_range(abs(back.pixels[k] - image.pixels[k]), 0, jpeg ? 24 : 0);
            image_free(&image), image_free(&back);
            free(a.bytes), free(b.bytes);
        }
}

static void test_other_formats_are_named(void **state) {
    (void)state;
#define REFUSES(bytes, what) expect_refused(bytes, sizeof(bytes) - 1, what)
    REFUSES("", "is empty");
    REFUSES("GIF89a\1\0\1\0\0\0\0;", "is a damaged GIF (no first frame)");
    REFUSES("BM\x46\0\0\0\0\0\0\0", "is a BMP picture - convert");
    REFUSES("II*\0\x08\0\0\0", "is a TIFF picture - convert");
    REFUSES("MM\0*\0\0\0\x08", "is a TIFF picture - convert");
    REFUSES("\0\0\0\x20"
            "ftypheic\0\0\0\0",
            "is a HEIF picture - convert");
    REFUSES("\0\0\0\x20"
            "ftypavif\0\0\0\0",
            "is an AVIF picture - convert");
    REFUSES("\0\0\0\x20"
            "ftypisom\0\0\0\0",
            "is a HEIF, AVIF or film file");
    REFUSES("\n <!DOCTYPE html><html>404", "is an HTML page");
    REFUSES("<HTML><body>", "is an HTML page");
    REFUSES("version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "Git LFS pointer, not the picture itself - run");
    REFUSES("\x1f\x8b\x08\0", "is compressed by gzip - unpack");
    REFUSES("PK\3\4\x14\0", "is a ZIP archive");
    REFUSES("\0", "is none of JPEG, PNG");
    REFUSES("hello", "is none of JPEG, PNG");
    REFUSES("\xff\xd8", "is a damaged JPEG");
    REFUSES("\x89PNG\r\n\x1a\n", "is a damaged PNG (the file ends early)");
}

static void test_small_pngs(void **state) {
    (void)state;
    static const char grey16[] = "\x89\x50\x4e\x47\x0d\x0a\x1a\x0a\x00\x00\x00\x0d\x49\x48\x44\x52\x00\x00\x00\x02\x00"
                                 "\x00\x00\x01\x10\x00\x00\x00\x00\x81\xd9\xfc\x15\x00\x00\x00\x0d\x49\x44\x41\x54\x78"
                                 "\x9c\x63\x10\xfa\xff\xaf\x01\x00\x05\xc6\x02\x90\x1a\xa4\x8b\x99\x00\x00\x00\x00\x49"
                                 "\x45\x4e\x44\xae\x42\x60\x82"; /* 0x12ff, 0xfe80 */
    static const char rgba8[] = "\x89\x50\x4e\x47\x0d\x0a\x1a\x0a\x00\x00\x00\x0d\x49\x48\x44\x52\x00\x00\x00\x01\x00"
                                "\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89\x00\x00\x00\x0d\x49\x44\x41\x54\x78"
                                "\x9c\x63\xe0\x12\x91\x63\x00\x00\x00\xa5\x00\x3d\x69\x98\x88\xbc\x00\x00\x00\x00\x49"
                                "\x45\x4e\x44\xae\x42\x60\x82"; /* 10 20 30, transparent */
    static const char grey1[] = "\x89\x50\x4e\x47\x0d\x0a\x1a\x0a\x00\x00\x00\x0d\x49\x48\x44\x52\x00\x00\x00\x09\x00"
                                "\x00\x00\x01\x01\x00\x00\x00\x00\x24\xb9\xb9\xd0\x00\x00\x00\x0b\x49\x44\x41\x54\x78"
                                "\x9c\x63\xd8\xd4\x00\x00\x01\xe7\x01\x33\xae\x1f\xe3\x1a\x00\x00\x00\x00\x49\x45\x4e"
                                "\x44\xae\x42\x60\x82"; /* 1 0 1 1 0 0 1 0 1 */
    Err err = {0};
    Image image;
    assert_true(image_decode(&image, (const uint8_t *)grey16, sizeof grey16 - 1, "F", &err));
    assert_memory_equal(image.pixels, "\x12\x12\x12\xfe\xfe\xfe", 6); /* the high byte, not rounded */
    image_free(&image);
    assert_true(image_decode(&image, (const uint8_t *)rgba8, sizeof rgba8 - 1, "F", &err));
    assert_memory_equal(image.pixels, "\x0a\x14\x1e", 3);
    image_free(&image);
    assert_true(image_decode(&image, (const uint8_t *)grey1, sizeof grey1 - 1, "F", &err));
    for (int i = 0; i < 9; i++) assert_int_equal(image.pixels[3 * i], "101100101"[i] == '1' ? 255 : 0);
    image_free(&image);
}

/* ---- PNGs by the byte ---- */

static void put_big(Buffer *b, uint32_t value) {
    buffer_put(b, (uint8_t[]){(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8), (uint8_t)value},
               4);
}

static void put_chunk(Buffer *b, const char *type, const void *bytes, size_t count) {
    ZipCrc crc;
    zip_crc_init(&crc);
    put_big(b, (uint32_t)count);
    buffer_put(b, type, 4);
    if (count) buffer_put(b, bytes, count);
    put_big(b, zip_crc(&crc, zip_crc(&crc, 0, type, 4), bytes, count));
}

/* 4 pixels in a row (two in a column of two, interlaced), 0 1 2 255 by a palette of two colours. left_out: bytes
 * missing of the checksum behind the pixels. */
static Buffer palette_png(bool interlaced, size_t left_out) {
    static const uint8_t flat[] = "\x78\1\1\5\0\xfa\xff" "\0\0\1\2\xff" "\1\x0b\1\3",
                         laced[] = "\x78\1\1\7\0\xf8\xff" "\0\0" "\0\1" "\0\2\xff" "\1\x0e\1\3";
    uint8_t header[] = {0, 0, 0, interlaced ? 2 : 4, 0, 0, 0, interlaced ? 2 : 1, 8, 3, 0, 0, interlaced};
    Buffer b = {0};
    buffer_put(&b, "\x89PNG\r\n\x1a\n", 8);
    put_chunk(&b, "IHDR", header, sizeof header);
    put_chunk(&b, "PLTE", "\x0a\x14\x1e\xc8\x64\0", 6);
    put_chunk(&b, "IDAT", interlaced ? laced : flat, (interlaced ? sizeof laced : sizeof flat) - 1 - left_out);
    put_chunk(&b, "IEND", NULL, 0);
    return b;
}

static void expect_palette_pixels(const Buffer *b, size_t count) {
    Err err = {0};
    Image image;
    if (!image_decode(&image, b->bytes, count, "F", &err)) fail_msg("%zu of %zu bytes: %s", count, b->count, err.text);
    assert_memory_equal(image.pixels, "\x0a\x14\x1e\xc8\x64\0\2\2\2\xff\xff\xff", 12); /* not in the palette: grey */
    image_free(&image);
}

/* Damage that touches no pixel is none: an end that is missing or wrong, and the checksum of pixels that are all there.
 * Where a checksum is there and wrong, a pixel may be. */
static void test_pngs_without_an_end(void **state) {
    (void)state;
    for (int interlaced = 0; interlaced < 2; interlaced++) {
        for (size_t left_out = 0; left_out <= 4; left_out++) {
            Buffer b = palette_png(interlaced, left_out);
            for (size_t cut = 0; cut <= 12; cut++) expect_palette_pixels(&b, b.count - cut);
            b.bytes[b.count - 1] ^= 1; /* of the end's own checksum */
            expect_palette_pixels(&b, b.count);
            b.bytes[b.count - 1] ^= 1;
            b.bytes[b.count - 13] ^= 1; /* of the pixels' chunk */
            expect_refused(b.bytes, b.count, "is a damaged PNG (");
            buffer_free(&b);
        }
        Buffer b = palette_png(interlaced, 5); /* the last pixel */
        expect_refused(b.bytes, b.count, "is a damaged PNG (");
        expect_refused(b.bytes, b.count - 12, "is a damaged PNG (");
        buffer_free(&b);
    }
}

/* Cut short before its last pixel, a file is refused; with any bit turned, it is decoded or refused, and no more. */
static void test_every_cut_and_bit(void **state) {
    (void)state;
    for (int jpeg = 0; jpeg < 2; jpeg++) {
        Bytes b = made_file(jpeg, 11, 6);
        assert_string_equal(error_of(b.bytes, b.count), "accepted");
        const size_t needed = b.count - (jpeg ? 0 : 16); /* a PNG's last checksum, and its end */
        for (size_t n = 0; n < b.count; n++) {
            uint8_t *cut = malloc(n ? n : 1); /* of that size, so that reading on is noticed */
            memcpy(cut, b.bytes, n);
            assert_int_equal(strcmp(error_of(cut, n), "accepted") == 0, n >= needed);
            free(cut);
        }
        int refused = 0;
        for (size_t bit = 0; bit < 8 * b.count; bit++) {
            b.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            refused += strcmp(error_of(b.bytes, b.count), "accepted") != 0;
            b.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        assert_true(refused > (jpeg ? 500 : (int)(7 * needed))); /* a PNG's pixels are checksummed throughout */
        free(b.bytes);
    }
}

/* A few bytes that promise gigabytes */
static void test_pixel_budget(void **state) {
    (void)state;
    Bytes b = made_file(true, 16, 16);
    size_t frame = 0;
    while (!(b.bytes[frame] == 0xff && b.bytes[frame + 1] == 0xc0)) frame++;
    memcpy(b.bytes + frame + 5, "\xea\x60\xea\x60", 4); /* 60000 x 60000 */
    expect_refused(b.bytes, b.count, "has 60000 x 60000 pixels, more than 100000000 in all - scale it down");
    free(b.bytes);
}

/* The JPEG with an EXIF segment between its first marker and the rest. */
static Bytes with_exif(Bytes plain, const uint8_t *tiff, size_t count) {
    Bytes b = {mem_zalloc(plain.count + count + 10, 1), plain.count + count + 10};
    size_t length = count + 8;
    memcpy(b.bytes, plain.bytes, 2);
    memcpy(b.bytes + 2, (uint8_t[]){0xff, 0xe1, (uint8_t)(length >> 8), (uint8_t)length}, 4);
    memcpy(b.bytes + 6, "Exif\0\0", 6);
    memcpy(b.bytes + 12, tiff, count);
    memcpy(b.bytes + 12 + count, plain.bytes + 2, plain.count - 2);
    return b;
}

static void test_exif_orientations(void **state) {
    (void)state;
    Err err = {0};
    Bytes plain = made_file(true, 40, 24);
    Image stored;
    assert_true(image_decode(&stored, plain.bytes, plain.count, "F", &err));
    int w = stored.width, h = stored.height;
    for (int o = 1; o <= 8; o++)
        for (int big = 0; big < 2; big++) {
            uint8_t little_tiff[] = {'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0};
            uint8_t big_tiff[] = {'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0};
            little_tiff[18] = big_tiff[19] = (uint8_t)o;
            Bytes b = with_exif(plain, big ? big_tiff : little_tiff, sizeof big_tiff);
            Image image;
            assert_true(image_decode(&image, b.bytes, b.count, "F", &err));
            assert_int_equal(image.width, o < 5 ? w : h);
            assert_int_equal(image.height, o < 5 ? h : w);
            for (int y = 0; y < image.height; y++)
                for (int x = 0; x < image.width; x++) {
                    /* where the stored row 0 and column 0 are seen, by the standard's table */
                    const int from[8][2] = {{x, y}, {w - 1 - x, y}, {w - 1 - x, h - 1 - y}, {x, h - 1 - y},
                                            {y, x}, {y, h - 1 - x}, {w - 1 - y, h - 1 - x}, {w - 1 - y, x}};
                    assert_memory_equal(image.pixels + 3 * (y * image.width + x),
                                        stored.pixels + 3 * (from[o - 1][1] * w + from[o - 1][0]), 3);
                }
            image_free(&image);
            free(b.bytes);
        }
    image_free(&stored);
    free(plain.bytes);
}

static void test_bad_exif_is_ignored(void **state) {
    (void)state;
    Err err = {0};
    static const struct {
        size_t count;
        const char *tiff;
    } rows[] = {
        {0, ""},
        {4, "II*\0"},
        {8, "XX*\0\x08\0\0\0"},
        {8, "II*\0\xff\xff\xff\xff"},
        {8, "II*\0\x06\0\0\0"},
        {10, "II*\0\x08\0\0\0\xff\xff"},
        {21, "II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0"},     /* cut inside the entry */
        {22, "II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\0\0\0\0"},   /* orientation 0 */
        {22, "II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\x09\0\0\0"}, /* 9 */
        {22, "II*\0\x08\0\0\0\1\0\x12\1\3\0\2\0\0\0\x09\0\6\0"}, /* 9 and another */
        {22, "II*\0\x08\0\0\0\1\0\x12\1\3\0\0\0\0\0\6\0\0\0"},   /* none */
        {22, "II*\0\x08\0\0\0\1\0\x12\1\3\0\3\0\0\0\x11\0\0\0"}, /* three of them, cut short */
        {22, "II*\0\x08\0\0\0\1\0\x12\1\3\0\3\0\0\0\xff\0\0\0"}, /* out of the file */
        {22, "II*\0\x08\0\0\0\1\0\x12\1\3\0\xff\xff\xff\xff\x08\0\0\0"},
        {22, "II*\0\x08\0\0\0\1\0\x12\1\4\0\1\0\0\0\6\0\1\0"},   /* 65542 */
        {22, "II*\0\x08\0\0\0\1\0\x12\1\1\0\1\0\0\0\6\0\0\0"},   /* unsigned bytes are a text to Pillow */
        {22, "II*\0\x08\0\0\0\1\0\x12\1\xff\0\1\0\0\0\6\0\0\0"},
        {22, "II*\0\x08\0\0\0\1\0\x12\1\2\0\1\0\0\0\6\0\0\0"},   /* a text */
        {22, "MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\6\0\0\0"},   /* 0x0600 */
    };
    Bytes plain = made_file(true, 8, 16);
    Image stored, image;
    assert_true(image_decode(&stored, plain.bytes, plain.count, "F", &err));
    for (size_t i = 0; i < COUNTOF(rows); i++) {
        Bytes b = with_exif(plain, (const uint8_t *)rows[i].tiff, rows[i].count);
        assert_true(image_decode(&image, b.bytes, b.count, "F", &err));
        assert_int_equal(image.width, 8);
        assert_memory_equal(image.pixels, stored.pixels, 3 * 8 * 16);
        image_free(&image);
        free(b.bytes);
    }
    image_free(&stored);
    free(plain.bytes);
}

/* Orientation 6 as writers of other types wrote it, and as Pillow 13 takes it. */
static void test_exif_of_other_types(void **state) {
    (void)state;
    Err err = {0};
    static const struct {
        size_t count;
        const char *tiff;
    } rows[] = {
        {22, "II*\0\x08\0\0\0\1\0\x12\1\3\0\2\0\0\0\6\0\1\0"},  /* the first of two */
        {28, "II*\0\x08\0\0\0\1\0\x12\1\3\0\3\0\0\0\x16\0\0\0\6\0\1\0\1\0"}, /* of three, elsewhere */
        {22, "II*\0\x08\0\0\0\1\0\x12\1\4\0\1\0\0\0\6\0\0\0"},  /* LONG */
        {22, "MM\0*\0\0\0\x08\0\1\1\x12\0\4\0\0\0\1\0\0\0\6"},
        {30, "MM\0*\0\0\0\x08\0\1\1\x12\0\4\0\0\0\2\0\0\0\x16\0\0\0\6\0\0\0\1"},
        {22, "MM\0*\0\0\0\x08\0\1\1\x12\0\6\0\0\0\1\6\0\0\0"},  /* signed: SBYTE, SSHORT, SLONG */
        {22, "MM\0*\0\0\0\x08\0\1\1\x12\0\x08\0\0\0\1\0\6\0\0"},
        {22, "II*\0\x08\0\0\0\1\0\x12\1\x09\0\1\0\0\0\6\0\0\0"},
    };
    Bytes plain = made_file(true, 8, 16);
    for (size_t i = 0; i < COUNTOF(rows); i++) {
        Image image;
        Bytes b = with_exif(plain, (const uint8_t *)rows[i].tiff, rows[i].count);
        assert_true(image_decode(&image, b.bytes, b.count, "F", &err));
        if (image.width != 16 || image.height != 8) fail_msg("row %zu is not turned", i);
        image_free(&image);
        free(b.bytes);
    }
    free(plain.bytes);
}

/* A grey progressive JPEG: one scan of means, then one scan per coefficient and bit. */
static Bytes many_scans(int scans) {
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    jpeg_scan_info script[128] = {{.comps_in_scan = 1}};
    unsigned char *bytes = NULL;
    unsigned long count = 0;
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &bytes, &count);
    jpeg.image_width = jpeg.image_height = 8;
    jpeg.input_components = 1;
    jpeg.in_color_space = JCS_GRAYSCALE;
    jpeg_set_defaults(&jpeg);
    for (int i = 1; i < scans; i++)
        script[i] = (jpeg_scan_info){
            .comps_in_scan = 1, .Ss = (i - 1) % 63 + 1, .Se = (i - 1) % 63 + 1, .Ah = i > 63, .Al = i <= 63};
    jpeg.scan_info = script;
    jpeg.num_scans = scans;
    jpeg_start_compress(&jpeg, TRUE);
    JSAMPROW row = (JSAMPROW) "\0\x40\x80\xc0\xff\x33\x55\x77";
    while (jpeg.next_scanline < 8) jpeg_write_scanlines(&jpeg, &row, 1);
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    return (Bytes){bytes, count};
}

static void test_scan_limit(void **state) {
    (void)state;
    Bytes b = many_scans(100);
    assert_string_equal(error_of(b.bytes, b.count), "accepted");
    free(b.bytes);
    b = many_scans(101);
    expect_refused(b.bytes, b.count, "is a damaged JPEG (more than 100 scans)");
    free(b.bytes);
}

static void test_load_names_the_file(void **state) {
    (void)state;
    Err err = {0};
    Image image;
    assert_false(image_load(&image, "/nonexistent/x.jpg", &err));
    assert_int_equal(err.code, EXIT_INPUT);
    assert_non_null(strstr(err.text, "/nonexistent/x.jpg: "));
}

/* The next field of a CSV record: quotes taken off, "" not met in the columns read here. */
static char *next_field(char **at) {
    char *field = *at, *end;
    if (*field == '"') {
        end = strchr(++field, '"');
        *at = end[1] ? end + 2 : end + 1;
    } else {
        end = field + strcspn(field, ",\n");
        *at = *end ? end + 1 : end;
    }
    *end = '\0';
    return field;
}

/* One line of the manifest; adds to counts what came of it. */
static void check_manifest_line(const char *pack, char *line, int counts[3]) {
    char *f[9]; /* file,expected,category,real_format,width,height,pillow_mode,exif_orientation,mean_rgb */
    for (size_t i = 0; i < COUNTOF(f); i++) f[i] = next_field(&line);
    char *path = path_join(pack, f[0]);
    Err err = {0};
    Image image;
    double begin = time_now();
    bool ok = image_load(&image, path, &err);
    assert_true(time_now() - begin < 5);
    if (!ok) {
        assert_int_equal(err.code, EXIT_INPUT);
        if (strlen(path) < 200) assert_non_null(strstr(err.text, strrchr(path, '/') + 1));
        assert_non_null(strstr(err.text, " - "));
    }
    if (strcmp(f[1], "must be rejected") == 0) {
        if (ok) fail_msg("%s was accepted", path);
        counts[0]++;
    } else if (strcmp(f[1], "decodes") == 0) {
        if (!ok) fail_msg("%s", err.text);
        bool turned = f[7][0] >= '5';
        assert_int_equal(turned ? image.height : image.width, strtol(f[4], NULL, 10));
        assert_int_equal(turned ? image.width : image.height, strtol(f[5], NULL, 10));
        size_t pixels = (size_t)image.width * (size_t)image.height;
        char *mean = f[8];
        /* mode I: 16-bit grey, which Pillow cuts off at 255 instead of taking the high byte */
        for (int c = 0; c < 3 && strcmp(f[6], "I") != 0; c++) {
            double sum = 0;
            for (size_t i = 0; i < pixels; i++) sum += image.pixels[3 * i + (size_t)c];
            double want = strtod(mean, &mean), apart = sum / (double)pixels - want;
            if (apart < -0.1 || apart > 0.1) fail_msg("%s: mean %g, not %g", path, sum / (double)pixels, want);
        }
        counts[1]++;
    } else {
        counts[2]++;
    }
    image_free(&image);
    free(path);
}

static void test_bad_images(void **state) {
    (void)state;
    char *pack = pack_open("bad_images");
    if (!pack) skip();
    Err err = {0};
    uint8_t *bytes;
    size_t count;
    int counts[3] = {0};
    char *manifest = path_join(pack, "manifest.csv");
    assert_true(file_read(&bytes, &count, manifest, 1 << 20, &err));
    char *line = strchr((char *)bytes, '\n') + 1;
    while (*line) {
        char *next = strchr(line, '\n');
        next = next ? next + 1 : line + strlen(line);
        check_manifest_line(pack, line, counts);
        line = next;
    }
    assert_int_equal(counts[0], 60);
    assert_int_equal(counts[1], 90);
    assert_int_equal(counts[2], 55);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    assert_true(usage.ru_maxrss < 256 * 1024); /* kB: no header's promise is believed */
    free(manifest), free(bytes);
    pack_close(pack);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips),         cmocka_unit_test(test_other_formats_are_named),
        cmocka_unit_test(test_small_pngs),          cmocka_unit_test(test_every_cut_and_bit),
        cmocka_unit_test(test_pngs_without_an_end),
        cmocka_unit_test(test_pixel_budget),        cmocka_unit_test(test_exif_orientations),
        cmocka_unit_test(test_bad_exif_is_ignored), cmocka_unit_test(test_exif_of_other_types),
        cmocka_unit_test(test_scan_limit),
        cmocka_unit_test(test_load_names_the_file), cmocka_unit_test(test_bad_images),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
