/* microgemm.h - products of small matrices that already lie in the caches, for kernels made of such products.
 *
 * A block of up to 6 rows and NR vectors of c stays in registers for the whole sum. Rows and columns are cut into
 * nearly equal blocks, so that no thin rest is left. b and c have whole vectors of columns (callers pad their tiles
 * with zeros); a is read number by number, so its transposition costs nothing and it needs no padding. */
#ifndef MALA_SIMD_MICROGEMM_H
#define MALA_SIMD_MICROGEMM_H

#include "backend/cpu/simd/simd.h"

enum { MR = 6, NR = VL == 16 ? 4 : 2 }; /* blocks that leave registers for b and a: of 32, or of 16 */

/* Block of M rows and N vectors: c = [c +] sum over p < k of a[i * row + p * column] b[p][j]. */
ALWAYS_INLINE void micro(float *c, int64_t ldc, const float *a, int64_t row, int64_t column, const float *b,
                         int64_t ldb, int k, bool add, const int M, const int N) {
    vf acc[MR][NR], bp[NR];
    UNROLL for (int i = 0; i < M; i++) {
        UNROLL for (int j = 0; j < N; j++) acc[i][j] = add ? vf_load(c + i * ldc + j * VL) : vf_set(0);
    }
    for (int p = 0; p < k; p++, a += column, b += ldb) {
        UNROLL for (int j = 0; j < N; j++) bp[j] = vf_load(b + j * VL);
        UNROLL for (int i = 0; i < M; i++) {
            vf ai = vf_set(a[i * row]);
            UNROLL for (int j = 0; j < N; j++) acc[i][j] += ai * bp[j];
        }
    }
    UNROLL for (int i = 0; i < M; i++) {
        UNROLL for (int j = 0; j < N; j++) vf_store(c + i * ldc + j * VL, acc[i][j]);
    }
}

#define MICRO_ROWS(N, ...) \
    switch (rows) { \
    case 1: micro(__VA_ARGS__, 1, N); break; \
    case 2: micro(__VA_ARGS__, 2, N); break; \
    case 3: micro(__VA_ARGS__, 3, N); break; \
    case 4: micro(__VA_ARGS__, 4, N); break; \
    case 5: micro(__VA_ARGS__, 5, N); break; \
    case 6: micro(__VA_ARGS__, 6, N); break; \
    }

ALWAYS_INLINE void microgemm(float *c, int64_t ldc, const float *a, int64_t row, int64_t column, const float *b,
                             int64_t ldb, int m, int n, int k, bool add) {
    int vectors = n / VL, strips = CEIL_DIV(vectors, NR), blocks = CEIL_DIV(m, MR);
    for (int s = 0; s < strips; s++) {
        int j0 = vectors * s / strips, width = vectors * (s + 1) / strips - j0;
        for (int i = 0; i < blocks; i++) {
            int i0 = m * i / blocks, rows = m * (i + 1) / blocks - i0;
            float *ci = c + i0 * ldc + j0 * VL;
            const float *ai = a + i0 * row, *bi = b + j0 * VL;
            switch (width) {
            case 1: MICRO_ROWS(1, ci, ldc, ai, row, column, bi, ldb, k, add) break;
            case 2: MICRO_ROWS(2, ci, ldc, ai, row, column, bi, ldb, k, add) break;
#if VL == 16
            case 3: MICRO_ROWS(3, ci, ldc, ai, row, column, bi, ldb, k, add) break;
            case 4: MICRO_ROWS(4, ci, ldc, ai, row, column, bi, ldb, k, add) break;
#endif
            }
        }
    }
}

/* c (m,n) = [c +] a (m,k) b (k,n); n a multiple of VL */
static inline void gemm_nn(float *c, int64_t ldc, const float *a, int64_t lda, const float *b, int64_t ldb, int m,
                           int n, int k, bool add) {
    microgemm(c, ldc, a, lda, 1, b, ldb, m, n, k, add);
}

/* c (m,n) = [c +] a^T b, a (k,m), b (k,n); n a multiple of VL */
static inline void gemm_tn(float *c, int64_t ldc, const float *a, int64_t lda, const float *b, int64_t ldb, int m,
                           int n, int k, bool add) {
    microgemm(c, ldc, a, 1, lda, b, ldb, m, n, k, add);
}

#endif
