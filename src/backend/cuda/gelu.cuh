/* gelu.cuh - x Phi(x), the erf form, which libraries' epilogues do not have, and its derivative. */
#ifndef MALA_CUDA_GELU_CUH
#define MALA_CUDA_GELU_CUH

#include "backend/cuda/kernel.cuh"

#define GELU_FLAT 5.75f /* from here on x Phi(-x) is taken for what it is here, 2.6e-8 */

/* Phi(-t) = 2^p(t) for t from 0 to GELU_FLAT; p is the polynomial of degree 6 by which t Phi(-t), and Phi(-t) near 0,
 * are off by 1.3e-7 at most. */
__device__ static inline float normal_tail(float t) {
    float p = 2.6471973e-05f;
    p = p * t - 7.1060209e-04f;
    p = p * t + 7.8864628e-03f;
    p = p * t - 5.3110991e-02f;
    p = p * t - 4.5899287e-01f;
    p = p * t - 1.1511325f;
    return exp2_near(p * t - 9.9999946e-01f);
}

/* max(x, 0) - |x| Phi(-|x|), and not a number for one: at most 2e-7 max(1, |x|) off, rounding included. */
__device__ static inline float gelu(float x) {
    const float t = fminf(fabsf(x), GELU_FLAT);
    return 0.5f * x + 0.5f * fabsf(x) - t * normal_tail(t);
}

struct GeluPair {
    float value, slope;
};

/* With the derivative, Phi(x) + x Phi'(x), at most 4e-7 off. */
__device__ static inline GeluPair gelu_pair(float x) {
    const float t = fminf(fabsf(x), GELU_FLAT), tail = normal_tail(t);
    const float density = 0.39894228f * exp2_near(-0.72134752f * x * x);
    return {0.5f * x + 0.5f * fabsf(x) - t * tail, (x < 0 ? tail : 1.0f - tail) + x * density};
}

#endif
