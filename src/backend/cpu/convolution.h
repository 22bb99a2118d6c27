/* convolution.h - the door to the library's convolutions (oneDNN).
 *
 * A Convolution is one of the three products of a dense convolution, made once for one size: making it costs a fraction
 * of a millisecond, since the library compiles code for that size. It runs in the calling thread alone: kernels cut
 * their work by shape, and parallel_for deals it out, so that the number of threads touches no result.
 *
 * Pictures are channels-last without gaps: for a range of the channels of wider pixels the library knows no fast way.
 * The weights are multiplied in an order of the library's own, which depends on the size and on the processor. */
#ifndef MALA_CONVOLUTION_H
#define MALA_CONVOLUTION_H

#include "backend/cpu/library.h"

#define CONVOLUTION_SLOTS 16 /* calls that may run at the same time */

typedef enum {
    CONVOLUTION_Y,  /* y = bias + x * w */
    CONVOLUTION_DX, /* from dy and w */
    CONVOLUTION_DW  /* from dy and x, summed over the batch */
} ConvolutionKind;

typedef struct {
    int64_t batch, height, width, ins;   /* x (batch, height, width, ins) */
    int64_t out_height, out_width, outs; /* y (batch, out_height, out_width, outs) */
    int64_t kernel, stride;
    int64_t pad_rows, pad_columns; /* zeros around x: above and below, left and right */
    int64_t filter_ins;      /* w is the part (outs, ins, k, k) of filters with that many input channels in memory */
    bool channels_last;      /* or w is (outs, k, k, ins) */
} ConvolutionSize;

typedef struct Convolution Convolution;

/* False: EXIT_MEMORY, or EXIT_BUG for a size that the library refuses. */
bool cpu_convolution_new(Convolution **out, CpuLibrary *library, ConvolutionKind kind, const ConvolutionSize *size,
                         Err *err);
void cpu_convolution_free(Convolution *c);

int64_t cpu_convolution_packed_floats(const Convolution *c);  /* of the weights in the library's order */
int64_t cpu_convolution_scratch_floats(const Convolution *c); /* that every running call needs for itself */
/* Its runs belong into cpu_library_for(true, ...): channels or processors that the library has no other kernel for. */
bool cpu_convolution_is_gemm(const Convolution *c);

/* slot < CONVOLUTION_SLOTS and < library->callers: calls at the same time need different ones. Buffers are 64-byte
 * aligned, but for w and bias.
 *
 * pack: weights into the library's order (Y, DX). unpack: their gradient out of it (DW).
 * run: which of x, packed and y is written, or read as a gradient, the kind says; bias (outs) is for Y alone. */
void cpu_convolution_pack(Convolution *c, int slot, float *packed, const float *w);
void cpu_convolution_unpack(Convolution *c, int slot, float *dw, const float *packed);
void cpu_convolution_run(Convolution *c, int slot, const float *x, const float *packed, const float *y,
                     const float *bias, float *scratch);

#endif
