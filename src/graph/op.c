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

const char *op_all_f32(const Graph *g, const Node *n) {
    for (int i = 0; i < n->n_in; i++)
        if (node_in(g, n, i) != NO_VAL && graph_value(g, node_in(g, n, i))->dtype != DT_F32) return "operands must be f32";
    return NULL;
}
