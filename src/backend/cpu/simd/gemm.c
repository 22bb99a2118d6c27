#include "backend/cpu/simd/gemm.h"

#define PREFETCH 12 /* k steps ahead: some 300 cycles */
#define NV 2 /* vectors across a tile: enough that the broadcasts of A do not limit, for any number of rows */

/* ROWS and one of the strides of A are compile-time constants: the sums are registers. */
__attribute__((always_inline)) static inline void tile(const Gemm *g, int64_t column, int rows, int64_t a_row,
                                                       int64_t a_k) {
    vf sum[TILE_ROWS][NV];
#pragma GCC unroll 16
    for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) sum[m][v] = vf_load(g->start + m * g->start_row + column + v * VL);

    if (g->start_row == 0) /* C is written for the first time: fetch its lines while the sums are made */
#pragma GCC unroll 16
        for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
            for (int v = 0; v < NV * VL; v += 16) __builtin_prefetch(g->c + m * g->c_row + column + v, 1);

    /* One loop over taps and k: runs may be as short as a row of a 7x7 map, and a loop around them would be
     * mispredicted at every end. */
    const float *a = g->a, *b = g->b + column;
    int64_t a_wrap = g->a_tap - g->k * a_k, b_wrap = g->b_tap - g->k * PANEL, left = g->k;
    for (int64_t n = g->taps * g->k; n > 0; n--) {
        vf bv[NV];
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) bv[v] = vf_load(b + v * VL);
#pragma GCC unroll 16
        for (int m = 0; m < rows; m++) {
            vf av = vf_set(a[m * a_row]);
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++) sum[m][v] += av * bv[v];
        }
        if (a_row == 1) { /* k strides from page to page, where the processor does not prefetch by itself */
            __builtin_prefetch(a + PREFETCH * a_k);
            __builtin_prefetch(a + PREFETCH * a_k + rows - 1);
        }
        int64_t wrap = -(int64_t)(--left == 0);
        left += wrap & g->k;
        a += a_k + (wrap & a_wrap);
        b += PANEL + (wrap & b_wrap);
    }

#pragma GCC unroll 16
    for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) vf_store(g->c + m * g->c_row + column + v * VL, sum[m][v]);
}

#if VL == 16
#define EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14)
#else
#define EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#endif

/* A's rows are strided, k is contiguous */
static void tile_of_rows(const Gemm *g, int64_t rows, int64_t column) {
    switch (rows) {
#define CASE(n) \
    case n: tile(g, column, n, g->a_row, 1); return;
        EACH_ROWS(CASE)
#undef CASE
    }
}

/* A's rows are neighbours, k is strided: A is used transposed */
static void tile_of_columns(const Gemm *g, int64_t rows, int64_t column) {
    switch (rows) {
#define CASE(n) \
    case n: tile(g, column, n, 1, g->a_k); return;
        EACH_ROWS(CASE)
#undef CASE
    }
}

static void full_tile(const Gemm *g, int64_t rows, int64_t columns) {
    for (int64_t column = 0; column < columns; column += NV * VL) {
        if (g->a_k == 1)
            tile_of_rows(g, rows, column);
        else
            tile_of_columns(g, rows, column);
    }
}

void gemm_tile(const Gemm *g, int64_t rows, int64_t columns) {
    if (columns == PANEL) {
        full_tile(g, rows, PANEL);
        return;
    }
    float start[TILE_ROWS][PANEL] = {{0}}, c[TILE_ROWS][PANEL];
    size_t bytes = (size_t)columns * sizeof(float);
    for (int64_t m = 0; m < rows; m++) memcpy(start[m], g->start + m * g->start_row, bytes);
    Gemm padded = *g;
    padded.start = start[0];
    padded.c = c[0];
    padded.start_row = padded.c_row = PANEL;
    full_tile(&padded, rows, columns);
    for (int64_t m = 0; m < rows; m++) memcpy(g->c + m * g->c_row, c[m], bytes);
}

void gemm_panel(const Gemm *g, int64_t rows, int64_t columns) {
    int64_t tiles = CEIL_DIV(rows, TILE_ROWS);
    for (int64_t i = 0; i < tiles; i++) {
        int64_t first = part_begin(rows, i, tiles);
        Gemm part = *g;
        part.c += first * g->c_row;
        part.start += first * g->start_row;
        part.a += first * g->a_row;
        gemm_tile(&part, part_begin(rows, i + 1, tiles) - first, columns);
    }
}

void gemm_pack_rows(float *panel, const float *b, int64_t b_column, int64_t k, int64_t taps, int64_t columns) {
    if (columns < PANEL) memset(panel, 0, (size_t)(k * taps * PANEL) * sizeof(float));
    int64_t n = k * taps, blocks = columns == PANEL ? n / VL * VL : 0;
    for (int64_t i = 0; i < blocks; i += VL)
        for (int64_t j = 0; j < PANEL; j += VL) {
            vf row[VL];
#pragma GCC unroll 16
            for (int r = 0; r < VL; r++) row[r] = vf_load(b + (j + r) * b_column + i);
            vf_transpose(row);
            int64_t at = i % taps * k + i / taps; /* where number i belongs, then those after it */
#pragma GCC unroll 16
            for (int r = 0; r < VL; r++) {
                vf_store(panel + at * PANEL + j, row[r]);
                at += k;
                if (at >= k * taps) at -= k * taps - 1;
            }
        }
    for (int64_t j = 0; j < columns; j++)
        for (int64_t i = blocks; i < n; i++) panel[(i % taps * k + i / taps) * PANEL + j] = b[j * b_column + i];
}

void gemm_pack(float *panel, const float *b, int64_t b_k, int64_t b_column, int64_t k, int64_t columns) {
    if (columns < PANEL) memset(panel, 0, (size_t)(k * PANEL) * sizeof(float));
    if (b_column == 1 && columns == PANEL) {
        for (int64_t i = 0; i < k; i++) memcpy(panel + i * PANEL, b + i * b_k, PANEL * sizeof(float));
        return;
    }
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < columns; j++) panel[i * PANEL + j] = b[i * b_k + j * b_column];
}
