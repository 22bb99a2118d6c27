/* table.c - gathers the CUDA kernels; NULL where an op has none yet, which plan_new reports by name. */
#include "backend/cuda/table.h"

#define OP(name, summary) extern const Kernel cuda_kernel_##name __attribute__((weak));
#include "graph/ops.def"
#undef OP

const Kernel *const cuda_kernels[OP_COUNT] = {
#define OP(name, summary) [OP_##name] = &cuda_kernel_##name,
#include "graph/ops.def"
#undef OP
};
