/* table.c - the kernels of one instruction set, on the op index. An op without a kernel does not link. */
#include "backend/cpu/simd/simd.h"

#define OP(name, summary) extern const Kernel ISA_NAME(kernel_##name);
#include "graph/ops.def"
#undef OP

extern const Kernel *const ISA_NAME(cpu_kernels)[OP_COUNT];
const Kernel *const ISA_NAME(cpu_kernels)[OP_COUNT] = {
#define OP(name, summary) [OP_##name] = &ISA_NAME(kernel_##name),
#include "graph/ops.def"
#undef OP
};
