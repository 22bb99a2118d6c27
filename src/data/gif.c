/* gif.c - a GIF's first frame, on its canvas, by palette: pixels as Pillow's. What the frame does not cover has the
 * transparent colour or, without one, colour 0; transparency is dropped. Codes are LZW, each byte is read once, and no
 * more pixels are made than the frame has. Refuses a frame that ends early. */
#include "data/codec.h"

#include <string.h>

enum { CODES = 4096, GREY = 256 };

typedef struct {
    const uint8_t *bytes;
    size_t count, at;
    size_t block_end; /* of the sub-block whose bytes are codes */
    uint32_t held;    /* bits not yet taken, the next one lowest */
    int held_bits;
    bool ended;
} Stream;

typedef struct {
    uint8_t palette[GREY][3];
    size_t width, height;                /* of the canvas */
    size_t x, y, frame_width, frame_height;
    int background;                      /* colour of what the frame does not cover */
    int bits;                            /* of the smallest codes */
    bool interlaced;
} Frame;

static int byte_of(Stream *s) {
    if (s->at < s->count) return s->bytes[s->at++];
    s->ended = true;
    return 0;
}

static size_t short_of(Stream *s) {
    size_t low = (size_t)byte_of(s);
    return low | (size_t)byte_of(s) << 8;
}

static void grey_levels(Frame *f) {
    for (int i = 0; i < GREY; i++) memset(f->palette[i], i, 3);
}

/* Colours that a palette does not name are black; grey levels where there is no palette, or one that names nothing
 * else. */
static void read_palette(Stream *s, Frame *f, int flags) {
    if (!(flags & 0x80)) return;
    bool grey = true;
    memset(f->palette, 0, sizeof f->palette);
    for (int i = 0; i < 2 << (flags & 7); i++)
        for (int c = 0; c < 3; c++) {
            f->palette[i][c] = (uint8_t)byte_of(s);
            grey = grey && f->palette[i][c] == i;
        }
    if (grey) grey_levels(f);
}

/* Behind '!'. Of all extensions only the transparent colour matters. */
static void read_extension(Stream *s, Frame *f) {
    int label = byte_of(s);
    bool first = true;
    for (size_t length; (length = (size_t)byte_of(s)) > 0; first = false) {
        const uint8_t *block = s->bytes + s->at;
        if (length > s->count - s->at) {
            s->ended = true;
            return;
        }
        if (label == 0xf9 && first && length >= 4 && block[0] & 1) f->background = block[3];
        s->at += length;
    }
}

/* Up to the first code. False: there is no frame. */
static bool read_frame(Stream *s, Frame *f) {
    s->at = 6;
    f->width = short_of(s), f->height = short_of(s);
    int flags = byte_of(s), c;
    s->at += 2; /* background, which nobody shows, and aspect */
    grey_levels(f);
    if (s->at > s->count) return false;
    read_palette(s, f, flags);
    while ((c = byte_of(s)) != ',') {
        if (c == '!') read_extension(s, f);
        if (c == ';' || s->ended) return false;
    }
    f->x = short_of(s), f->y = short_of(s);
    f->frame_width = short_of(s), f->frame_height = short_of(s);
    flags = byte_of(s);
    f->interlaced = flags & 0x40;
    read_palette(s, f, flags);
    f->bits = byte_of(s);
    f->width = MAX(f->width, f->x + f->frame_width), f->height = MAX(f->height, f->y + f->frame_height);
    s->block_end = s->at;
    return !s->ended;
}

/* The next code of so many bits; -1: the codes end. */
static int code_of(Stream *s, int bits) {
    while (s->held_bits < bits) {
        if (s->at == s->block_end) {
            size_t length = (size_t)byte_of(s);
            s->block_end = s->at + length;
            if (length == 0) return -1;
        }
        s->held |= (uint32_t)byte_of(s) << s->held_bits;
        if (s->ended) return -1;
        s->held_bits += 8;
    }
    int code = (int)(s->held & ((1u << bits) - 1));
    s->held >>= bits, s->held_bits -= bits;
    return code;
}

/* The row of the frame that comes n-th. */
static size_t row_of(const Frame *f, size_t n) {
    static const size_t first[] = {0, 4, 2, 1}, step[] = {8, 8, 4, 2};
    if (!f->interlaced) return n;
    for (int pass = 0; pass < 4; pass++) {
        size_t rows = f->frame_height > first[pass] ? CEIL_DIV(f->frame_height - first[pass], step[pass]) : 0;
        if (n < rows) return first[pass] + n * step[pass];
        n -= rows;
    }
    return 0;
}

static void put(Image *out, const Frame *f, size_t n, uint8_t colour) {
    size_t row = f->y + row_of(f, n / f->frame_width), column = f->x + n % f->frame_width;
    memcpy(out->pixels + 3 * (row * f->width + column), f->palette[colour], 3);
}

/* A code stands for the pixels of an earlier one (before) and one more (last); those below `clear` for themselves. */
typedef struct {
    uint16_t before[CODES];
    uint8_t last[CODES], first[CODES];
    uint16_t length[CODES];
} Table;

/* False: the codes end before the frame does, or mean nothing. */
static bool read_codes(Stream *s, const Frame *f, Table *t, Image *out) {
    const int clear = 1 << f->bits;
    const size_t total = f->frame_width * f->frame_height;
    int next = clear + 2, width = f->bits + 1, previous = -1, code;
    for (int i = 0; i < clear; i++) t->last[i] = t->first[i] = (uint8_t)i, t->length[i] = 1;
    for (size_t n = 0; n < total;) {
        if ((code = code_of(s, width)) < 0 || code == clear + 1) return false;
        if (code == clear) {
            next = clear + 2, width = f->bits + 1, previous = -1;
            continue;
        }
        if (previous < 0 ? code > clear : code > next || (code == next && next == CODES)) return false;
        if (previous >= 0 && next < CODES) {
            t->before[next] = (uint16_t)previous;
            t->first[next] = t->first[previous];
            t->last[next] = t->first[code == next ? previous : code];
            t->length[next] = (uint16_t)(t->length[previous] + 1);
            if (++next == 1 << width && width < 12) width++;
        }
        size_t length = t->length[code];
        for (size_t k = length, at = (size_t)code; k-- > 0; at = t->before[at])
            if (n + k < total) put(out, f, n + k, t->last[at]);
        n += length;
        previous = code;
    }
    return true;
}

bool codec_gif_decode(Image *out, int *orientation, const uint8_t *bytes, size_t count, const char *name, Err *err) {
    Stream s = {.bytes = bytes, .count = count};
    Frame f = {0};
    Table table;
    *orientation = 1;
    if (!read_frame(&s, &f) || f.bits > 8 || f.frame_width == 0 || f.frame_height == 0)
        return err_set(err, EXIT_INPUT, "%s: is a damaged GIF (no first frame) - replace it or leave it out", name);
    if (!codec_image_new(out, f.width, f.height, name, err)) return false;
    for (size_t i = 0; i < f.width * f.height; i++) memcpy(out->pixels + 3 * i, f.palette[f.background], 3);
    if (read_codes(&s, &f, &table, out)) return true;
    image_free(out);
    return err_set(err, EXIT_INPUT, "%s: is a damaged GIF (its first frame ends early) - replace it or leave it out",
                   name);
}
