/* transform.h - from a picture of any size to the network's input size: the fixed way of evaluation, the random ways
 * of training. What is drawn depends on the Rng alone. */
#ifndef MALA_TRANSFORM_H
#define MALA_TRANSFORM_H

#include "base/rng.h"
#include "data/resize.h"

typedef struct {
    int width, height;
    ResizeFilter filter;
    /* Part of the scaled picture that the crop keeps, 0 to 1; 0: 224/256 up to 224 pixels, all of it beyond, as the
     * released recipe has it. */
    double crop_pct; /* not float: 224 / 0.8 is 280, but 0.8 as a float is larger than 0.8 */
} EvalTransform;

typedef enum {
    CROP_RESIZED, /* a random part of the picture, scaled to the output size */
    CROP_PADDED   /* a picture of the output size, moved by up to pad pixels each way: for small pictures */
} CropMode;

#define TRANSFORM_PAD_MAX 1024

typedef struct {
    int width, height;
    CropMode crop;
    double scale_min, scale_max; /* CROP_RESIZED: share of the area, */
    double ratio_min, ratio_max; /* and width / height of the cutting */
    int pad;                    /* CROP_PADDED, 0 .. TRANSFORM_PAD_MAX */
    bool pad_reflect;           /* fill with the mirrored picture, else with black */
    double flip;                /* probability of mirroring left and right */
    ResizeFilter filter;
    bool random_filter; /* draw bilinear or bicubic instead of using filter */
} TrainTransform;

/* bicubic; CROP_RESIZED with 8 to 100 % of the area, ratios 3:4 to 4:3; mirrored every other time */
TrainTransform train_transform_defaults(int width, int height);

/* Shorter side to int(size / crop_pct), centre crop. Not square: scaled to cover the output enlarged by crop_pct.
 * out: u8 [height, width, 3]. False: EXIT_MEMORY. */
bool transform_eval(Resizer *r, uint8_t *out, const Image *image, const EvalTransform *t, Err *err);

/* The size that transform_eval scales a picture to, and what it crops from that: for drawing results back. */
void transform_eval_geometry(int *width, int *height, Box *window, int image_width, int image_height,
                             const EvalTransform *t);

/* out: u8 [height, width, 3]. False: EXIT_MEMORY. */
bool transform_train(Resizer *r, uint8_t *out, const Image *image, const TrainTransform *t, Rng *rng, Err *err);

#endif
