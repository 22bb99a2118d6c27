/* bitmaps.h - makes GIFs and BMPs in memory. */
#ifndef MALA_TEST_BITMAPS_H
#define MALA_TEST_BITMAPS_H

#include "pth_build.h"

typedef struct {
    int width, height;     /* of the canvas */
    int x, y, w, h;        /* of the frame */
    int bits;              /* of a colour's number, 1 to 8 */
    bool interlaced;
    bool local;            /* the palette is the frame's own; the global one is of other colours */
    int transparent;       /* this colour; below 0: none */
    const uint8_t *colours; /* [w * h] */
} GifSpec;
/* Every table of codes is filled to its end and used on, as encoders do that put off clearing it. */
Buffer gif_make(const GifSpec *spec);
/* Colour i of the palettes that are written, red, green, blue. */
void bitmap_colour(uint8_t out[3], int i);

typedef struct {
    int width, height;
    int bits;            /* 1, 4, 8: by palette; 16, 24, 32 */
    int header;          /* its bytes: 12, 40, 52, 56, 108 or 124 */
    bool top_first;
    const uint32_t *mask; /* red, green, blue; NULL: none are written */
    const uint32_t *values; /* [width * height] colour numbers or pixels */
} BmpSpec;
Buffer bmp_make(const BmpSpec *spec);

#endif
