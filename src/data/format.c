/* format.c - what a file is, by its first bytes: the formats that are read, and what else is met in folders of
 * pictures, so that a message can say it. A file's name is no evidence. */
#include "data/codec.h"

#include <string.h>
#include <strings.h>

/* Bytes at an offset; the format's name where it is a picture's, and what an error says of those that are not read. */
typedef struct {
    size_t at, length;
    const char *magic, *name;
    Codec *decode; /* NULL: not read */
    const char *what, *advice;
} Format;

#define CONVERT "convert it to JPEG or PNG"
#define PICTURE(name) name, NULL, "is a " name " picture", CONVERT
static const Format FORMATS[] = {
    {0, 2, "\xff\xd8", "JPEG", codec_jpeg_decode, NULL, NULL},
    {0, 8, "\x89PNG\r\n\x1a\n", "PNG", codec_png_decode, NULL, NULL},
    {0, 6, "GIF87a", "GIF", codec_gif_decode, NULL, NULL},
    {0, 6, "GIF89a", "GIF", codec_gif_decode, NULL, NULL},
    {8, 4, "WEBP", "WebP", codec_webp_decode, NULL, NULL},
    {0, 2, "BM", "BMP", codec_bmp_decode, NULL, NULL}, /* where its header follows: find */
    {0, 2, "BM", PICTURE("BMP")},
    {0, 4, "II*\0", PICTURE("TIFF")},
    {0, 4, "MM\0*", PICTURE("TIFF")},
    {0, 4, "\0\0\1\0", "icon", NULL, "is a Windows icon", CONVERT},
    {0, 4, "8BPS", "Photoshop", NULL, "is a Photoshop file", CONVERT},
    {4, 4, "jP  ", PICTURE("JPEG 2000")},
    {0, 4, "\xff\x4f\xff\x51", PICTURE("JPEG 2000")},
    {0, 12, "\0\0\0\x0cJXL \r\n\x87\n", PICTURE("JPEG XL")},
    {0, 2, "\xff\x0a", PICTURE("JPEG XL")},
    {4, 8, "ftypavif", "AVIF", NULL, "is an AVIF picture", CONVERT},
    {4, 6, "ftyphe", "HEIF", NULL, "is a HEIF picture", CONVERT},
    {4, 4, "ftyp", "HEIF, AVIF or film", NULL, "is a HEIF, AVIF or film file", CONVERT},
    {0, 2, "P4", PICTURE("PBM")},
    {0, 2, "P5", PICTURE("PGM")},
    {0, 2, "P6", PICTURE("PPM")},
    {0, 2, "\x1f\x8b", NULL, NULL, "is compressed by gzip", "unpack it"},
    {0, 4, "PK\3\4", NULL, NULL, "is a ZIP archive", "unpack it"},
    {0, 5, "%PDF-", NULL, NULL, "is a PDF document", CONVERT},
    {0, 23, "version https://git-lfs", NULL, NULL, "is a Git LFS pointer, not the picture itself",
     "run: git lfs pull"},
};
#undef PICTURE
#undef CONVERT

static const Format *find(const uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < COUNTOF(FORMATS); i++) {
        const Format *f = &FORMATS[i];
        /* texts may begin with BM */
        if (f->decode == codec_bmp_decode && !codec_bmp_has_header(bytes, count)) continue;
        if (count >= f->at + f->length && memcmp(bytes + f->at, f->magic, f->length) == 0) return f;
    }
    return NULL;
}

const char *image_format(const uint8_t *bytes, size_t count, bool *readable) {
    const Format *f = find(bytes, count);
    *readable = f && f->decode;
    return f ? f->name : NULL;
}

Codec *codec_of(const uint8_t *bytes, size_t count) {
    const Format *f = find(bytes, count);
    return f ? f->decode : NULL;
}

bool codec_refuse_format(const uint8_t *bytes, size_t count, const char *name, Err *err) {
    if (count == 0) return err_set(err, EXIT_INPUT, "%s: is empty - fetch it again or leave it out", name);
    const Format *f = find(bytes, count);
    if (f) return err_set(err, EXIT_INPUT, "%s: %s - %s", name, f->what, f->advice);
    size_t blank = 0;
    while (blank < count && (bytes[blank] == ' ' || (bytes[blank] >= '\t' && bytes[blank] <= '\r'))) blank++;
    const char *text = (const char *)bytes + blank;
    if (count - blank >= 5 && (strncasecmp(text, "<!doc", 5) == 0 || strncasecmp(text, "<html", 5) == 0))
        return err_set(err, EXIT_INPUT, "%s: is an HTML page, as failed downloads leave - fetch it again", name);
    return err_set(err, EXIT_INPUT, "%s: is none of JPEG, PNG, WebP, GIF, BMP - give one of these", name);
}
