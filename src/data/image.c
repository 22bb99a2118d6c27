/* image.c - pictures in memory: which codec reads a file, and which side is up. */
#include "data/image.h"

#include "base/file.h"
#include "data/codec.h"

#include <stdlib.h>
#include <string.h>

#define FILE_MAX_BYTES ((size_t)1 << 30)

void image_free(Image *image) {
    free(image->pixels);
    *image = (Image){0};
}

bool image_new(Image *out, int width, int height, Err *err) {
    CHECK(width > 0 && height > 0, "picture of %d x %d", width, height);
    size_t bytes;
    *out = (Image){0};
    uint8_t *pixels = size_mul((size_t)width * 3, (size_t)height, &bytes) ? malloc(bytes) : NULL;
    if (!pixels)
        return err_set(err, EXIT_MEMORY, "memory: no room for a picture of %d x %d - close other programs", width,
                       height);
    *out = (Image){.width = width, .height = height, .pixels = pixels};
    return true;
}

bool codec_image_new(Image *out, size_t width, size_t height, const char *name, Err *err) {
    size_t pixels = 0;
    *out = (Image){0};
    if (width == 0 || height == 0)
        return err_set(err, EXIT_INPUT, "%s: has a size of %zu x %zu - replace the file", name, width, height);
    if (!size_mul(width, height, &pixels) || pixels > IMAGE_MAX_PIXELS)
        return err_set(err, EXIT_INPUT, "%s: has %zu x %zu pixels, more than %d in all - scale it down", name, width,
                       height, IMAGE_MAX_PIXELS);
    return image_new(out, (int)width, (int)height, err);
}

/* Bytes of a whole number by its TIFF type; 0: it is of another type. */
static size_t number_bytes(unsigned type) {
    static const uint8_t bytes[] = {[3] = 2, [4] = 4, [6] = 1, [8] = 2, [9] = 4, [13] = 4, [16] = 8};
    return type < sizeof bytes ? bytes[type] : 0;
}

static uint64_t number_at(const uint8_t *at, size_t bytes, bool little) {
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++) value = value << 8 | at[little ? bytes - 1 - i : i];
    return value;
}

/* The orientation tag, 0x0112, of the first directory: as Pillow takes it, the first of one or more numbers of any
 * whole type but unsigned bytes, which stand where the entry leads when it has no room for them. Every offset is
 * checked; nothing is followed twice. */
int codec_exif_orientation(const uint8_t *tiff, size_t count) {
    if (count < 8) return 1;
    bool little = memcmp(tiff, "II\x2a\0", 4) == 0;
    if (!little && memcmp(tiff, "MM\0\x2a", 4) != 0) return 1;
    size_t at = number_at(tiff + 4, 4, little);
    if (at > count - 2) return 1;
    size_t entries = number_at(tiff + at, 2, little);
    at += 2;
    for (size_t i = 0; i < entries && count - at >= 12; i++, at += 12) {
        if (number_at(tiff + at, 2, little) != 0x0112) continue;
        size_t bytes = number_bytes((unsigned)number_at(tiff + at + 2, 2, little));
        uint64_t all = bytes * number_at(tiff + at + 4, 4, little);
        size_t where = all > 4 ? number_at(tiff + at + 8, 4, little) : at + 8;
        if (all == 0 || where > count || all > count - where) return 1;
        uint64_t value = number_at(tiff + where, bytes, little);
        return value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 1;
}

/* Turns a picture upright. Orientations as sides of the stored picture: 5 to 8 exchange x and y; then 2, 3, 7, 8 read
 * the stored x backwards and 3, 4, 6, 7 the stored y. */
static bool make_upright(Image *image, int orientation, Err *err) {
    if (orientation == 1) return true;
    bool swap = orientation >= 5;
    bool back_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    bool back_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    int w = image->width, h = image->height;
    Image turned;
    if (!image_new(&turned, swap ? h : w, swap ? w : h, err)) return false;
    ptrdiff_t row = 3 * (ptrdiff_t)w, along_x = back_x ? -3 : 3, along_y = back_y ? -row : row;
    const uint8_t *first = image->pixels + (back_x ? row - 3 : 0) + (back_y ? row * (h - 1) : 0);
    uint8_t *out = turned.pixels;
    for (int y = 0; y < turned.height; y++) {
        const uint8_t *in = first + y * (swap ? along_x : along_y);
        for (int x = 0; x < turned.width; x++, out += 3, in += swap ? along_y : along_x)
            out[0] = in[0], out[1] = in[1], out[2] = in[2];
    }
    image_free(image);
    *image = turned;
    return true;
}

bool image_decode(Image *out, const uint8_t *bytes, size_t count, const char *name, Err *err) {
    int orientation = 1;
    *out = (Image){0};
    Codec *decode = codec_of(bytes, count);
    if (!decode) return codec_refuse_format(bytes, count, name, err);
    if (!decode(out, &orientation, bytes, count, name, err)) return false;
    if (make_upright(out, orientation, err)) return true;
    image_free(out);
    return false;
}

bool image_load(Image *out, const char *path, Err *err) {
    uint8_t *bytes;
    size_t count;
    *out = (Image){0};
    if (!file_read(&bytes, &count, path, FILE_MAX_BYTES, err)) return false;
    bool ok = image_decode(out, bytes, count, path, err);
    free(bytes);
    return ok;
}
