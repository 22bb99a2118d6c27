/* synth_math.h - vectors, turns, lattice noise and random draws for the picture maker.
 *
 * Only + - * / and sqrt, which IEEE 754 rounds the same everywhere: a picture's bytes must not depend on whose libm
 * computed a sine. Angles are in turns (1 = full circle), so that reducing one is exact. */
#ifndef MALA_SYNTH_MATH_H
#define MALA_SYNTH_MATH_H

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF /* clang fuses a * b + c where the machine can; gcc does not under -std=c11 */
#endif

#include <math.h>

#include "base/base.h"
#include "base/rng.h"

typedef struct {
    float x, y;
} Vec2;

typedef struct {
    float x, y, z;
} Vec;

/* row i is axis i of a frame in the outer coordinates; mat_in goes into the frame, mat_out back */
typedef struct {
    Vec row[3];
} Mat;

static inline Vec vec_add(Vec a, Vec b) { return (Vec){a.x + b.x, a.y + b.y, a.z + b.z}; }
static inline Vec vec_sub(Vec a, Vec b) { return (Vec){a.x - b.x, a.y - b.y, a.z - b.z}; }
static inline Vec vec_mul(Vec a, Vec b) { return (Vec){a.x * b.x, a.y * b.y, a.z * b.z}; }
static inline Vec vec_scale(Vec a, float s) { return (Vec){a.x * s, a.y * s, a.z * s}; }
/* a + b s */
static inline Vec vec_along(Vec a, Vec b, float s) { return (Vec){a.x + b.x * s, a.y + b.y * s, a.z + b.z * s}; }
static inline Vec vec_mix(Vec a, Vec b, float t) { return vec_along(a, vec_sub(b, a), t); }
static inline float vec_dot(Vec a, Vec b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
static inline float vec_length(Vec a) { return sqrtf(vec_dot(a, a)); }
static inline Vec vec_unit(Vec a) { return vec_scale(a, 1 / vec_length(a)); }
static inline Vec vec_cross(Vec a, Vec b) {
    return (Vec){a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
/* perceived brightness of a linear RGB colour */
static inline float vec_luma(Vec c) { return 0.2126f * c.x + 0.7152f * c.y + 0.0722f * c.z; }

static inline Vec mat_in(const Mat *m, Vec a) {
    return (Vec){vec_dot(m->row[0], a), vec_dot(m->row[1], a), vec_dot(m->row[2], a)};
}
static inline Vec mat_out(const Mat *m, Vec a) {
    return vec_along(vec_along(vec_scale(m->row[0], a.x), m->row[1], a.y), m->row[2], a.z);
}

static inline float clampf(float x, float low, float high) { return x < low ? low : x > high ? high : x; }
static inline float unitf(float x) { return clampf(x, 0, 1); }
static inline float smoothf(float x) { return x * x * (3 - 2 * x); }
static inline int floor_int(float x) { return (int)x - (x < (float)(int)x); }

/* sine of an angle in turns, |turns| < 1e6; the Taylor series to the 9th power is off by less than 4e-6 */
static inline float sin_turns(float turns) {
    float t = turns - (float)floor_int(turns + 0.5f);
    t = t > 0.25f ? 0.5f - t : t < -0.25f ? -0.5f - t : t;
    float x = 6.2831853f * t, s = x * x;
    return x * (1 + s * (-1.f / 6 + s * (1.f / 120 + s * (-1.f / 5040 + s * (1.f / 362880)))));
}
static inline float cos_turns(float turns) { return sin_turns(turns + 0.25f); }

/* frames turned about one axis; mat_after(a, b) applies a first, then b */
static inline Mat mat_turn(int axis, float turns) {
    float s = sin_turns(turns), c = cos_turns(turns);
    switch (axis) {
    case 0:
        return (Mat){{{1, 0, 0}, {0, c, s}, {0, -s, c}}};
    case 1:
        return (Mat){{{c, 0, -s}, {0, 1, 0}, {s, 0, c}}};
    default:
        return (Mat){{{c, s, 0}, {-s, c, 0}, {0, 0, 1}}};
    }
}
static inline Mat mat_after(Mat a, Mat b) {
    return (Mat){{mat_out(&b, a.row[0]), mat_out(&b, a.row[1]), mat_out(&b, a.row[2])}};
}

static inline float draw(Rng *rng, float low, float high) { return low + (high - low) * rng_uniform(rng); }
static inline bool draw_chance(Rng *rng, float chance) { return rng_uniform(rng) < chance; }
static inline int draw_int(Rng *rng, int low, int high) {
    return low + (int)rng_below(rng, (uint32_t)(high - low + 1));
}

/* x, y and z each, in this order: C leaves the order of draws among arguments and initialisers to the compiler, and
 * with it the picture, so no two draws share an expression anywhere */
static inline Vec draw_vec(Rng *rng, float low, float high) {
    float x = draw(rng, low, high), y = draw(rng, low, high), z = draw(rng, low, high);
    return (Vec){x, y, z};
}

/* smooth noise in [0, 1] with features about one unit wide; a different field for every seed */
static inline float noise_corner(int x, int y, int z, uint32_t seed) {
    uint32_t h = (uint32_t)x * 0x8da6b343u ^ (uint32_t)y * 0xd8163841u ^ (uint32_t)z * 0xcb1ab31fu ^ seed;
    h = (h ^ h >> 15) * 0x2c1b3c6du;
    h = (h ^ h >> 12) * 0x297a2d39u;
    return (float)((h ^ h >> 15) >> 8) * 0x1p-24f;
}
static inline float noise(Vec p, uint32_t seed) {
    int x = floor_int(p.x), y = floor_int(p.y), z = floor_int(p.z);
    float u = smoothf(p.x - (float)x), v = smoothf(p.y - (float)y), w = smoothf(p.z - (float)z);
    float plane[2];
    for (int k = 0; k < 2; k++) {
        float a = noise_corner(x, y, z + k, seed), b = noise_corner(x + 1, y, z + k, seed);
        float c = noise_corner(x, y + 1, z + k, seed), d = noise_corner(x + 1, y + 1, z + k, seed);
        float low = a + (b - a) * u, high = c + (d - c) * u;
        plane[k] = low + (high - low) * v;
    }
    return plane[0] + (plane[1] - plane[0]) * w;
}

#endif
