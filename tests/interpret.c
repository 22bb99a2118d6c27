#include "interpret.h"

#include <stdlib.h>

#include "backend/cpu/ref.h"

Interpreter interpreter_new(const Graph *g) {
    Interpreter it = {.graph = g, .x = mem_zalloc((size_t)g->n_values, sizeof(double *))};
    FlatLayout layout = it.layout = graph_flat_layout(g);
    for (StateRole role = 0; role < ROLE_COUNT; role++)
        it.state[role] = mem_zalloc((size_t)(role == ROLE_BUFFER ? layout.buffers : layout.total), sizeof(double));
    for (Val v = 0; v < g->n_values; v++) {
        const Value *value = graph_value(g, v);
        if (value->kind != V_STATE)
            it.x[v] = mem_zalloc((size_t)shape_count(&value->shape), sizeof(double));
        else if (value->param >= 0)
            it.x[v] = it.state[value->role] + layout.offset[value->param];
        else
            it.x[v] = it.state[value->role] + (value->group == PARAMS_OTHER ? layout.decayed : 0);
    }
    return it;
}

void interpreter_free(Interpreter *it) {
    for (Val v = 0; v < it->graph->n_values; v++)
        if (it->graph->values[v].kind != V_STATE) free(it->x[v]);
    for (StateRole role = 0; role < ROLE_COUNT; role++) free(it->state[role]);
    free(it->layout.offset);
    free(it->x);
}

void interpreter_run(Interpreter *it, int32_t from, int32_t to) {
    const Graph *g = it->graph;
    for (int32_t id = from; id < to; id++) {
        const Node *n = &g->nodes[id];
        double *in[MAX_IN], *out[MAX_OUT];
        for (int i = 0; i < n->n_in; i++) in[i] = node_in(g, n, i) == NO_VAL ? NULL : it->x[node_in(g, n, i)];
        for (int i = 0; i < n->n_out; i++) out[i] = it->x[node_out(g, n, i)];
        op_ref[n->op](g, n, in, out);
        for (int i = 0; i < n->n_out; i++) {
            DType type = graph_value(g, node_out(g, n, i))->dtype;
            for (int64_t k = 0; type != DT_F32 && k < shape_count(out_shape(g, n, i)); k++)
                out[i][k] = ref_round(out[i][k], type);
        }
    }
}
