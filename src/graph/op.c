/* op.c - gathers the rows; an op of ops.def without a row does not link. */
#include "graph/op.h"

#define OP(name, summary) extern const OpDef op_def_##name;
#include "graph/ops.def"
#undef OP

const OpDef *const op_def[OP_COUNT] = {
#define OP(name, summary) [OP_##name] = &op_def_##name,
#include "graph/ops.def"
#undef OP
};

bool op_sums_to_zero(const Graph *g, Val gradient) {
    const Value *v = graph_value(g, gradient);
    if (v->def < 0) return false;
    const Node *n = &g->nodes[v->def];
    if (node_out(g, n, 0) != gradient) return false;
    switch (n->op) {
    case OP_batch_norm_bwd: return true;
    /* what maps every row alike keeps the property; a convolution's border and dropped samples do not */
    case OP_linear_dx: return op_sums_to_zero(g, node_in(g, n, 0));
    case OP_residual_bwd: return node_in(g, n, 3) == NO_VAL && op_sums_to_zero(g, node_in(g, n, 0));
    default: return false;
    }
}

DType node_compute_type(const Graph *g, const Node *n) {
    const OpDef *def = node_def(n);
    for (int i = 0; i < n->n_in; i++)
        if (def->features >> i & 1 && node_in(g, n, i) != NO_VAL) return graph_value(g, node_in(g, n, i))->dtype;
    /* normalize, whose input is no feature */
    return def->features_out ? graph_value(g, node_out(g, n, 0))->dtype : DT_F32;
}

const char *op_check_types(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const OpDef *def = node_def(n);
    DType type = def->features ? node_compute_type(g, n) : DT_F32;
    if (!dtype_is_float(type)) return "features must be f32, bf16 or f16";
    for (int i = 0; i < n->n_in; i++) {
        if (node_in(g, n, i) == NO_VAL || def->untyped >> i & 1) continue;
        DType got = graph_value(g, node_in(g, n, i))->dtype;
        if (def->features >> i & 1 && got != type) return "features and product weights must have one type";
        if (!(def->features >> i & 1) && got != DT_F32) return "operands that are not features must be f32";
    }
    for (int i = 0; def->features && i < n->n_out; i++)
        if (def->features_out >> i & 1) out[i].dtype = type;
    return NULL;
}
