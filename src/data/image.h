/* image.h - 8-bit RGB pictures in memory, from and to files. */
#ifndef MALA_IMAGE_H
#define MALA_IMAGE_H

#include "base/base.h"

/* rows from top to bottom, R G B R G B ..., no padding: 3 * width * height bytes */
typedef struct {
    int width, height;
    uint8_t *pixels;
} Image;

#ifndef IMAGE_MAX_PIXELS           /* fuzzing takes less */
#define IMAGE_MAX_PIXELS 100000000 /* decoding a larger picture is refused before memory is taken */
#endif

/* The picture format that a file begins like: "JPEG", "PNG", "GIF", ...; NULL: no picture's. Up to IMAGE_MAGIC bytes
 * are looked at. *readable: whether image_decode reads it. */
#define IMAGE_MAGIC 32
const char *image_format(const uint8_t *bytes, size_t count, bool *readable);

/* Decodes a JPEG, PNG, WebP, GIF or BMP in memory, told apart by content, upright (EXIF orientation applied). Grey and
 * palette become RGB, 16-bit keeps its high byte, alpha is dropped, CMYK is converted, of an animation the first frame
 * is taken: 8-bit pictures become the pixels that Pillow's convert("RGB") gives. name: for messages.
 * False: EXIT_INPUT (damaged: any damage to pixels, none elsewhere; too large; another format, which the message
 * names), EXIT_MEMORY. Free with image_free. */
bool image_decode(Image *out, const uint8_t *bytes, size_t count, const char *name, Err *err);
/* The same from a regular file; errors as above, EXIT_IO when it cannot be read. */
bool image_load(Image *out, const char *path, Err *err);
/* Uninitialised pixels; false, EXIT_MEMORY. */
bool image_new(Image *out, int width, int height, Err *err);
void image_free(Image *image);

/* Encoders into a malloc'd buffer; the same pixels give the same bytes. quality 1..100, 4:2:0. */
bool image_encode_jpeg(uint8_t **out, size_t *count, const Image *image, int quality, Err *err);
bool image_encode_png(uint8_t **out, size_t *count, const Image *image, Err *err);

#endif
