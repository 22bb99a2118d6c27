/* math.h - the activations as vector functions, for every kernel that ends in one.
 *
 * GELU is x Phi(x), Phi the normal distribution function. Phi(x) - 1/2 is odd, so it is x times a polynomial in x^2,
 * and likewise the odd part of GELU's derivative: minimax fits (found by the Remez exchange in 40 digits) in
 * t = 2 x^2 / limit^2 - 1, where the coefficients alternate and shrink and rounding errors stay small. Beyond the
 * limit both are 0 or 1 to float precision. Cheaper than an exponential, and relatively exact around 0; what it gives
 * up is the relative accuracy of values below 1e-7 in the negative tail. */
#ifndef MALA_SIMD_MATH_H
#define MALA_SIMD_MATH_H

#include "backend/cpu/simd/simd.h"

/* coefficient[0] + coefficient[1] t + ... by Horner's rule */
static inline vf vf_poly(vf t, const float *coefficient, int count) {
    vf sum = vf_set(coefficient[count - 1]);
#pragma GCC unroll 20
    for (int i = count - 2; i >= 0; i--) sum = sum * t + coefficient[i];
    return sum;
}

/* 0 for x < -limit, 1 for x > limit, middle between them */
static inline vf vf_step(vf x, float limit, vf middle) {
    vi inside = x * x < limit * limit, above = x > limit;
    return (vf)((inside & (vi)middle) | (above & (vi)vf_set(1)));
}

/* x Phi(x), absolute error below 2.5e-7 max(1, |x|) */
static inline vf vf_gelu(vf x) {
    static const float fit[] = {
        1.359499991e-01f,  -6.774368137e-02f, 5.002431199e-02f,  -3.992923349e-02f, 3.199294209e-02f,
        -2.472968213e-02f, 1.793965884e-02f,  -1.247929130e-02f, 8.594053797e-03f,  -4.841228016e-03f,
        1.765235560e-03f,  -1.171929645e-03f, 1.281739562e-03f,  -4.990767338e-04f,
    };
    const float limit = 5.2f;
    vf phi = x * vf_poly(x * x * (2 / (limit * limit)) - 1, fit, (int)COUNTOF(fit)) + 0.5f;
    return x * vf_step(x, limit, phi);
}

/* its derivative Phi(x) + x Phi'(x), absolute error below 4e-7 */
static inline vf vf_gelu_grad(vf x) {
    static const float fit[] = {
        1.241653115e-01f,  -6.292555481e-02f, 5.013926700e-02f,  -4.847181588e-02f, 5.327991024e-02f,
        -6.107258797e-02f, 6.866900623e-02f,  -7.322776318e-02f, 6.763621420e-02f,  -5.182589963e-02f,
        4.527463764e-02f,  -4.596643895e-02f, 2.507578768e-02f,  -5.174973630e-04f, 3.928180784e-03f,
        -1.107488107e-02f, 4.633478355e-03f,
    };
    const float limit = 5.7f;
    vf slope = x * vf_poly(x * x * (2 / (limit * limit)) - 1, fit, (int)COUNTOF(fit)) + 0.5f;
    return vf_step(x, limit, slope);
}

#endif
