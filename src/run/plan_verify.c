/* plan_verify.c - an independent reading of a plan: from the bound addresses alone it replays which bytes each step
 * writes and reads. It shares no code and no side arrays with the planner, so that a fault there shows here. */
#include <stdlib.h>

#include "run/plan.h"

typedef struct {
    const char *begin, *end;
    int32_t written; /* step that wrote it; -1: never */
    int32_t read;    /* last step that reads it */
} Extent;

static Extent extent_of(const Plan *p, Val v) {
    const Value *x = graph_value(p->graph, v);
    const char *begin = p->address[v];
    return (Extent){begin, begin + shape_count(&x->shape) * (int64_t)dtype_size(x->dtype), -1, -1};
}

/* Output 0 may lie exactly on input 0 when the row says so, the step reads that value as no other input as well, and is
 * the last to read it. */
static bool inplace_allowed(const Plan *p, int32_t step, Val in, const Extent *a, Val out, const Extent *b) {
    const Node *n = p->steps[step].call.node;
    for (int i = 1; i < n->n_in; i++)
        if (node_in(p->graph, n, i) == in) return false;
    return node_def(n)->flags & OPF_INPLACE0 && node_in(p->graph, n, 0) == in && node_out(p->graph, n, 0) == out &&
           a->begin == b->begin && a->end == b->end && a->read == step && b->written == step;
}

static bool check_pair(const Plan *p, Val va, const Extent *a, Val vb, const Extent *b, Err *err) {
    if (a->end <= b->begin || b->end <= a->begin) return true;
    /* apart in time: one has been read for the last time before the other is written */
    if (a->read < b->written || b->read < a->written) return true;
    const Graph *g = p->graph;
    if (inplace_allowed(p, b->written, va, a, vb, b) || inplace_allowed(p, a->written, vb, b, va, a)) return true;
    return err_set(err, EXIT_BUG, "plan: %s (value %d) and %s (value %d) overlap while both must stand",
                   g->values[va].name, va, g->values[vb].name, vb);
}

static bool follow_steps(const Plan *p, Extent *extent, Err *err) {
    const Graph *g = p->graph;
    for (int32_t i = 0; i < p->n_steps; i++) {
        const Node *n = p->steps[i].call.node;
        for (int k = 0; k < n->n_in; k++) {
            Val v = node_in(g, n, k);
            if (v == NO_VAL || graph_value(g, v)->kind != V_ACT) continue;
            if (!extent[v].begin || extent[v].written < 0)
                return err_set(err, EXIT_BUG, "plan: step %d (%s) reads value %d before it is written", i, n->name, v);
            /* a constant is written once and read by every later run: it stands to the end */
            bool constant = extent[v].written < p->n_constant_steps && i >= p->n_constant_steps;
            extent[v].read = constant ? INT32_MAX : i;
        }
        for (int k = 0; k < n->n_out; k++) {
            Val v = node_out(g, n, k);
            if (graph_value(g, v)->kind != V_ACT || !extent[v].begin) continue;
            extent[v].written = i;
            extent[v].read = MAX(extent[v].read, i);
        }
    }
    return true;
}

bool plan_verify(const Plan *p, Err *err) {
    const Graph *g = p->graph;
    Extent *extent = mem_zalloc((size_t)g->n_values, sizeof *extent);
    for (Val v = 0; v < g->n_values; v++) extent[v] = extent_of(p, v);
    bool ok = follow_steps(p, extent, err);
    /* what the caller keeps must stand after the last step */
    for (int i = 0; ok && i < p->n_keep; i++) {
        Val v = p->keep[i];
        extent[v].read = INT32_MAX;
        if (graph_value(g, v)->kind == V_ACT && extent[v].written < 0)
            ok = err_set(err, EXIT_BUG, "plan: value %d is kept and never written", v);
    }
    for (Val a = 0; ok && a < g->n_values; a++) {
        if (graph_value(g, a)->kind != V_ACT || extent[a].written < 0) continue;
        const char *low = extent[a].written < p->n_constant_steps ? p->constants : p->arena;
        size_t size = extent[a].written < p->n_constant_steps ? p->constant_bytes : p->arena_bytes;
        if (extent[a].begin < low || extent[a].end > low + size)
            ok = err_set(err, EXIT_BUG, "plan: value %d lies outside its memory", a);
        for (Val b = a + 1; ok && b < g->n_values; b++)
            if (graph_value(g, b)->kind == V_ACT && extent[b].written >= 0)
                ok = check_pair(p, a, &extent[a], b, &extent[b], err);
    }
    free(extent);
    return ok;
}
