/* gemm.h - the inner loop of every matrix product and dense convolution: C = start + A B on tiles that stay in
 * registers. B comes in panels of PANEL columns, (k, PANEL) contiguous and padded with zeros; A is read where it lies.
 *
 * A convolution is the same product with a second sum over taps: for each tap A and B move on by a stride. Whatever
 * can be one run of k numbers is: k*I neighbouring floats of a channels-last row are one run of k pixels.
 *
 * Every element is summed in the order of taps and k, whatever the tile it falls in: how the work is cut changes no
 * bit. Nothing here starts threads. */
#ifndef MALA_SIMD_GEMM_H
#define MALA_SIMD_GEMM_H

#include "backend/cpu/simd/simd.h"

#define PANEL 32
#if VL == 16
#define TILE_ROWS 14 /* 28 sums in 32 registers; the sides of MAViT's maps are multiples of 7 */
#else
#define TILE_ROWS 6 /* 12 sums in 16 registers */
#endif

/* C[m][j] = sum[m][j], or gelu of it, or residual[m][j] + gamma[j] * that, where
 * sum[m][j] = start[m][j] + sum over t < taps, i < k of A[m*a_row + i*a_k + t*a_tap] * B[t*b_tap + i*PANEL + j] */
typedef struct {
    float *c;
    int64_t c_row;
    const float *start; /* start_row 0: the bias, for every row; start = c: adds to what is there */
    int64_t start_row;
    const float *a;
    int64_t a_row, a_k, a_tap; /* a_row or a_k is 1 */
    const float *b;
    int64_t b_tap;
    int64_t k, taps;
    bool gelu;
    const float *residual; /* or NULL */
    int64_t residual_row;
    const float *gamma;
} Gemm;

#define gemm_panel ISA_NAME(gemm_panel)
#define gemm_tile ISA_NAME(gemm_tile)
#define gemm_pack ISA_NAME(gemm_pack)
#define gemm_pack_rows ISA_NAME(gemm_pack_rows)

/* rows x columns of C, columns <= PANEL, any number of rows */
void gemm_panel(const Gemm *g, int64_t rows, int64_t columns);
/* the same for at most TILE_ROWS rows */
void gemm_tile(const Gemm *g, int64_t rows, int64_t columns);

/* A panel (k, PANEL) from strided numbers: panel[i][j] = b[i*b_k + j*b_column], zeros for j >= columns. */
void gemm_pack(float *panel, const float *b, int64_t b_k, int64_t b_column, int64_t k, int64_t columns);
/* A panel (taps, k, PANEL) from columns that each lie in one piece, (k, taps): panel[t][i][j] = b[j*b_column + i*taps
 * + t]. With one tap it is gemm_pack for b_k = 1, by transposing blocks in registers. */
void gemm_pack_rows(float *panel, const float *b, int64_t b_column, int64_t k, int64_t taps, int64_t columns);

#if VL == 16
static const vi vf_lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif VL == 8
static const vi vf_lanes = {0, 1, 2, 3, 4, 5, 6, 7};
#else
static const vi vf_lanes = {0, 1, 2, 3};
#endif

/* VL x VL numbers in registers: halves, quarters ... single numbers of neighbouring rows change places. */
__attribute__((always_inline)) static inline void vf_transpose(vf row[VL]) {
#pragma GCC unroll 4
    for (int half = VL / 2; half > 0; half /= 2) {
        vi upper = (vf_lanes & half) != 0;
        vi first = vf_lanes + (upper & (VL - half)), second = vf_lanes + half + (upper & (VL - half));
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++) {
            if (i & half) continue;
            vf a = row[i], b = row[i + half];
            row[i] = __builtin_shuffle(a, b, first);
            row[i + half] = __builtin_shuffle(a, b, second);
        }
    }
}

/* The first of item `part` when `count` things are dealt to `parts` in order, as evenly as can be. */
static inline int64_t part_begin(int64_t count, int64_t part, int64_t parts) { return count * part / parts; }

#endif
