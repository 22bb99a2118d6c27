/* dwconv.h - rows of a depthwise convolution (stride 1, same size, odd kernel) on channels-last pictures, for every
 * kernel that contains one: dwconv itself, and attention, whose 5x5 runs on the v part of qkvo and reads it where it
 * lies: a window of channels, its pixels x_stride floats apart.
 *
 * Forward and gradient of the input are the same routine: the latter has flipped weights, no bias and dy for x.
 * Nothing here starts threads: callers cut a picture into bands of rows (and groups of channels) by shape alone. */
#ifndef MALA_SIMD_DWCONV_H
#define MALA_SIMD_DWCONV_H

#include "backend/cpu/simd/simd.h"

#define dwconv_transpose ISA_NAME(dwconv_transpose)
#define dwconv_rows ISA_NAME(dwconv_rows)
#define dwconv_dw_rows ISA_NAME(dwconv_dw_rows)
#define dwconv_dw_sum ISA_NAME(dwconv_dw_sum)

/* wt (k*k, C) from w (C,1,k,k), the layout of files; flip turns the kernel by half a turn, for the gradient of x. */
void dwconv_transpose(float *wt, const float *w, int64_t channels, int kernel, bool flip);

typedef struct {
    const float *x;   /* first channel of pixel (0,0) of the picture */
    int64_t x_stride; /* floats from a pixel to the next, at least `channels` */
    float *y;         /* first channel of pixel (y0,0): rows may go to scratch memory; not overlapping x */
    int64_t y_stride;
    const float *wt;   /* (k*k, channels) */
    const float *bias; /* (channels) or NULL */
    bool residual;     /* y = x + convolution */
    int kernel, height, width, channels;
} DwconvRows;

/* Writes rows [y0, y1), channels [c0, c1) of the result. Any c0 and c1 do; multiples of 16 are fast. */
void dwconv_rows(const DwconvRows *d, int y0, int y1, int c0, int c1);

typedef struct {
    const float *dy; /* first channel of pixel (y0,0) */
    int64_t dy_stride;
    const float *x; /* first channel of pixel (0,0) of the picture */
    int64_t x_stride;
    float *dw; /* (k*k, channels), added to */
    float *db; /* (channels), added to; or NULL */
    int kernel, height, width, channels;
} DwconvDwRows;

/* Adds what rows [y0, y1) of dy contribute to the gradient of weights and bias, for channels [c0, c1). */
void dwconv_dw_rows(const DwconvDwRows *d, int y0, int y1, int c0, int c1);

/* Adds up n partial gradients in index order and turns them to the layout of files: dw (C,1,k,k) and db (C), either
 * may be NULL. Each partial is (k*k + 1, C): the taps, then the bias. For channels [c0, c1). */
void dwconv_dw_sum(float *dw, float *db, const float *parts, int n, int kernel, int channels, int c0, int c1);

#endif
