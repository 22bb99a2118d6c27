/* gemm.c - the tile kernel: 2 vectors of B times up to TILE_ROWS numbers of A per step. At 28 sums of 16 floats it runs
 * at 97 % of the processor's peak as long as B comes from L2 and A, C from anywhere: it fetches ahead what the
 * processor does not see coming (the next rows of A, strided columns, lines of C that are only written).
 * Rejected: unrolling k (the sums already hide the latency), packing A (broadcasts from memory are free). */
#include "backend/cpu/simd/gemm.h"

#include "backend/cpu/simd/math.h"

#define NV 2         /* vectors across a tile */
#define PREFETCH 12  /* k steps ahead, for columns of A: some 300 cycles */

/* `rows` and one of the strides of A are compile-time constants: the sums are registers. */
__attribute__((always_inline)) static inline void tile(const Gemm *g, int64_t column, int rows, int64_t a_row,
                                                       int64_t a_k) {
    vf sum[TILE_ROWS][NV];
#pragma GCC unroll 16
    for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) sum[m][v] = vf_load(g->start + m * g->start_row + column + v * VL);

    if (g->start_row == 0) /* C is not read before it is written: its lines would be fetched one by one at the end */
#pragma GCC unroll 16
        for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
            for (int v = 0; v < NV * VL; v += 16) __builtin_prefetch(g->c + m * g->c_row + column + v, 1);

    /* One loop over taps and k: runs may be as short as a row of a 7x7 map, and a loop around them would be
     * mispredicted at every end. */
    const float *a = g->a, *b = g->b + column;
    const float *next = g->a + (g->taps - 1) * g->a_tap + rows * a_row, *next_end = next + rows * a_row;
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
        if (a_k == 1) { /* the rows of A after these; of a convolution, those under its last taps */
            __builtin_prefetch(next, 0, 2);
            next += next < next_end ? 16 : 0;
        } else { /* k strides from page to page */
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

/* What follows the sum, on a tile that is still in the nearest cache. */
static void finish_tile(const Gemm *g, int64_t rows) {
    for (int64_t m = 0; m < rows; m++)
        for (int64_t j = 0; j < PANEL; j += VL) {
            vf v = vf_load(g->c + m * g->c_row + j);
            if (g->gelu) v = vf_gelu(v);
            if (g->residual) v = vf_load(g->residual + m * g->residual_row + j) + vf_load(g->gamma + j) * v;
            vf_store(g->c + m * g->c_row + j, v);
        }
}

/* Fewer columns than a panel: with copies of everything that is padded. */
static void narrow_tile(const Gemm *g, int64_t rows, int64_t columns) {
    float start[TILE_ROWS][PANEL] = {{0}}, c[TILE_ROWS][PANEL], residual[TILE_ROWS][PANEL] = {{0}}, gamma[PANEL] = {0};
    size_t bytes = (size_t)columns * sizeof(float);
    Gemm padded = *g;
    padded.start = start[0];
    padded.c = c[0];
    padded.start_row = padded.c_row = padded.residual_row = PANEL;
    for (int64_t m = 0; m < rows; m++) {
        memcpy(start[m], g->start + m * g->start_row, bytes);
        if (g->residual) memcpy(residual[m], g->residual + m * g->residual_row, bytes);
    }
    if (g->residual) {
        padded.residual = residual[0];
        padded.gamma = memcpy(gamma, g->gamma, bytes);
    }
    gemm_tile(&padded, rows, PANEL);
    for (int64_t m = 0; m < rows; m++) memcpy(g->c + m * g->c_row, c[m], bytes);
}

void gemm_tile(const Gemm *g, int64_t rows, int64_t columns) {
    if (columns < PANEL) {
        narrow_tile(g, rows, columns);
        return;
    }
    for (int64_t column = 0; column < PANEL; column += NV * VL) {
        if (g->a_k == 1)
            tile_of_rows(g, rows, column);
        else
            tile_of_columns(g, rows, column);
    }
    if (g->gelu || g->residual) finish_tile(g, rows);
}

void gemm_panel(const Gemm *g, int64_t rows, int64_t columns) {
    int64_t tiles = CEIL_DIV(rows, TILE_ROWS);
    for (int64_t i = 0; i < tiles; i++) {
        int64_t first = part_begin(rows, i, tiles);
        Gemm part = *g;
        part.c += first * g->c_row;
        part.start += first * g->start_row;
        part.a += first * g->a_row;
        if (part.residual) part.residual += first * g->residual_row;
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
