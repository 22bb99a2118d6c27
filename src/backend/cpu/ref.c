#include "backend/cpu/ref.h"

const RefFn op_ref[OP_COUNT] = {
#define OP(name, summary) [OP_##name] = ref_##name,
#include "graph/ops.def"
#undef OP
};
