/* matmul.h - the door to the library's matrix products (oneDNN).
 *
 * A product runs in the calling thread alone: kernels cut their work into tiles by shape, and parallel_for deals them
 * out, so that neither the library's threading nor the number of threads touches a result. Only the BLAS entry point
 * is used, which is the same in oneDNN 2 and 3 and needs no handles to be made per shape. */
#ifndef MALA_MATMUL_H
#define MALA_MATMUL_H

#include <stdbool.h>
#include <stdint.h>

/* A matrix (rows, columns) with `stride` floats from row to row, or its transpose. */
typedef struct {
    const float *data;
    int64_t stride;
    bool transposed;
} MatmulOperand;

/* C (m, n), c_stride floats from row to row, = [C +] A (m, k) B (k, n). Row-major; m, n, k at least 1. */
void matmul(float *c, int64_t c_stride, MatmulOperand a, MatmulOperand b, int64_t m, int64_t n, int64_t k,
            bool accumulate);

#endif
