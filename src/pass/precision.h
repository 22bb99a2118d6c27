/* precision.h - lowers a graph to a compute type by the typing rule of graph/op.h: features and the operands of
 * dense products are stored in it, everything else stays float32. */
#ifndef MALA_PRECISION_H
#define MALA_PRECISION_H

#include "graph/op.h"

/* A new graph with the same inputs and parameters whose nodes have the compute type `compute` (f32, bf16 or f16). Each
 * weight is cast once, for all its readers; where a feature meets an operand that must be float32, or the caller keeps
 * it, it is cast back. keep[n_keep] is changed to the new ids and keeps its types. With DT_F32 the new graph is the old
 * one, id for id.
 *
 * Training graphs are lowered before autodiff, whose program then follows. With `training`, one cast of the whole
 * buffer at the start of every run fills ROLE_CAST, and readers of weights read there: some hundred launches less than
 * a cast for each weight, and what is cast in vain (norms' gains, depthwise weights) is under 2 % of it. Not left to
 * AdamW, which has the weights at hand and would spare 4 bytes of 6 a parameter, a thousandth of a step's at 224x224:
 * so the copy is never older than the weights, whoever wrote them.
 * Evaluation graphs are lowered after fuse(): casts of what depends on weights alone are constants of the plan.
 * Aborts on a graph that holds gradients or an optimizer. */
Graph *precision_lower(const Graph *g, DType compute, bool training, Val *keep, int n_keep);

#endif
