/* cost.h - what a graph costs, read off the op table: multiply-adds and bytes, node by node. */
#ifndef MALA_COST_H
#define MALA_COST_H

#include "graph/op.h"

typedef struct {
    double macs;  /* multiply-adds */
    double bytes; /* read and written once each, state included */
} Cost;

Cost cost_node(const Graph *g, const Node *n);
/* The sum over the nodes whose name starts with prefix ("" for all). */
Cost cost_total(const Graph *g, const char *prefix);
/* Trainable scalars of the parameters whose name starts with prefix. */
int64_t cost_parameters(const Graph *g, const char *prefix);

#endif
