#include "pass/autodiff.h"

#include <stdlib.h>

static void accumulate(Graph *g, Val *grad, Val v, Val d) {
    const Shape *want = &graph_value(g, v)->shape, *got = &graph_value(g, d)->shape;
    CHECK(shape_count(want) == shape_count(got), "gradient of %s has another size", graph_value(g, v)->name);
    grad[v] = grad[v] == NO_VAL ? d : op_add(g, grad[v], d);
}

void autodiff(Graph *g, const Val *outputs, const Val *seeds, int count, Val *grad) {
    int32_t n_values = g->n_values, n_nodes = g->n_nodes;
    for (Val v = 0; v < n_values; v++) grad[v] = NO_VAL;
    for (int i = 0; i < count; i++) accumulate(g, grad, outputs[i], seeds[i]);

    for (int32_t id = n_nodes - 1; id >= 0; id--) {
        Node n = g->nodes[id];
        const OpDef *def = node_def(&n);
        Val dout[MAX_OUT], din[MAX_IN];
        bool reached = false;
        for (int i = 0; i < n.n_out; i++) {
            Val v = node_out(g, &n, i);
            dout[i] = v < n_values ? grad[v] : NO_VAL;
            reached |= dout[i] != NO_VAL;
        }
        if (!reached || def->flags & OPF_NO_GRAD) continue;
        CHECK(def->grad, "%s has no gradient", n.name);
        for (int i = 0; i < n.n_in; i++) din[i] = NO_VAL;
        def->grad(g, n, dout, din);
        for (int i = 0; i < n.n_in; i++)
            if (din[i] != NO_VAL) accumulate(g, grad, node_in(g, &n, i), din[i]);
    }
}

void autodiff_bind_parameters(Graph *g, const Val *grad, int32_t n_values) {
    for (Val v = 0; v < n_values; v++) {
        const Value *w = graph_value(g, v);
        if (w->kind != V_STATE || w->role != ROLE_WEIGHT || w->param < 0) continue;
        int32_t param = w->param;
        CHECK(grad[v] != NO_VAL, "%s has no gradient", w->name);
        Value *d = &g->values[grad[v]];
        CHECK(d->kind == V_ACT, "the gradient of %s is shared with another value", w->name);
        d->kind = V_STATE;
        d->role = ROLE_GRAD;
        d->param = param;
        d->name = w->name;
    }
}
