/* codec.h - what image.c shares with the codecs; private to this folder. libjpeg and libpng leave through longjmp when
 * they give up, so jpeg.c and png.c hold the project's only setjmp calls, each in a function that owns nothing. */
#ifndef MALA_CODEC_H
#define MALA_CODEC_H

#include "data/image.h"

/* As stored, not yet upright. *orientation: what EXIF says, 1 to 8, and 1 when it says nothing sensible. */
typedef bool Codec(Image *out, int *orientation, const uint8_t *bytes, size_t count, const char *name, Err *err);
bool codec_jpeg_decode(Image *out, int *orientation, const uint8_t *bytes, size_t count, const char *name, Err *err);
bool codec_png_decode(Image *out, int *orientation, const uint8_t *bytes, size_t count, const char *name, Err *err);
bool codec_webp_decode(Image *out, int *orientation, const uint8_t *bytes, size_t count, const char *name, Err *err);
bool codec_gif_decode(Image *out, int *orientation, const uint8_t *bytes, size_t count, const char *name, Err *err);
bool codec_bmp_decode(Image *out, int *orientation, const uint8_t *bytes, size_t count, const char *name, Err *err);
bool codec_bmp_has_header(const uint8_t *bytes, size_t count);
/* Of the format that the bytes begin like; NULL: none that is read. */
Codec *codec_of(const uint8_t *bytes, size_t count);

/* The error for bytes that are no format that is read. */
bool codec_refuse_format(const uint8_t *bytes, size_t count, const char *name, Err *err);

/* image_new that names the file when the picture is empty or larger than IMAGE_MAX_PIXELS. */
bool codec_image_new(Image *out, size_t width, size_t height, const char *name, Err *err);

/* The orientation tag of a TIFF structure (what follows "Exif\0\0"): 1 to 8; 1 when damaged or absent. */
int codec_exif_orientation(const uint8_t *tiff, size_t count);

#endif
