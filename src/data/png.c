/* png.c - PNG through libpng's row functions (its simplified and quantising calls, where most of its known holes were,
 * are not used). Gamma, colour profiles and background are ignored, as Pillow ignores them. Damage in a chunk that
 * holds pixels is refused; damage in a chunk that only describes them is passed over, and so is whatever is missing
 * behind the last pixel. Of an animation, the still picture is read. */
#include "data/codec.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

#define CHUNK_MAX_BYTES (8 << 20)
#define CHUNKS_MAX 256 /* of those that libpng keeps */
#define COMPRESSION 6  /* fixed: the level is part of the bytes */

typedef struct {
    jmp_buf escape;
    char text[128];
    const uint8_t *bytes; /* reading */
    uint8_t *grown;       /* writing */
    size_t at, count;     /* writing: bytes written, bytes allocated */
    bool reading, rows_read; /* libpng has been asked for rows, and has given all */
    bool no_memory; /* libpng was refused some, for which it may also leave out a chunk and go on */
} Stream;

static void leave(png_structp png, png_const_charp text) {
    Stream *s = png_get_error_ptr(png);
    snprintf(s->text, sizeof s->text, "%s", text);
    longjmp(s->escape, 1);
}

static png_voidp take(png_structp png, png_alloc_size_t bytes) {
    void *memory = malloc(bytes);
    if (!memory) ((Stream *)png_get_mem_ptr(png))->no_memory = true;
    return memory;
}

static void give_back(png_structp png, png_voidp memory) { (void)png, free(memory); }

/* libpng warns of what it left out of ancillary chunks; the pixels do not depend on those */
static void stay_silent(png_structp png, png_const_charp text) { (void)png, (void)text; }

static void read_bytes(png_structp png, png_bytep out, size_t count) {
    Stream *s = png_get_io_ptr(png);
    if (count > s->count - s->at) png_error(png, "the file ends early");
    memcpy(out, s->bytes + s->at, count);
    s->at += count;
}

/* The bytes up to the first chunk that does not lie within the file: libpng takes and clears what a chunk's length
 * promises, up to 2 GB, before it reads. Of pixels it reads what there is. */
static size_t whole_chunks(const uint8_t *bytes, size_t count) {
    size_t at = 8;
    while (count - at >= 12) {
        size_t length = (size_t)png_get_uint_32(bytes + at);
        if (length > count - at - 12) return memcmp(bytes + at + 4, "IDAT", 4) == 0 ? count : at;
        at += length + 12;
        if (memcmp(bytes + at - 8 - length, "IEND", 4) == 0) break;
    }
    return at;
}

/* After an error: were all rows there, and is it one of what comes behind them? Wrong checksums of pixels are not. */
static bool has_all_rows(const Stream *s, png_structp png, png_infop info) {
    bool behind = png_get_interlace_type(png, info) == PNG_INTERLACE_NONE
                      ? png_get_current_row_number(png) >= png_get_image_height(png, info)
                      : png_get_current_pass_number(png) >= PNG_INTERLACE_ADAM7_PASSES;
    return s->rows_read || (s->reading && behind && !strstr(s->text, "CRC"));
}

static int stored_orientation(png_structp png, png_infop info) {
    int orientation = 1;
#ifdef PNG_eXIf_SUPPORTED
    png_uint_32 count;
    png_bytep exif;
    if (png_get_eXIf_1(png, info, &count, &exif)) orientation = codec_exif_orientation(exif, count);
#endif
    return orientation;
}

/* Pixels may name colours that the palette does not hold. libpng makes those black, and so does Pillow 13; Pillow 9.4,
 * with whose pixels this decoder is compared, takes the index for a grey level. */
static void complete_palette(png_structp png, png_infop info) {
    png_colorp stored;
    int count = 0, full = 1 << png_get_bit_depth(png, info);
    if (png_get_color_type(png, info) != PNG_COLOR_TYPE_PALETTE || !png_get_PLTE(png, info, &stored, &count)) return;
    png_color colours[PNG_MAX_PALETTE_LENGTH];
    for (int i = 0; i < full; i++)
        colours[i] = i < count ? stored[i] : (png_color){(png_byte)i, (png_byte)i, (png_byte)i};
    if (count < full) png_set_PLTE(png, info, colours, full);
}

/* Everything that may leave through s->escape. What it takes is freed by its caller. */
static bool decode(Stream *s, png_structp png, png_infop info, Image *out, int *orientation, const char *name,
                   Err *err) {
    if (setjmp(s->escape)) {
        if (s->no_memory) return err_set(err, EXIT_MEMORY, "%s: no memory to decode it - close other programs", name);
        *orientation = stored_orientation(png, info);
        if (has_all_rows(s, png, info)) return true;
        return err_set(err, EXIT_INPUT, "%s: is a damaged PNG (%s) - replace it or leave it out", name, s->text);
    }
    png_set_read_fn(png, s, read_bytes);
    png_set_chunk_malloc_max(png, CHUNK_MAX_BYTES);
    png_set_chunk_cache_max(png, CHUNKS_MAX);
    png_read_info(png, info);
    /* before libpng takes rows: a header of a few bytes may promise terabytes */
    if (!codec_image_new(out, png_get_image_width(png, info), png_get_image_height(png, info), name, err)) return false;

    complete_palette(png, info);
    png_set_palette_to_rgb(png);
    png_set_expand_gray_1_2_4_to_8(png);
    png_set_strip_16(png);
    png_set_strip_alpha(png);
    png_set_gray_to_rgb(png);
    int passes = png_set_interlace_handling(png);
    png_read_update_info(png, info);
    CHECK(png_get_rowbytes(png, info) == (size_t)3 * (size_t)out->width, "a PNG row is not 8-bit RGB");
    s->reading = true;
    for (int pass = 0; pass < passes; pass++)
        for (int y = 0; y < out->height; y++)
            png_read_row(png, out->pixels + (size_t)3 * (size_t)out->width * (size_t)y, NULL);
    s->rows_read = true;
    png_read_end(png, info);
    *orientation = stored_orientation(png, info);
    if (s->no_memory) png_error(png, "out of memory");
    return true;
}

bool codec_png_decode(Image *out, int *orientation, const uint8_t *bytes, size_t count, const char *name, Err *err) {
    Stream s = {.bytes = bytes, .count = whole_chunks(bytes, count)};
    bool ok = false;
    png_structp png =
        png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &s, leave, stay_silent, &s, take, give_back);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (info)
        ok = decode(&s, png, info, out, orientation, name, err);
    else
        err_set(err, EXIT_MEMORY, "%s: no memory to decode it - close other programs", name);
    png_destroy_read_struct(&png, &info, NULL);
    if (!ok) image_free(out);
    return ok;
}

static void write_bytes(png_structp png, png_bytep bytes, size_t count) {
    Stream *s = png_get_io_ptr(png);
    if (count > s->count - s->at) {
        size_t room = MAX(2 * s->count, s->at + count + 4096);
        uint8_t *grown = realloc(s->grown, room);
        if (!grown) s->no_memory = true, png_error(png, "out of memory");
        s->grown = grown, s->count = room;
    }
    memcpy(s->grown + s->at, bytes, count);
    s->at += count;
}

static void nothing_to_flush(png_structp png) { (void)png; }

static bool encode(Stream *s, png_structp png, png_infop info, const Image *image, Err *err) {
    if (setjmp(s->escape))
        return err_set(err, s->no_memory ? EXIT_MEMORY : EXIT_BUG, "PNG encoder: %s - close other programs", s->text);
    png_set_write_fn(png, s, write_bytes, nothing_to_flush);
    png_set_user_limits(png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    png_set_IHDR(png, info, (png_uint_32)image->width, (png_uint_32)image->height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_compression_level(png, COMPRESSION);
    png_write_info(png, info);
    for (int y = 0; y < image->height; y++)
        png_write_row(png, image->pixels + (size_t)3 * (size_t)image->width * (size_t)y);
    png_write_end(png, NULL);
    return true;
}

bool image_encode_png(uint8_t **out, size_t *count, const Image *image, Err *err) {
    Stream s = {0};
    bool ok = false;
    *out = NULL, *count = 0;
    png_structp png =
        png_create_write_struct_2(PNG_LIBPNG_VER_STRING, &s, leave, stay_silent, &s, take, give_back);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (info)
        ok = encode(&s, png, info, image, err);
    else
        err_set(err, EXIT_MEMORY, "PNG encoder: no memory - close other programs");
    png_destroy_write_struct(&png, &info);
    if (!ok) {
        free(s.grown);
        return false;
    }
    *out = s.grown, *count = s.at;
    return true;
}
