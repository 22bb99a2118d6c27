/* precision.c - see precision.h. Reads which operands are features off the op table; knows no op by name but
 * normalize, whose output type is an attribute, and refuses graphs that have a backward program already. */
#include "pass/precision.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    const Graph *from;
    Graph *to;
    DType compute;
    bool training;
    Val *map;   /* [values of from]: the value's id in to */
    Val *other; /* [values of from]: the value in the other type that readers want, once one has asked; else NO_VAL */
} Lower;

/* A value of the old graph in the type that a reader wants: the compute type or the one that it had. By the typing rule
 * it is of one of these itself, so that there is one other. */
static Val typed(Lower *l, Val v, DType want) {
    const Value *x = graph_value(l->to, l->map[v]);
    if (x->dtype == want) return l->map[v];
    Val *slot = &l->other[v];
    if (*slot == NO_VAL && l->training && x->kind == V_STATE && x->role == ROLE_WEIGHT) {
        *slot = graph_state(l->to, ROLE_CAST, x->param);
        l->to->values[*slot].dtype = want;
    } else if (*slot == NO_VAL) {
        *slot = op_cast(l->to, l->map[v], want);
    }
    return *slot;
}

/* Declares all parameters and casts all weights, into ROLE_CAST. */
static void cast_weights(Lower *l) {
    for (int32_t p = 0; p < l->from->n_params; p++) graph_param(l->to, l->from->params[p]);
    Val cast = op_cast(l->to, graph_state_group(l->to, ROLE_WEIGHT, PARAMS_ALL), l->compute);
    Value *x = &l->to->values[cast];
    x->kind = V_STATE;
    x->role = ROLE_CAST;
    x->group = PARAMS_ALL;
}

static void lower_node(Lower *l, const Node *n) {
    const Graph *g = l->from;
    const OpDef *def = node_def(n);
    Attr attr = n->attr;
    Val in[MAX_IN], out[MAX_OUT];
    if (n->op == OP_normalize) attr.normalize.dtype = l->compute;
    /* what is emitted for this node bears its name: that is scope + op */
    size_t scope = strlen(n->name) - strlen(def->name);
    if (scope > 0) graph_push(l->to, "%.*s", (int)scope - 1, n->name);
    for (int i = 0; i < n->n_in; i++) {
        Val v = node_in(g, n, i);
        if (v == NO_VAL || def->untyped >> i & 1)
            in[i] = v == NO_VAL ? NO_VAL : l->map[v];
        else
            in[i] = typed(l, v, def->features >> i & 1 ? l->compute : DT_F32);
    }
    graph_emit(l->to, n->op, attr, in, n->n_in, out);
    if (scope > 0) graph_pop(l->to);
    for (int i = 0; i < n->n_out; i++) {
        CHECK(graph_value(g, node_out(g, n, i))->kind == V_ACT, "%s: gradients are lowered already", n->name);
        l->map[node_out(g, n, i)] = out[i];
    }
}

static Val lower_source(Lower *l, const Value *x) {
    if (x->kind == V_INPUT) return graph_input(l->to, x->name, x->dtype, x->shape);
    CHECK(x->param >= 0, "%s: a graph with an optimizer is lowered already", x->name);
    if (x->role == ROLE_WEIGHT || x->role == ROLE_BUFFER) return graph_param(l->to, l->from->params[x->param]);
    return graph_state(l->to, x->role, x->param);
}

Graph *precision_lower(const Graph *g, DType compute, bool training, Val *keep, int n_keep) {
    CHECK(dtype_is_float(compute), "no compute type: %s", dtype_name(compute));
    size_t n = (size_t)g->n_values;
    Lower l = {.from = g, .to = graph_new(), .compute = compute, .training = training,
               .map = mem_zalloc(n, sizeof(Val)), .other = mem_zalloc(n, sizeof(Val))};
    for (size_t v = 0; v < n; v++) l.map[v] = l.other[v] = NO_VAL;
    if (training && compute != DT_F32) cast_weights(&l);
    /* in the order of ids, so that without casts they stay; a node comes with its first output */
    int32_t next = 0;
    for (Val v = 0; v < g->n_values; v++) {
        const Value *x = graph_value(g, v);
        if (x->def < 0) l.map[v] = lower_source(&l, x);
        for (; next <= x->def; next++) lower_node(&l, &g->nodes[next]);
    }
    CHECK(next == g->n_nodes, "a graph with an optimizer is lowered already");
    for (int i = 0; i < n_keep; i++) keep[i] = typed(&l, keep[i], graph_value(g, keep[i])->dtype);
    free(l.map);
    free(l.other);
    return l.to;
}
