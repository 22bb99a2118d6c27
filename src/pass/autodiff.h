/* autodiff.h - reverse-mode differentiation, graph to graph: ops emit ops, so planning, cost counting, profiling and
 * device graphs get the backward program for free. */
#ifndef MALA_AUTODIFF_H
#define MALA_AUTODIFF_H

#include "graph/op.h"

/* Appends to g the backward program of `count` outputs. seed[i] is the gradient of output i (same shape).
 * grad receives, for each of the values that existed before the call, its gradient or NO_VAL.
 * A value read by several nodes gets the sum of their gradients, in the order of reading backwards.
 * With recompute, the backward program computes what cheap ops gave (OPF_CHEAP) once more where it first needs it, to
 * the same bits, so that it need not be kept from the forward program. */
void autodiff(Graph *g, const Val *outputs, const Val *seeds, int count, bool recompute, Val *grad);

/* For each parameter, read as it is or from ROLE_CAST, makes its gradient in grad[] the parameter's slot of the flat
 * gradient buffer, so that the node which produces it writes there. Aborts when a parameter has none. */
void autodiff_bind_parameters(Graph *g, const Val *grad, int32_t n_values);

#endif
