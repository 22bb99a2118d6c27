/* gelu.cuh - x Phi(x), the erf form, which libraries' epilogues do not have, and its derivative. */
#ifndef MALA_CUDA_GELU_CUH
#define MALA_CUDA_GELU_CUH

#include "backend/cuda/kernel.cuh"

__device__ static inline float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678f)); }

struct GeluPair {
    float value, slope;
};

/* gelu(x) = x Phi(x) and its derivative Phi(x) + x Phi'(x), out of one exponential: with z = |x| / sqrt 2,
 * Phi(-|x|) = erfc(z) / 2 = (a1 t + ... + a5 t^5) exp(-z^2) / 2, t = 1 / (1 + 0.3275911 z), to 1.5e-7 / 2
 * (Abramowitz and Stegun 7.1.26). */
__device__ static inline GeluPair gelu_pair(float x) {
    const float t = 1.0f / (1.0f + 0.23164189f * fabsf(x)), e = expf(-0.5f * x * x);
    const float p = (((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f;
    const float tail = 0.5f * p * t * e, cdf = x < 0 ? tail : 1.0f - tail;
    return {x * cdf, cdf + x * (0.39894228f * e)};
}

#endif
