/* shuffle.h - moving the lanes of vectors. */
#ifndef MALA_SIMD_SHUFFLE_H
#define MALA_SIMD_SHUFFLE_H

#include "backend/cpu/simd/simd.h"

/* Lane numbers, constants all, from a macro of the lane; lanes of a second vector follow those of the first. */
#if VL == 16
#define LANES(f) f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7), f(8), f(9), f(10), f(11), f(12), f(13), f(14), f(15)
#elif VL == 8
#define LANES(f) f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7)
#else
#define LANES(f) f(0), f(1), f(2), f(3)
#endif

/* (a, b, c, d ...) -> (b, a, d, c ...) */
#define PARTNER(i) ((i) ^ 1)
static inline vf swap_pairs(vf x) { return __builtin_shufflevector(x, x, LANES(PARTNER)); }

/* Transposes VL vectors, by swapping blocks of 1, 2, 4 ... lanes across the diagonal. */
#define UPPER(i) ((i) & step ? VL + (i) - step : (i))
#define LOWER(i) ((i) & step ? VL + (i) : (i) + step)
#define SWAP_BLOCKS(distance) \
    ALWAYS_INLINE void swap_blocks_##distance(vf *rows) { \
        enum { step = distance }; \
        UNROLL for (int i = 0; i < VL; i++) { \
            if (i & step) continue; \
            vf a = rows[i], b = rows[i + step]; \
            rows[i] = __builtin_shufflevector(a, b, LANES(UPPER)); \
            rows[i + step] = __builtin_shufflevector(a, b, LANES(LOWER)); \
        } \
    }
SWAP_BLOCKS(1)
SWAP_BLOCKS(2)
#if VL > 4
SWAP_BLOCKS(4)
#endif
#if VL > 8
SWAP_BLOCKS(8)
#endif
ALWAYS_INLINE void transpose_block(vf *rows) {
    swap_blocks_1(rows);
    swap_blocks_2(rows);
#if VL > 4
    swap_blocks_4(rows);
#endif
#if VL > 8
    swap_blocks_8(rows);
#endif
}

#endif
