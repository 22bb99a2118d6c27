/* op_run.h - what the test programs share that run the table of op cases on a backend: a case's graph with its backward
 * program, its operands, and the comparison of a plan's steps with the double reference. */
#ifndef MALA_OP_RUN_H
#define MALA_OP_RUN_H

#include "base/rng.h"
#include "op_case.h"
#include "run/plan.h"

typedef struct {
    Graph *g;
    int32_t forward_nodes, forward_values;
    Val outputs[8], seeds[8], *grad;
    int n_outputs;
} Built;

/* The case's graph, lowered to a compute type: forward, then (unless it has no gradient) the backward program from
 * random upstream gradients. */
Built op_build(const OpCase *c, DType compute);
void op_built_free(Built *b);
/* Whether a case is another one in another compute type. */
bool op_has_features(const OpCase *c);

/* The next element of operand `id` of the case built last: rounded to its type, so that kernels and the reference start
 * from the same number. */
double operand_element(Rng *r, const Value *v, Val id);
Rng operand_rng(Val id);
bool operand_differentiable(Val id);

/* A plan in which every value has memory of its own and can be read, with its operands uploaded. */
Plan *op_plan(const Graph *g, Backend *backend);
/* Runs it step by step: each step's outputs against the reference on the same inputs. `where` names the backend. */
void op_check(const OpCase *c, Plan *p, const char *where);
/* A hash of the bits of all values. */
uint64_t op_hash(const Plan *p);

#define OP_FAMILIES 8
extern const OpCase *const op_families[OP_FAMILIES];

#endif
