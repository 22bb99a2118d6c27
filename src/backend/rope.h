/* rope.h - the two-dimensional rotary embedding of the attention op, as every backend tabulates it.
 *
 * Channels of a head form pairs (2i, 2i+1). A pair at position p turns by p * angle: (a, b) becomes
 * (a cos - b sin, b cos + a sin). The pairs of the first half of the head turn with the row of the token, those of the
 * second half with its column, both with the same angles. */
#ifndef MALA_ROPE_H
#define MALA_ROPE_H

#include <math.h>

/* Angle of pair `pair` of `pairs` = head_dim / 4: 10000^-t, t in [0, 1]. In float32 step by step, as the released
 * models keep it: at position 1000 another rounding would show. */
static inline float rope_angle(int pair, int pairs) {
    float step = pairs > 1 ? 1.0f / (float)(pairs - 1) : 0;
    float t = pair < pairs / 2 ? step * (float)pair : 1.0f - step * (float)(pairs - 1 - pair);
    return 1.0f / powf(10000.0f, pairs > 1 ? t : 0);
}

#endif
