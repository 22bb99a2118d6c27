/* table.h - the CUDA backend's kernels on the op index. */
#ifndef MALA_CUDA_TABLE_H
#define MALA_CUDA_TABLE_H

#include "backend/backend.h"

extern const Kernel *const cuda_kernels[OP_COUNT];

#endif
