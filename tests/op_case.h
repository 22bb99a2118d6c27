/* op_case.h - the one table of op cases. A case builds a small graph for its sizes; tests/test_ops.c then runs it as
 *   ref   every node's outputs from the fast kernels against the naive double reference, forward and backward,
 *         for 1 and 2 threads and every instruction set of this machine, all with the same bits per set
 *   grad  the gradient that autodiff builds, evaluated in double, against finite differences of the reference
 * A case lists odd sizes (1, 3, 17, 33 ...) by default. */
#ifndef MALA_OP_CASE_H
#define MALA_OP_CASE_H

#include "graph/op.h"

typedef struct OpCase {
    const char *name;
    /* Declares operands with case_input, emits ops; outputs without a reader get a random upstream gradient. */
    void (*build)(Graph *g, const int *d);
    int d[10];        /* sizes and attributes, as build reads them */
    double tolerance; /* relative L2 error of a float32 kernel against the reference; 0: 2e-6 */
    int roundings;    /* 16-bit features: how many roundings a result may be wrong by, float32 results too, where kernels
                       * round what they multiply; 0: one, and float32 results none */
    bool no_grad;     /* nothing to differentiate (the backward ops are exercised by the forward's case) */
} OpCase;

/* A float32 operand of uniform random numbers in [low, high); differentiated. */
Val case_input(Graph *g, const char *name, Shape shape, double low, double high);
/* A state operand (running statistics, weights under an optimizer), compared after the run when it is mutated. */
Val case_state(Graph *g, const char *name, Shape shape, double low, double high);
/* Integers in [0, below). */
Val case_labels(Graph *g, const char *name, Shape shape, DType dtype, int below);

extern const OpCase linear_cases[], conv_cases[], dwconv_cases[], norm_cases[], attention_cases[], elementwise_cases[],
    loss_cases[], optim_cases[]; /* each ends with a row whose name is NULL */

#endif
