/* webp.c - WebP through libwebp's plain decoder: lossy, lossless and with alpha, which is dropped as Pillow's
 * convert("RGB") drops it. Of an animation the first frame is read, on its canvas, black where it does not reach. The
 * container is walked here: for the first frame and for EXIF, which the decoder does not know. */
#include "data/codec.h"

#include <string.h>

#include <webp/decode.h>

/* What the container says. */
typedef struct {
    bool animated;
    size_t width, height;  /* of the canvas, where animated */
    const uint8_t *stream; /* what the decoder is given: the whole file, or the first frame's chunks */
    size_t stream_bytes;
    size_t x, y; /* of the first frame on the canvas */
    const uint8_t *exif;
    size_t exif_bytes;
} Parts;

static size_t number(const uint8_t *bytes, int count) {
    size_t n = 0;
    for (int i = count; i-- > 0;) n = n << 8 | bytes[i];
    return n;
}

static bool is(const uint8_t *chunk, const char *name) { return memcmp(chunk, name, 4) == 0; }

/* A chunk is its name, its length and so many bytes, padded to an even number. */
static void take_chunk(Parts *p, const uint8_t *chunk, const uint8_t *body, size_t length) {
    if (is(chunk, "VP8X") && length >= 10) {
        p->animated = body[0] & 2;
        p->width = number(body + 4, 3) + 1, p->height = number(body + 7, 3) + 1;
    } else if (is(chunk, "ANMF") && length > 16 && p->animated && !p->stream) {
        p->x = 2 * number(body, 3), p->y = 2 * number(body + 3, 3);
        p->stream = body + 16, p->stream_bytes = length - 16;
    } else if (is(chunk, "EXIF") && !p->exif) {
        p->exif = body, p->exif_bytes = length;
        if (length > 6 && memcmp(body, "Exif\0\0", 6) == 0) p->exif += 6, p->exif_bytes -= 6;
    }
}

static Parts parts_of(const uint8_t *bytes, size_t count) {
    Parts p = {0};
    for (size_t at = 12; count - at >= 8;) {
        size_t length = number(bytes + at + 4, 4), left = count - at - 8;
        if (length > left) break;
        take_chunk(&p, bytes + at, bytes + at + 8, length);
        length += length & 1;
        at += 8 + MIN(length, left);
    }
    if (!p.animated) p.stream = bytes, p.stream_bytes = count;
    return p;
}

static bool fail(VP8StatusCode status, const char *name, Err *err) {
    if (status == VP8_STATUS_OUT_OF_MEMORY)
        return err_set(err, EXIT_MEMORY, "%s: no memory to decode it - close other programs", name);
    const char *what = status == VP8_STATUS_NOT_ENOUGH_DATA || status == VP8_STATUS_SUSPENDED ? "the file ends early"
                       : status == VP8_STATUS_UNSUPPORTED_FEATURE ? "a feature that libwebp does not know"
                                                                   : "its data cannot be decoded";
    return err_set(err, EXIT_INPUT, "%s: is a damaged WebP (%s) - replace it or leave it out", name, what);
}

/* Into the frame's place on the canvas. */
static bool decode_frame(Image *out, const Parts *p, WebPDecoderConfig *c, const char *name, Err *err) {
    size_t row = 3 * (size_t)out->width, first = p->y * row + 3 * p->x;
    c->output.colorspace = MODE_RGB;
    c->output.is_external_memory = 1;
    c->output.u.RGBA = (WebPRGBABuffer){
        .rgba = out->pixels + first, .stride = (int)row, .size = row * (size_t)out->height - first};
    VP8StatusCode status = WebPDecode(p->stream, p->stream_bytes, c);
    WebPFreeDecBuffer(&c->output);
    return status == VP8_STATUS_OK || fail(status, name, err);
}

bool codec_webp_decode(Image *out, int *orientation, const uint8_t *bytes, size_t count, const char *name, Err *err) {
    WebPDecoderConfig c;
    Parts p = parts_of(bytes, count);
    CHECK(WebPInitDecoderConfig(&c), "libwebp is older than its header");
    VP8StatusCode status =
        p.stream ? WebPGetFeatures(p.stream, p.stream_bytes, &c.input) : VP8_STATUS_NOT_ENOUGH_DATA;
    if (status != VP8_STATUS_OK) return fail(status, name, err);
    size_t width = (size_t)c.input.width, height = (size_t)c.input.height;
    if (!p.animated) p.width = width, p.height = height;
    if (!codec_image_new(out, p.width, p.height, name, err)) return false;
    if (p.animated) memset(out->pixels, 0, 3 * p.width * p.height);
    *orientation = p.exif ? codec_exif_orientation(p.exif, p.exif_bytes) : 1;
    bool fits = p.x + width <= p.width && p.y + height <= p.height;
    if (fits ? decode_frame(out, &p, &c, name, err) : fail(VP8_STATUS_BITSTREAM_ERROR, name, err)) return true;
    image_free(out);
    return false;
}
