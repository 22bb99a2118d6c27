#include "pass/fuse.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    const Graph *from;
    Graph *to;
    unsigned patterns;
    Val *map;       /* [values of from]: the value's id in to */
    int32_t *uses;  /* [values of from]: readers, plus one where the caller keeps it */
    bool *absorbed; /* [nodes of from]: becomes part of its only reader; complete for the readers of a node first */
} Fuse;

static Val mapped(const Fuse *f, Val v) { return v == NO_VAL ? NO_VAL : f->map[v]; }

/* The node that produces v when v has no other reader than the one asking; NULL otherwise. */
static const Node *only_producer(const Fuse *f, Val v, OpId op) {
    const Value *x = graph_value(f->from, v);
    if (x->kind != V_ACT || f->uses[v] != 1 || f->from->nodes[x->def].op != op) return NULL;
    return &f->from->nodes[x->def];
}

static void count_uses(Fuse *f, const Val *keep, int n_keep) {
    const Graph *g = f->from;
    for (int32_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (node_in(g, &g->nodes[i], k) != NO_VAL) f->uses[node_in(g, &g->nodes[i], k)]++;
    for (int i = 0; i < n_keep; i++) f->uses[keep[i]]++;
}

/* What a node takes into itself, by pattern. */
static const Node *absorbs(const Fuse *f, const Node *n) {
    const Graph *g = f->from;
    const Node *p = NULL;
    unsigned packed = f->patterns & FUSE_PACKED;
    if (n->op == OP_batch_norm_eval && f->patterns & FUSE_BATCH_NORM) {
        p = only_producer(f, node_in(g, n, 0), OP_conv2d);
        if (!p) p = only_producer(f, node_in(g, n, 0), OP_linear);
    } else if (n->op == OP_dwconv && f->patterns & FUSE_GELU_DWCONV && !n->attr.dwconv.gelu) {
        p = only_producer(f, node_in(g, n, 0), OP_gelu);
    } else if (n->op == OP_gelu && f->absorbed[n - g->nodes]) {
        return NULL;
    } else if (n->op == OP_gelu && f->patterns & FUSE_BATCH_NORM_GELU &&
               (p = only_producer(f, node_in(g, n, 0), OP_batch_norm))) {
        return p;
    } else if (n->op == OP_gelu && f->patterns & FUSE_GELU && packed) {
        p = only_producer(f, node_in(g, n, 0), OP_linear);
        /* a norm that goes into its product takes the GELU along */
        if (!p && (p = only_producer(f, node_in(g, n, 0), OP_batch_norm_eval)) && !absorbs(f, p)) p = NULL;
    } else if (n->op == OP_residual && f->patterns & FUSE_RESIDUAL && packed && node_in(g, n, 3) == NO_VAL) {
        p = only_producer(f, node_in(g, n, 1), OP_linear);
    }
    return p;
}

static Val emit1(Graph *g, OpId op, Attr attr, const Val *in, int n_in) {
    Val out[MAX_OUT];
    graph_emit(g, op, attr, in, n_in, out);
    return out[0];
}

/* scale: of each output, or NO_VAL; x0: what a residual adds the product to, or NO_VAL. */
static Val emit_linear(const Fuse *f, Val x, Val w, Val b, bool gelu, Val scale, Val x0) {
    if (!(f->patterns & FUSE_PACKED)) return op_linear(f->to, x, w, b);
    Val wt = emit1(f->to, OP_transpose, (Attr){0}, (Val[]){w, scale}, 2);
    if (scale != NO_VAL && b != NO_VAL) b = emit1(f->to, OP_multiply, (Attr){0}, (Val[]){b, scale}, 2);
    return emit1(f->to, OP_linear_packed, (Attr){.linear = {.gelu = gelu}}, (Val[]){x, wt, b, x0}, 4);
}

static Val emit_conv(const Fuse *f, Attr attr, Val x, Val w, Val b, bool gelu) {
    if (!(f->patterns & FUSE_PACKED)) return emit1(f->to, OP_conv2d, attr, (Val[]){x, w, b}, 3);
    attr.conv.gelu = gelu;
    Val packed = emit1(f->to, OP_pack_conv, (Attr){0}, (Val[]){w}, 1);
    return emit1(f->to, OP_conv2d_packed, attr, (Val[]){x, packed, b}, 3);
}

static Val emit_with_batch_norm(const Fuse *f, const Node *product, const Node *norm, bool gelu) {
    const Graph *g = f->from;
    Val in[6] = {mapped(f, node_in(g, product, 1)), mapped(f, node_in(g, product, 2))};
    for (int i = 0; i < 4; i++) in[2 + i] = mapped(f, node_in(g, norm, 1 + i));
    Val folded[MAX_OUT];
    graph_emit(f->to, OP_fold_batch_norm, norm->attr, in, 6, folded);
    Val x = mapped(f, node_in(g, product, 0));
    if (product->op == OP_linear) return emit_linear(f, x, folded[0], folded[1], gelu, NO_VAL, NO_VAL);
    return emit_conv(f, product->attr, x, folded[0], folded[1], gelu);
}

static void rewrite_node(Fuse *f, const Node *n) {
    const Graph *g = f->from;
    Val out = n->n_out ? node_out(g, n, 0) : NO_VAL;
    const Node *p = absorbs(f, n);
    /* what is emitted for this node bears its name: that is scope + op */
    size_t scope = strlen(n->name) - strlen(node_def(n)->name);
    if (scope > 0) graph_push(f->to, "%.*s", (int)scope - 1, n->name);
    if (p && n->op == OP_batch_norm_eval) {
        f->map[out] = emit_with_batch_norm(f, p, n, false);
    } else if (p && p->op == OP_batch_norm_eval) {
        f->map[out] = emit_with_batch_norm(f, absorbs(f, p), p, true);
    } else if (p && p->op == OP_gelu) {
        Attr attr = n->attr;
        attr.dwconv.gelu = true;
        Val in[] = {mapped(f, node_in(g, p, 0)), mapped(f, node_in(g, n, 1)), mapped(f, node_in(g, n, 2))};
        f->map[out] = emit1(f->to, OP_dwconv, attr, in, 3);
    } else if (p && p->op == OP_batch_norm) {
        Attr attr = p->attr;
        attr.norm.gelu = true;
        Val in[5];
        for (int i = 0; i < 5; i++) in[i] = mapped(f, node_in(g, p, i));
        f->map[out] = emit1(f->to, OP_batch_norm, attr, in, 5);
    } else if (n->op == OP_conv2d) {
        f->map[out] = emit_conv(f, n->attr, mapped(f, node_in(g, n, 0)), mapped(f, node_in(g, n, 1)),
                                mapped(f, node_in(g, n, 2)), false);
    } else if (p || n->op == OP_linear) {
        const Node *product = p ? p : n;
        bool residual = n->op == OP_residual;
        f->map[out] = emit_linear(f, mapped(f, node_in(g, product, 0)), mapped(f, node_in(g, product, 1)),
                                  mapped(f, node_in(g, product, 2)), n->op == OP_gelu,
                                  residual ? mapped(f, node_in(g, n, 2)) : NO_VAL,
                                  residual ? mapped(f, node_in(g, n, 0)) : NO_VAL);
    } else {
        Val in[MAX_IN], outs[MAX_OUT];
        for (int i = 0; i < n->n_in; i++) in[i] = mapped(f, node_in(g, n, i));
        graph_emit(f->to, n->op, n->attr, in, n->n_in, outs);
        for (int i = 0; i < n->n_out; i++) f->map[node_out(g, n, i)] = outs[i];
    }
    if (scope > 0) graph_pop(f->to);
}

static void copy_sources(Fuse *f) {
    const Graph *g = f->from;
    for (int32_t p = 0; p < g->n_params; p++) graph_param(f->to, g->params[p]);
    for (Val v = 0; v < g->n_values; v++) {
        const Value *x = graph_value(g, v);
        if (x->kind == V_INPUT) f->map[v] = graph_input(f->to, x->name, x->dtype, x->shape);
        if (x->kind == V_STATE && x->param >= 0) f->map[v] = graph_state(f->to, x->role, x->param);
    }
}

Graph *fuse(const Graph *g, unsigned patterns, Val *keep, int n_keep) {
    size_t n = (size_t)g->n_values;
    Fuse f = {.from = g, .to = graph_new(), .patterns = patterns, .map = mem_zalloc(n, sizeof(Val)),
              .uses = mem_zalloc(n, sizeof(int32_t)), .absorbed = mem_zalloc((size_t)g->n_nodes, sizeof(bool))};
    for (size_t v = 0; v < n; v++) f.map[v] = NO_VAL;
    count_uses(&f, keep, n_keep);
    copy_sources(&f);
    for (int32_t i = g->n_nodes - 1; i >= 0; i--) {
        const Node *p = absorbs(&f, &g->nodes[i]);
        if (p) f.absorbed[p - g->nodes] = true;
    }
    for (int32_t i = 0; i < g->n_nodes; i++)
        if (!f.absorbed[i]) rewrite_node(&f, &g->nodes[i]);
    for (int i = 0; i < n_keep; i++) keep[i] = f.map[keep[i]];
    free(f.map);
    free(f.uses);
    free(f.absorbed);
    return f.to;
}
