#include "bitmaps.h"

#include <string.h>

void bitmap_colour(uint8_t out[3], int i) {
    out[0] = (uint8_t)(31 * i + 7), out[1] = (uint8_t)(255 - 3 * i), out[2] = (uint8_t)(i * i);
}

/* ---- GIF ---- */

typedef struct {
    Buffer *out;
    uint8_t block[255];
    size_t count;
    uint32_t held;
    int bits;
} Codes;

static void put_byte(Buffer *b, int value) { buffer_put_uint(b, (uint64_t)value, 1); }

static void end_block(Codes *c) {
    put_byte(c->out, (int)c->count);
    buffer_put(c->out, c->block, c->count);
    c->count = 0;
}

static void put_code(Codes *c, int code, int width) {
    c->held |= (uint32_t)code << c->bits;
    for (c->bits += width; c->bits >= 8; c->bits -= 8, c->held >>= 8) {
        c->block[c->count++] = (uint8_t)c->held;
        if (c->count == sizeof c->block) end_block(c);
    }
}

static void put_codes(Buffer *out, const uint8_t *colours, size_t count, int bits) {
    static uint16_t child[4096][256]; /* 0: none, which is no code of two pixels */
    Codes c = {.out = out};
    int clear = 1 << bits, next = clear + 2, width = bits + 1, prefix = colours[0];
    memset(child, 0, sizeof child);
    put_code(&c, clear, width);
    for (size_t i = 1; i < count; i++) {
        if (child[prefix][colours[i]]) {
            prefix = child[prefix][colours[i]];
            continue;
        }
        put_code(&c, prefix, width);
        if (next < 4096) {
            child[prefix][colours[i]] = (uint16_t)next;
            if (next++ == 1 << width && width < 12) width++;
        }
        prefix = colours[i];
    }
    put_code(&c, prefix, width);
    /* a reader's table is one entry behind the writer's, and may have grown by the last code */
    if (next == 1 << width && width < 12) width++;
    put_code(&c, clear + 1, width);
    if (c.bits > 0) put_code(&c, 0, 8 - c.bits);
    if (c.count) end_block(&c);
    put_byte(out, 0);
}

static void put_palette(Buffer *out, int bits, int first) {
    for (int i = 0; i < 1 << bits; i++) {
        uint8_t colour[3];
        bitmap_colour(colour, first + i);
        buffer_put(out, colour, 3);
    }
}

static void put_numbers(Buffer *out, const int *values, int count) {
    for (int i = 0; i < count; i++) buffer_put_uint(out, (uint64_t)values[i], 2);
}

/* The rows of every eighth, fourth, second. */
static void put_pixels(Buffer *out, const GifSpec *s) {
    static const int first[] = {0, 4, 2, 1, 0}, step[] = {8, 8, 4, 2, 1};
    Buffer ordered = {0};
    for (int pass = s->interlaced ? 0 : 4; pass < (s->interlaced ? 4 : 5); pass++)
        for (int y = first[pass]; y < s->h; y += step[pass])
            buffer_put(&ordered, s->colours + (size_t)y * (size_t)s->w, (size_t)s->w);
    int bits = s->bits < 2 ? 2 : s->bits;
    put_byte(out, bits);
    put_codes(out, ordered.bytes, ordered.count, bits);
    buffer_free(&ordered);
}

Buffer gif_make(const GifSpec *s) {
    Buffer b = {0};
    buffer_put(&b, "GIF89a", 6);
    put_numbers(&b, (int[]){s->width, s->height}, 2);
    buffer_put(&b, (uint8_t[]){(uint8_t)(0x80 | (s->bits - 1)), 0, 0}, 3);
    put_palette(&b, s->bits, s->local ? 100 : 0);
    buffer_put(&b, "!\xfe\5hello\0", 9);
    if (s->transparent >= 0) buffer_put(&b, (uint8_t[]){'!', 0xf9, 4, 1, 0, 0, (uint8_t)s->transparent, 0}, 8);
    put_byte(&b, ',');
    put_numbers(&b, (int[]){s->x, s->y, s->w, s->h}, 4);
    put_byte(&b, (s->local ? 0x80 | (s->bits - 1) : 0) | (s->interlaced ? 0x40 : 0));
    if (s->local) put_palette(&b, s->bits, 0);
    put_pixels(&b, s);
    put_byte(&b, ';');
    return b;
}

/* ---- BMP ---- */

static void put_row(Buffer *out, const BmpSpec *s, const uint32_t *values) {
    size_t before = out->count;
    for (int x = 0; x < s->width;) {
        if (s->bits >= 8) {
            buffer_put_uint(out, values[x++], (size_t)s->bits / 8);
            continue;
        }
        int byte = 0;
        for (int k = 0; k < 8 / s->bits; k++, x++) byte = byte << s->bits | (x < s->width ? (int)values[x] : 0);
        put_byte(out, byte);
    }
    while ((out->count - before) % 4) put_byte(out, 0);
}

static void put_header(Buffer *b, const BmpSpec *s) {
    const size_t size = s->header == 12 ? 2 : 4;
    buffer_put_uint(b, (uint64_t)s->header, 4);
    buffer_put_uint(b, (uint64_t)s->width, size);
    buffer_put_uint(b, (uint64_t)(s->top_first ? -s->height : s->height), size);
    put_numbers(b, (int[]){1, s->bits}, 2);
    if (s->header == 12) return;
    buffer_put_uint(b, s->mask ? 3 : 0, 4);
    for (int i = 0; i < 5; i++) buffer_put_uint(b, 0, 4);
    for (int i = 0; i < 3 && s->mask; i++) buffer_put_uint(b, s->mask[i], 4);
    while (b->count < (size_t)(14 + s->header)) put_byte(b, 0);
}

Buffer bmp_make(const BmpSpec *s) {
    Buffer b = {0};
    buffer_put(&b, "BM\0\0\0\0\0\0\0\0\0\0\0\0", 14);
    put_header(&b, s);
    for (int i = 0; s->bits <= 8 && i < 1 << s->bits; i++) {
        uint8_t colour[3];
        bitmap_colour(colour, i);
        buffer_put(&b, (uint8_t[]){colour[2], colour[1], colour[0], 0}, s->header == 12 ? 3 : 4);
    }
    for (int i = 0; i < 4; i++) b.bytes[10 + i] = (uint8_t)(b.count >> 8 * i);
    for (int y = 0; y < s->height; y++)
        put_row(&b, s, s->values + (size_t)(s->top_first ? y : s->height - 1 - y) * (size_t)s->width);
    return b;
}
