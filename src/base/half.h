/* half.h - the two 16-bit float formats, as bits: f16 (5 bits of exponent, 10 of fraction) and bf16 (the upper half of
 * a float32). Into them rounding goes to the nearest, ties to even, beyond the largest number to infinity; out of them
 * everything is exact. A NaN stays one and keeps the upper part of its payload. */
#ifndef MALA_HALF_H
#define MALA_HALF_H

#include <stdint.h>
#include <string.h>

static inline float float_from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t float_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float bf16_to_f32(uint16_t h) { return float_from_bits((uint32_t)h << 16); }

static inline uint16_t bf16_from_f32(float x) {
    uint32_t bits = float_bits(x);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40); /* quiet, or cutting might leave infinity */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff;
    if (exponent == 0) { /* a subnormal is normal in float32 */
        float magnitude = (float)fraction * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    return float_from_bits(sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13);
}

static inline uint16_t f16_from_f32(float x) {
    uint32_t bits = float_bits(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* from 65520 on */
    if (magnitude < 0x38800000) { /* below 2^-14: the sum's last bit is 2^-24, so that the addition rounds */
        float sum = float_from_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (float_bits(sum) - 0x3f000000));
    }
    return (uint16_t)(sign | (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13);
}

#endif
