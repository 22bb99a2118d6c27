/* jpeg.c - JPEG through libjpeg-turbo, with its own defaults (slow integer DCT, smooth chroma), so that pixels equal
 * Pillow's. The library calls damaged data a warning and makes pixels up; here such a warning ends decoding, and one
 * that touches no pixel is passed over. Refuses also: more than SCANS_MAX scans (a 2 MB file of 20,000 keeps a core
 * busy for minutes), 2 or 5 and more components, precisions other than 8 bits. */
#include "data/codec.h"

#include <setjmp.h>
#include <stdio.h> /* jpeglib.h needs FILE */
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

#define SCANS_MAX 100
#define EXIF_MARKER (JPEG_APP0 + 1)

/* How the library leaves: message kept, stack unwound to the setjmp. */
typedef struct {
    struct jpeg_error_mgr errors;
    jmp_buf jump;
    char text[JMSG_LENGTH_MAX];
    bool no_memory;
    bool in_header;       /* before the first scan nothing of a pixel has been read */
    const uint8_t *bytes; /* decoding: the file */
    size_t count;
} Escape;

typedef struct {
    Escape escape;
    struct jpeg_decompress_struct jpeg;
    struct jpeg_progress_mgr progress;
} Decoder;

typedef struct {
    Escape escape;
    struct jpeg_compress_struct jpeg;
    unsigned char *bytes;
    unsigned long count;
} Encoder;

static void leave(j_common_ptr jpeg) {
    Escape *e = jpeg->client_data;
    e->errors.format_message(jpeg, e->text);
    e->no_memory = e->errors.msg_code == JERR_OUT_OF_MEMORY;
    longjmp(e->jump, 1);
}

/* Whether a segment of tables or notes ends right before `end`. Scans hold no such marker, so none is found in one. */
static bool ends_a_segment(const uint8_t *bytes, size_t end) {
    for (size_t at = end; at-- > 0 && end - at <= 0xffff + 2;) {
        if (end - at < 4 || bytes[at] != 0xff) continue;
        uint8_t marker = bytes[at + 1];
        bool segment = marker == 0xc4 || marker == 0xdb || marker == 0xdd || marker >= 0xe0;
        if (segment && at + 2 + ((size_t)bytes[at + 2] << 8 | bytes[at + 3]) == end) return true;
    }
    return false;
}

/* Bytes that belong to nothing, before a marker: behind a segment they are that and no more. Behind a scan they are the
 * rest of one that went astray, unless all are 0, with which some cameras pad. */
static bool is_filling(const Escape *e, j_decompress_ptr jpeg) {
    size_t length = (size_t)e->errors.msg_parm.i[0], left = jpeg->src->bytes_in_buffer;
    if (left > e->count || length > e->count - left) return false;
    size_t end = e->count - left, begin = end - length;
    bool zero = true;
    for (size_t i = begin; i < end; i++) zero = zero && e->bytes[i] == 0;
    return zero || ends_a_segment(e->bytes, begin);
}

static void leave_on_warning(j_common_ptr jpeg, int level) {
    const Escape *e = jpeg->client_data;
    int code = e->errors.msg_code;
    if (level >= 0 || e->in_header) return; /* levels from 0 up are traces */
    if (code == JWRN_NOT_SEQUENTIAL) return; /* a range of coefficients that no sequential decoder asks for */
    if (code == JWRN_EXTRANEOUS_DATA && is_filling(e, (j_decompress_ptr)jpeg)) return; /* only decoding says this */
    leave(jpeg);
}

static void leave_after_scans(j_common_ptr jpeg) {
    Escape *e = jpeg->client_data;
    if (((j_decompress_ptr)jpeg)->input_scan_number <= SCANS_MAX) return;
    snprintf(e->text, sizeof e->text, "more than %d scans", SCANS_MAX);
    longjmp(e->jump, 1);
}

/* Sound files, too, can be what the library does not read: lossless ones, 12 bits a sample. */
static bool is_other_kind(const Escape *e) {
    int code = e->errors.msg_code;
    return code == JERR_SOF_UNSUPPORTED || code == JERR_BAD_PRECISION || code == JERR_ARITH_NOTIMPL;
}

static struct jpeg_error_mgr *error_manager(Escape *e) {
    jpeg_std_error(&e->errors);
    e->errors.error_exit = leave;
    e->errors.emit_message = leave_on_warning;
    return &e->errors;
}

static int stored_orientation(j_decompress_ptr jpeg) {
    for (jpeg_saved_marker_ptr m = jpeg->marker_list; m; m = m->next)
        if (m->data_length > 6 && memcmp(m->data, "Exif\0", 6) == 0)
            return codec_exif_orientation(m->data + 6, m->data_length - 6);
    return 1;
}

/* Huffman codes take at least a bit for each block of 8 x 8: a file that is shorter ends early, which is better known
 * before a progressive one takes memory for all coefficients that it promises. */
static bool may_hold(j_decompress_ptr jpeg, size_t count) {
    size_t blocks = CEIL_DIV((size_t)jpeg->image_width, 8) * CEIL_DIV((size_t)jpeg->image_height, 8);
    return jpeg->arith_code || blocks / 8 <= count;
}

/* Inverted CMYK, as Adobe writes it and everybody assumes, to RGB: colour * key / 255, rounded as Pillow rounds. */
static void rgb_from_cmyk(uint8_t *rgb, const uint8_t *cmyk, int count) {
    for (int x = 0; x < count; x++)
        for (int c = 0; c < 3; c++) {
            int key = cmyk[4 * x + 3], product = (255 - cmyk[4 * x + c]) * key + 128;
            rgb[3 * x + c] = (uint8_t)(key - ((product + (product >> 8)) >> 8));
        }
}

/* Everything that may leave through d->escape.jump. What it takes is freed by its caller. */
static bool decode(Decoder *d, Image *out, int *orientation, const uint8_t *bytes, size_t count, const char *name,
                   Err *err) {
    j_decompress_ptr jpeg = &d->jpeg;
    jpeg->err = error_manager(&d->escape);
    jpeg->client_data = &d->escape;
    if (setjmp(d->escape.jump)) { /* before create, which can fail as well */
        if (d->escape.no_memory)
            return err_set(err, EXIT_MEMORY, "%s: no memory to decode it - close other programs", name);
        if (is_other_kind(&d->escape))
            return err_set(err, EXIT_INPUT, "%s: is a JPEG of a kind that is not read (%s) - convert it to PNG", name,
                           d->escape.text);
        return err_set(err, EXIT_INPUT, "%s: is a damaged JPEG (%s) - replace it or leave it out", name,
                       d->escape.text);
    }
    jpeg_create_decompress(jpeg);
    jpeg->progress = &d->progress;
    d->progress.progress_monitor = leave_after_scans;
    jpeg_save_markers(jpeg, EXIF_MARKER, 0xffff);
    jpeg_mem_src(jpeg, bytes, count);
    d->escape.bytes = bytes, d->escape.count = count;
    d->escape.in_header = true;
    jpeg_read_header(jpeg, TRUE);
    d->escape.in_header = false;
    if (jpeg->num_components != 1 && jpeg->num_components != 3 && jpeg->num_components != 4)
        return err_set(err, EXIT_INPUT, "%s: has %d colour components - convert it to RGB", name, jpeg->num_components);
    *orientation = stored_orientation(jpeg);
    if (!codec_image_new(out, jpeg->image_width, jpeg->image_height, name, err)) return false;
    if (!may_hold(jpeg, count))
        return err_set(err, EXIT_INPUT,
                       "%s: is a damaged JPEG (%zu bytes for %u x %u pixels) - replace it or leave it out", name, count,
                       jpeg->image_width, jpeg->image_height);

    bool cmyk = jpeg->num_components == 4;
    jpeg->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    jpeg_start_decompress(jpeg);
    JSAMPARRAY wide = NULL;
    if (cmyk) wide = jpeg->mem->alloc_sarray((j_common_ptr)jpeg, JPOOL_IMAGE, jpeg->output_width * 4, 1);
    while (jpeg->output_scanline < jpeg->output_height) {
        JSAMPROW row = out->pixels + (size_t)3 * jpeg->output_scanline * jpeg->output_width;
        jpeg_read_scanlines(jpeg, cmyk ? wide : &row, 1);
        if (cmyk) rgb_from_cmyk(row, wide[0], out->width);
    }
    jpeg_finish_decompress(jpeg);
    return true;
}

bool codec_jpeg_decode(Image *out, int *orientation, const uint8_t *bytes, size_t count, const char *name, Err *err) {
    Decoder d = {0};
    bool ok = decode(&d, out, orientation, bytes, count, name, err);
    jpeg_destroy_decompress(&d.jpeg);
    if (!ok) image_free(out);
    return ok;
}

static bool encode(Encoder *e, const Image *image, int quality, Err *err) {
    j_compress_ptr jpeg = &e->jpeg;
    jpeg->err = error_manager(&e->escape);
    jpeg->client_data = &e->escape;
    if (setjmp(e->escape.jump))
        return err_set(err, e->escape.no_memory ? EXIT_MEMORY : EXIT_BUG, "JPEG encoder: %s - close other programs",
                       e->escape.text);
    jpeg_create_compress(jpeg);
    jpeg_mem_dest(jpeg, &e->bytes, &e->count);
    jpeg->image_width = (JDIMENSION)image->width;
    jpeg->image_height = (JDIMENSION)image->height;
    jpeg->input_components = 3;
    jpeg->in_color_space = JCS_RGB;
    jpeg_set_defaults(jpeg);
    jpeg_set_quality(jpeg, quality, TRUE);
    jpeg_start_compress(jpeg, TRUE);
    while (jpeg->next_scanline < jpeg->image_height) {
        JSAMPROW row = image->pixels + (size_t)3 * jpeg->next_scanline * jpeg->image_width;
        jpeg_write_scanlines(jpeg, &row, 1);
    }
    jpeg_finish_compress(jpeg);
    return true;
}

bool image_encode_jpeg(uint8_t **out, size_t *count, const Image *image, int quality, Err *err) {
    CHECK(quality >= 1 && quality <= 100, "JPEG quality %d", quality);
    *out = NULL, *count = 0;
    if (image->width > JPEG_MAX_DIMENSION || image->height > JPEG_MAX_DIMENSION)
        return err_set(err, EXIT_USAGE, "JPEG encoder: %d x %d is beyond the format's %ld - scale it down or write PNG",
                       image->width, image->height, (long)JPEG_MAX_DIMENSION);
    /* Room for the worst case (two bytes per sample and the headers), so that the library never swaps the buffer for
     * a larger one, which a failure halfway would leak. */
    size_t blocks = CEIL_DIV((size_t)image->width, 16) * CEIL_DIV((size_t)image->height, 16);
    size_t room = blocks * 16 * 16 * 3 + 4096;
    Encoder e = {.bytes = malloc(room), .count = room};
    if (!e.bytes)
        return err_set(err, EXIT_MEMORY, "JPEG encoder: no memory for %zu bytes - close other programs", room);
    unsigned char *own = e.bytes;
    bool ok = encode(&e, image, quality, err);
    jpeg_destroy_compress(&e.jpeg);
    if (e.bytes != own) free(own);
    if (!ok) {
        free(e.bytes);
        return false;
    }
    void *fitted = realloc(e.bytes, e.count);
    *out = fitted ? fitted : e.bytes, *count = e.count;
    return true;
}
