/* math.h - the activations as vector functions, for every kernel that ends in one.
 *
 * GELU is x Phi(x), Phi the normal distribution function. Phi(x) - 1/2 is odd, so it is x times a polynomial in x^2,
 * and likewise the derivative's odd part: a minimax fit (found by the Remez exchange in 40 digits) in
 * t = 2 x^2 / limit^2 - 1, where the coefficients alternate and shrink and rounding errors stay small. Beyond the
 * limit Phi is 0 or 1 to float precision. Cheaper than an exponential, and relatively exact around 0; what it gives
 * up is the relative accuracy of values below 1e-7 in the negative tail. */
#ifndef MALA_SIMD_MATH_H
#define MALA_SIMD_MATH_H

#include "backend/cpu/simd/simd.h"

static inline vf vf_sqrt(vf a) {
    for (int i = 0; i < VL; i++) a[i] = sqrtf(a[i]);
    return a;
}

/* coefficient[0] + coefficient[1] t + ... by Horner's rule */
static inline vf vf_poly(vf t, const float *coefficient, int count) {
    vf sum = vf_set(coefficient[count - 1]);
#pragma GCC unroll 20
    for (int i = count - 2; i >= 0; i--) sum = sum * t + coefficient[i];
    return sum;
}

/* x Phi(x), absolute error below 2.5e-7 max(1, |x|) */
static inline vf vf_gelu(vf x) {
    static const float fit[] = {
        1.285519451e-01f, -6.417249888e-02f, 4.773707315e-02f, -3.878661618e-02f, 3.208015114e-02f,
        -2.611869574e-02f, 2.029994130e-02f, -1.464643143e-02f, 1.042707358e-02f, -7.722530514e-03f,
        4.308922682e-03f, -1.185838948e-03f, 9.621161153e-04f, -1.383924857e-03f, 5.584204337e-04f,
    };
    const float limit = 5.5f;
    vf t = vf_min(x * x * (2 / (limit * limit)), vf_set(2)) - 1;
    vf half = x * vf_poly(t, fit, (int)COUNTOF(fit));
    half = vf_min(vf_max(half, vf_set(-0.5f)), vf_set(0.5f)); /* the fit ends just above 1/2: tails are exact */
    return x * half + 0.5f * x;
}

/* its derivative Phi(x) + x Phi'(x), absolute error below 4e-7 */
static inline vf vf_gelu_grad(vf x) {
    static const float fit[] = {
        1.241653115e-01f, -6.292555481e-02f, 5.013926700e-02f, -4.847181588e-02f, 5.327991024e-02f,
        -6.107258797e-02f, 6.866900623e-02f, -7.322776318e-02f, 6.763621420e-02f, -5.182589963e-02f,
        4.527463764e-02f, -4.596643895e-02f, 2.507578768e-02f, -5.174973630e-04f, 3.928180784e-03f,
        -1.107488107e-02f, 4.633478355e-03f,
    };
    const float limit = 5.7f;
    x = vf_min(vf_max(x, vf_set(-limit)), vf_set(limit));
    return x * vf_poly(x * x * (2 / (limit * limit)) - 1, fit, (int)COUNTOF(fit)) + 0.5f;
}

#endif
