/* matmul.h - a matrix product of any size and stride as it comes, in the calling thread alone (oneDNN's BLAS door).
 *
 * Kernels cut their work into tiles by shape, and parallel_for deals them out, so that neither the library's threading
 * nor the number of threads touches a result. */
#ifndef MALA_MATMUL_H
#define MALA_MATMUL_H

#include "backend/cpu/library.h"

/* A matrix (rows, columns) with `stride` floats from row to row, or its transpose. */
typedef struct {
    const float *data;
    int64_t stride;
    bool transposed;
} MatmulOperand;

/* Once before the first product: the library compiles all that it may ever need, which takes some eighty milliseconds.
 * False: EXIT_MEMORY. */
bool matmul_compile(CpuLibrary *library, Err *err);

/* C (m, n), c_stride floats from row to row, = A (m, k) B (k, n). Row-major; m, n, k at least 1.
 * Within cpu_library_for(true, ...). */
void matmul(CpuLibrary *library, float *c, int64_t c_stride, MatmulOperand a, MatmulOperand b, int64_t m, int64_t n,
            int64_t k);

#endif
