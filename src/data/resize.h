/* resize.h - antialiased resampling of 8-bit RGB, to the same bytes as Pillow's. */
#ifndef MALA_RESIZE_H
#define MALA_RESIZE_H

#include "data/image.h"

typedef enum { FILTER_BILINEAR, FILTER_BICUBIC } ResizeFilter;

typedef struct {
    int x, y, width, height;
} Box;

/* Working memory, kept between calls: one per thread. Zero-initialise it; ends with resizer_free. */
typedef struct {
    void *memory[4];
    size_t room[4];
    bool plain; /* do without the machine's wider vectors; the bytes are the same */
} Resizer;
void resizer_free(Resizer *r);

/* Cuts `from` out of image, scales the cutting to width x height, and writes the part `window` of the result to out,
 * u8 [window.height, window.width, 3]. Only that part is computed. Both boxes lie inside what they cut.
 * False: EXIT_MEMORY. */
bool resize(Resizer *r, uint8_t *out, const Image *image, Box from, int width, int height, Box window,
            ResizeFilter filter, Err *err);

#endif
