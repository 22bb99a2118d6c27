#include "pass/autodiff.h"

#include <stdlib.h>

static void accumulate(Graph *g, Val *grad, Val v, Val d) {
    const Shape *want = &graph_value(g, v)->shape, *got = &graph_value(g, d)->shape;
    CHECK(shape_count(want) == shape_count(got), "gradient of %s has another size", graph_value(g, v)->name);
    grad[v] = grad[v] == NO_VAL ? d : op_add(g, grad[v], d);
}

/* Value v of the forward program for the backward one: itself, or computed again, once for all its readers: again[v].
 * A chain of cheap ops is computed from its start, the first value that is kept. */
static Val recomputed(Graph *g, Val v, Val *again) {
    const Value *x = graph_value(g, v);
    if (again[v] != NO_VAL) return again[v];
    if (x->kind != V_ACT || !(node_def(&g->nodes[x->def])->flags & OPF_CHEAP)) return v;
    Node n = g->nodes[x->def];
    if (v != node_out(g, &n, 0)) return v; /* small: a norm's statistics */
    Val in[MAX_IN], out[MAX_OUT];
    for (int i = 0; i < n.n_in; i++) in[i] = node_in(g, &n, i);
    in[0] = recomputed(g, in[0], again);
    graph_emit(g, n.op, n.attr, in, n.n_in, out);
    return again[v] = out[0];
}

/* Emits a node's gradient as its op's row says, which reads the node's inputs. They may stand for others meanwhile. */
static void emit_gradient(Graph *g, Node n, const Val *dout, Val *din, Val *again) {
    Val in[MAX_IN];
    for (int i = 0; i < n.n_in; i++) {
        in[i] = node_in(g, &n, i);
        Val v = again && in[i] != NO_VAL ? recomputed(g, in[i], again) : in[i];
        g->operand[n.first + i] = v;
    }
    node_def(&n)->grad(g, n, dout, din);
    for (int i = 0; i < n.n_in; i++) g->operand[n.first + i] = in[i];
}

void autodiff(Graph *g, const Val *outputs, const Val *seeds, int count, bool recompute, Val *grad) {
    int32_t n_values = g->n_values, n_nodes = g->n_nodes;
    Val *again = recompute ? mem_zalloc((size_t)n_values, sizeof *again) : NULL;
    for (Val v = 0; v < n_values; v++) grad[v] = NO_VAL;
    for (Val v = 0; again && v < n_values; v++) again[v] = NO_VAL;
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
        emit_gradient(g, n, dout, din, again);
        for (int i = 0; i < n.n_in; i++)
            if (din[i] != NO_VAL) accumulate(g, grad, node_in(g, &n, i), din[i]);
    }
    free(again);
}

void autodiff_bind_parameters(Graph *g, const Val *grad, int32_t n_values) {
    bool *bound = mem_zalloc((size_t)g->n_params, sizeof *bound);
    for (Val v = 0; v < n_values; v++) {
        const Value *w = graph_value(g, v);
        bool weight = w->kind == V_STATE && (w->role == ROLE_WEIGHT || w->role == ROLE_CAST);
        if (!weight || w->param < 0 || grad[v] == NO_VAL) continue;
        CHECK(!bound[w->param], "%s is read in two types", w->name);
        bound[w->param] = true;
        Value *d = &g->values[grad[v]];
        CHECK(d->kind == V_ACT, "the gradient of %s is shared with another value", w->name);
        d->kind = V_STATE;
        d->role = ROLE_GRAD;
        d->param = w->param;
        d->name = w->name;
    }
    for (int32_t p = 0; p < g->n_params; p++)
        CHECK(bound[p] || g->params[p].buffer, "%s has no gradient", g->params[p].name);
    free(bound);
}
