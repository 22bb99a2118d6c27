/* gelu.cpp - the functions of backend/cuda/gelu.cuh, for a test in C. */
#include "backend/cuda/gelu.cuh"

#include "control.h"

void emu_gelu(float x, float *alone, float *value, float *slope) {
    const GeluPair pair = gelu_pair(x);
    *alone = gelu(x), *value = pair.value, *slope = pair.slope;
}
