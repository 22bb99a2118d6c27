/* matmul.h - matrix products on the device, a thin layer: nvidia/cublaslt.c calls cuBLASLt, tests/emulate/matmul.cpp
 * checks what it is given and computes it on the host. */
#ifndef MALA_CUDA_MATMUL_H
#define MALA_CUDA_MATMUL_H

#include "backend/backend.h"

/* D (rows, cols) = A (rows, inner) B (inner, cols) + bias (cols) + C (rows, cols), sums in float32. All matrices are
 * contiguous and row-major, their addresses multiples of 16. */
typedef struct {
    int64_t rows, cols, inner;
    bool a_transposed; /* A lies in memory as (inner, rows) */
    bool b_transposed; /* B lies in memory as (cols, inner) */
    DType type;        /* of A and B: f32, bf16, f16 */
    DType out_type;    /* of D, C and the bias: f32, or the same as type */
    bool bias, add;    /* whether there is a bias, a C */
} MatmulSpec;

/* Scratch of every product, whatever its size: enough for the library's best algorithms. */
#define MATMUL_WORKSPACE ((size_t)32 << 20)

typedef struct Matmul Matmul;

/* Chooses the algorithm. False: EXIT_DEVICE with what the library says. */
bool matmul_prepare(Matmul **out, const MatmulSpec *spec, Backend *backend, Err *err);
/* Queues the product on the stream that computes. d may be c. work: MATMUL_WORKSPACE bytes. */
void matmul_run(const Matmul *m, const KernelCall *call, void *d, const void *a, const void *b, const void *bias,
                const void *c, void *work);
void matmul_release(Matmul *m);

#endif
