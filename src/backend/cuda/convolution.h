/* convolution.h - dense convolutions on the device, a thin layer: nvidia/cudnn.c calls cuDNN, tests/emulate/
 * convolution.cpp checks what it is given and computes it on the host. */
#ifndef MALA_CUDA_CONVOLUTION_H
#define MALA_CUDA_CONVOLUTION_H

#include "backend/backend.h"

/* x (B,H,W,I), y (B,H',W',O), w (O,k,k,I), all of one type, sums in float32; addresses multiples of 16. */
typedef struct {
    int64_t batch, height, width, ins, out_height, out_width, outs;
    int kernel, stride, pad;
    DType type; /* f32, bf16, f16 */
} ConvolutionSpec;

typedef enum {
    CONVOLUTION_FORWARD, /* y from x and w */
    CONVOLUTION_DX,      /* dx from dy and w */
    CONVOLUTION_DW,      /* dw from dy and x */
} ConvolutionPass;

/* Scratch of every convolution; an algorithm that wants more is not taken. */
#define CONVOLUTION_WORKSPACE ((size_t)128 << 20)

typedef struct Convolution Convolution;

/* Chooses an algorithm that gives the same bits on every run. False: EXIT_DEVICE with what the library says. */
bool convolution_prepare(Convolution **out, ConvolutionPass pass, const ConvolutionSpec *spec, Backend *backend,
                         Err *err);
/* Queues it on the stream that computes: out is y, dx or dw; a is x, dy or dy; b is w, w or x.
 * work: CONVOLUTION_WORKSPACE bytes. */
void convolution_run(const Convolution *c, const KernelCall *call, void *out, const void *a, const void *b, void *work);
void convolution_release(Convolution *c);

#endif
