/* piped.h - standard input as a pipe fills it: a picture (cat photo.jpg | mala infer -), or a list of paths. */
#ifndef MALA_PIPED_H
#define MALA_PIPED_H

#include "data/image.h"

#include <stdio.h>

#define PIPED_NAME "standard input" /* for messages */

typedef struct {
    uint8_t *bytes; /* [count] */
    size_t count;
} Piped;

/* Whether more of the file can be read without waiting, its end included: it has to be without a buffer (setvbuf). */
bool piped_more(FILE *file);

/* Reads head[*count] of the file, up to IMAGE_MAGIC bytes but no further than a first line of text, which may be all
 * that comes for a while. True: a picture begins here, whether image_decode reads its format or not. */
bool piped_is_picture(uint8_t head[IMAGE_MAGIC], size_t *count, FILE *file);
/* The head and all that follows. False: EXIT_INPUT (more than a picture may have), EXIT_IO. */
bool piped_read(Piped *out, const uint8_t *head, size_t count, FILE *file, Err *err);
void piped_free(Piped *p);

#endif
