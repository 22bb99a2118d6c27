#include "pass/cost.h"

#include <string.h>

Cost cost_node(const Graph *g, const Node *n) {
    Cost c = {.macs = node_def(n)->macs ? node_def(n)->macs(g, n) : 0};
    for (int i = 0; i < n->n_in + n->n_out; i++) {
        Val v = g->operand[n->first + i];
        if (v == NO_VAL) continue;
        const Value *x = graph_value(g, v);
        c.bytes += (double)shape_count(&x->shape) * (double)dtype_size(x->dtype);
    }
    return c;
}

Cost cost_total(const Graph *g, const char *prefix) {
    Cost total = {0, 0};
    for (int32_t i = 0; i < g->n_nodes; i++) {
        if (strncmp(g->nodes[i].name, prefix, strlen(prefix)) != 0) continue;
        Cost c = cost_node(g, &g->nodes[i]);
        total.macs += c.macs;
        total.bytes += c.bytes;
    }
    return total;
}

int64_t cost_parameters(const Graph *g, const char *prefix) {
    int64_t n = 0;
    for (int32_t p = 0; p < g->n_params; p++)
        if (!g->params[p].buffer && strncmp(g->params[p].name, prefix, strlen(prefix)) == 0)
            n += shape_count(&g->params[p].shape);
    return n;
}
