/* op.c - gathers the rows; an op of ops.def without a row does not link. */
#include "graph/op.h"

#define OP(name, summary) extern const OpDef op_def_##name;
#include "graph/ops.def"
#undef OP

const OpDef *const op_def[OP_COUNT] = {
#define OP(name, summary) [OP_##name] = &op_def_##name,
#include "graph/ops.def"
#undef OP
};
