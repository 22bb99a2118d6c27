/* bmp.c - BMP: 1 to 32 bits a pixel, palettes, masks of whole bytes or 5 and 6 bits, bottom or top row first; pixels as
 * Pillow's. Run lengths, JPEG and PNG inside are refused by name. Every offset is checked before it is followed. */
#include "data/codec.h"

#include <string.h>

#define UNKNOWN_PIXELS "a kind of pixels that mala does not read"

enum { COLOURS = 256 };

typedef struct {
    size_t width, height;
    int bits;
    bool top_first;
    const uint8_t *pixels;
    uint32_t mask[3]; /* red, green, blue of 16 and 32 bits */
    uint8_t palette[COLOURS][3];
} Bitmap;

static uint32_t number(const uint8_t *bytes, int count) {
    uint32_t n = 0;
    for (int i = count; i-- > 0;) n = n << 8 | bytes[i];
    return n;
}

/* Colours that the palette does not name are black. Stored as blue, green, red and, of `size` 4, nothing. */
static size_t read_palette(Bitmap *b, const uint8_t *at, size_t left, size_t colours, size_t size) {
    for (size_t i = 0; i < MIN(colours, COLOURS) && (i + 1) * size <= left; i++)
        for (int c = 0; c < 3; c++) b->palette[i][c] = at[i * size + (size_t)(2 - c)];
    return colours * size;
}

static void use_masks(Bitmap *b, uint32_t red, uint32_t green, uint32_t blue) {
    b->mask[0] = red, b->mask[1] = green, b->mask[2] = blue;
}

/* Where the masks of a picture with masks stand: in the header or, of the short one, right behind it. */
static bool read_masks(Bitmap *b, const uint8_t *header, size_t header_bytes, size_t left, size_t *behind) {
    if (header_bytes == 40) *behind = 12;
    if (header_bytes + *behind > left) return false;
    for (int c = 0; c < 3; c++) b->mask[c] = number(header + 40 + 4 * c, 4);
    if (b->bits == 32 && !b->mask[0] && !b->mask[1] && !b->mask[2]) use_masks(b, 0xff0000, 0xff00, 0xff);
    return true;
}

bool codec_bmp_has_header(const uint8_t *bytes, size_t count) {
    uint32_t size = count >= 18 ? number(bytes + 14, 4) : 0;
    return size == 12 || size == 40 || size == 52 || size == 56 || size == 64 || size == 108 || size == 124;
}

/* NULL, or what is wrong. */
static const char *read_header(Bitmap *b, const uint8_t *bytes, size_t count) {
    if (count < 26) return "the file ends early";
    const uint8_t *header = bytes + 14;
    size_t size = number(header, 4), offset = number(bytes + 10, 4), behind = 0, colours = 0, left = count - 14;
    if (size > left) return "the file ends early";
    uint32_t compression = 0;
    if (size == 12) {
        b->width = number(header + 4, 2), b->height = number(header + 6, 2), b->bits = (int)number(header + 10, 2);
    } else {
        b->top_first = header[11] == 0xff;
        b->width = number(header + 4, 4), b->bits = (int)number(header + 14, 2);
        b->height = b->top_first ? (uint32_t)-number(header + 8, 4) : number(header + 8, 4);
        compression = number(header + 16, 4), colours = number(header + 32, 4);
    }
    if (compression != 0 && compression != 3) return "its pixels are compressed, which mala does not read";
    if (b->bits != 1 && b->bits != 4 && b->bits != 8 && b->bits != 16 && b->bits != 24 && b->bits != 32)
        return UNKNOWN_PIXELS;
    if (b->bits == 16) use_masks(b, 0x7c00, 0x3e0, 0x1f);
    if (b->bits == 32) use_masks(b, 0xff0000, 0xff00, 0xff);
    if (compression == 3 && !read_masks(b, header, size, left, &behind)) return "the file ends early";
    if (b->bits <= 8) {
        if (colours == 0) colours = (size_t)1 << b->bits;
        if (colours > 65536) return "a palette of unknown size";
        behind += read_palette(b, header + size + behind, left - size - behind, colours, size == 12 ? 3 : 4);
    }
    if (offset == 0 || (offset == 14 + size && b->bits <= 8)) offset = 14 + size + behind;
    if (offset > count) return "the file ends early";
    b->pixels = bytes + offset;
    return NULL;
}

/* The value of some bits of a pixel as 0 to 255. */
static uint8_t masked(uint32_t pixel, uint32_t mask) {
    int shift = __builtin_ctz(mask);
    return (uint8_t)(((pixel & mask) >> shift) * 255 / (mask >> shift));
}

static void read_row(uint8_t *out, const Bitmap *b, const uint8_t *row) {
    for (size_t x = 0; x < b->width; x++, out += 3) {
        if (b->bits <= 8) {
            size_t bit = x * (size_t)b->bits;
            int index = row[bit / 8] >> (8 - b->bits - (int)(bit % 8)) & ((1 << b->bits) - 1);
            memcpy(out, b->palette[index], 3);
        } else if (b->bits == 24) {
            out[0] = row[3 * x + 2], out[1] = row[3 * x + 1], out[2] = row[3 * x];
        } else {
            uint32_t pixel = number(row + x * (size_t)b->bits / 8, b->bits / 8);
            for (int c = 0; c < 3; c++) out[c] = masked(pixel, b->mask[c]);
        }
    }
}

/* Whether every mask is of up to 8 neighbouring bits. */
static bool masks_are_known(const Bitmap *b) {
    for (int c = 0; c < 3 && (b->bits == 16 || b->bits == 32); c++) {
        uint32_t mask = b->mask[c];
        if (!mask) return false;
        mask >>= __builtin_ctz(mask);
        if (mask > 255 || (mask & (mask + 1))) return false;
    }
    return true;
}

bool codec_bmp_decode(Image *out, int *orientation, const uint8_t *bytes, size_t count, const char *name, Err *err) {
    Bitmap b = {0};
    *orientation = 1;
    const char *problem = read_header(&b, bytes, count);
    if (!problem && !masks_are_known(&b)) problem = UNKNOWN_PIXELS;
    if (problem)
        return err_set(err, EXIT_INPUT, "%s: is a BMP that cannot be read (%s) - convert it to PNG", name, problem);
    if (!codec_image_new(out, b.width, b.height, name, err)) return false;
    size_t row_bytes = (b.width * (size_t)b.bits + 31) / 32 * 4, left = count - (size_t)(b.pixels - bytes);
    if (row_bytes * b.height > left) {
        image_free(out);
        return err_set(err, EXIT_INPUT, "%s: is a damaged BMP (the file ends early) - replace it or leave it out",
                       name);
    }
    for (size_t y = 0; y < b.height; y++)
        read_row(out->pixels + 3 * b.width * y, &b, b.pixels + row_bytes * (b.top_first ? y : b.height - 1 - y));
    return true;
}
