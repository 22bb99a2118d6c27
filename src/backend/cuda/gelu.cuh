/* gelu.cuh - x Phi(x), the erf form, which libraries' epilogues do not have. */
#ifndef MALA_CUDA_GELU_CUH
#define MALA_CUDA_GELU_CUH

#include "backend/cuda/kernel.cuh"

__device__ static inline float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678f)); }

#endif
