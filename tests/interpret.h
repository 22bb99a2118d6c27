/* interpret.h - a graph in double precision, node by node through the reference of every op: what the planned, fast
 * execution must agree with. Features of a lowered graph (pass/precision.h) are rounded to
 * their type when they are stored: half precision, simulated on any machine. */
#ifndef MALA_INTERPRET_H
#define MALA_INTERPRET_H

#include "graph/op.h"

typedef struct {
    const Graph *graph;
    double **x; /* [values]: elements of each value; parameters lie in the flat buffers of their role, groups too */
    double *state[ROLE_COUNT];
    FlatLayout layout; /* of those buffers */
} Interpreter;

/* All values 0; inputs and state are the caller's to fill. */
Interpreter interpreter_new(const Graph *g);
void interpreter_free(Interpreter *it);
/* Runs nodes from .. to - 1. */
void interpreter_run(Interpreter *it, int32_t from, int32_t to);

#endif
