/* ref.h - the naive double-precision reference of every op: the definition that kernels are tested against, written
 * for reading, never for speed. Part of the library so that every backend's tests can call it. */
#ifndef MALA_REF_H
#define MALA_REF_H

#include "graph/op.h"

/* in[i], out[i]: every element as a double, whatever the dtype; NULL for an absent operand. Outputs are never NULL. */
typedef void (*RefFn)(const Graph *g, const Node *n, double *const *in, double *const *out);

extern const RefFn op_ref[OP_COUNT];

/* The number of bf16 or f16 nearest to x, ties to even; x itself for f32, as everywhere in the reference. */
double ref_round(double x, DType dtype);

double ref_gelu_of(double x);
double ref_gelu_slope(double x);

#define REF(op) void ref_##op(const Graph *g, const Node *n, double *const *in, double *const *out)
#define OP(name, summary) REF(name);
#include "graph/ops.def"
#undef OP

#endif
