/* shuffle.h - moving the lanes of vectors. */
#ifndef MALA_SIMD_SHUFFLE_H
#define MALA_SIMD_SHUFFLE_H

#include "backend/cpu/simd/simd.h"

/* A constant vector of lane numbers from a macro of the lane. */
#if VL == 16
#define LANES(f) \
    (vi) { f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7), f(8), f(9), f(10), f(11), f(12), f(13), f(14), f(15) }
#elif VL == 8
#define LANES(f) \
    (vi) { f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7) }
#else
#define LANES(f) \
    (vi) { f(0), f(1), f(2), f(3) }
#endif

/* (a, b, c, d ...) -> (b, a, d, c ...) */
#define PARTNER(i) ((i) ^ 1)
static inline vf swap_pairs(vf x) { return __builtin_shuffle(x, LANES(PARTNER)); }

/* Transposes VL vectors, by swapping blocks of 1, 2, 4 ... lanes across the diagonal. */
#define UPPER(i) ((i) & step ? VL + (i) - step : (i))
#define LOWER(i) ((i) & step ? VL + (i) : (i) + step)
ALWAYS_INLINE void swap_blocks(vf *rows, const int step) {
    UNROLL for (int i = 0; i < VL; i++) {
        if (i & step) continue;
        vf a = rows[i], b = rows[i + step];
        rows[i] = __builtin_shuffle(a, b, LANES(UPPER));
        rows[i + step] = __builtin_shuffle(a, b, LANES(LOWER));
    }
}
ALWAYS_INLINE void transpose_block(vf *rows) {
    UNROLL for (int step = 1; step < VL; step *= 2) swap_blocks(rows, step);
}

#endif
