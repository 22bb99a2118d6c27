/* op_loss.c - probabilities and the training loss. */
#include "graph/op.h"

static const Shape *operand(const Graph *g, const Node *n, int i) { return i < n->n_in ? in_shape(g, n, i) : NULL; }
static DType dtype(const Graph *g, const Node *n, int i) { return graph_value(g, node_in(g, n, i))->dtype; }

/* y[b][k] = exp(x[b][k]) / sum over j of exp(x[b][j]), x (B,K). For predictions: training differentiates cross_entropy,
 * which has its own. */
static const char *softmax_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *x = operand(g, n, 0);
    if (!x || x->rank != 2 || x->dim[1] < 1 || dtype(g, n, 0) != DT_F32) return "x must be f32 (B,K)";
    out[0] = (Type){*x, DT_F32};
    return NULL;
}

const OpDef op_def_softmax = {.name = "softmax", .min_in = 1, .max_in = 1, .n_out = 1,
                              .flags = OPF_NO_GRAD | OPF_INPLACE0, .infer = softmax_infer};

Val op_softmax(Graph *g, Val x) {
    Val y;
    graph_emit(g, OP_softmax, (Attr){0}, &x, 1, &y);
    return y;
}

/* labels i32 (B), or targets f32 (B,K) */
static const char *target_misfit(const Graph *g, const Node *n, int target, const Shape *logits) {
    const Shape *t = operand(g, n, target);
    if (!t) return "a target must be present";
    if (!(n->attr.loss.smoothing >= 0 && n->attr.loss.smoothing <= 1)) return "smoothing must lie in 0..1";
    if (dtype(g, n, target) == DT_I32 && t->rank == 1 && t->dim[0] == logits->dim[0]) return NULL;
    if (dtype(g, n, target) == DT_F32 && shape_equal(t, logits)) return NULL;
    return "a target must be labels i32 (B) or targets f32 (B,K)";
}

/* loss (1) = mean over the samples that count of -sum over k of t[b][k] log prob[b][k], prob (B,K) = softmax(logits),
 * t = (1 - s) target + s / K, s = attr.loss.smoothing, target the one-hot row of a label, or targets as they are.
 * A sample with a label outside 0 .. K-1 does not count; when none does the loss is 0.
 * dlogits[b] = dloss (prob[b] sum(t[b]) - t[b]) / count, 0 for a sample that does not count. */
static const char *cross_entropy_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *x = operand(g, n, 0);
    if (!x || x->rank != 2 || x->dim[1] < 1 || dtype(g, n, 0) != DT_F32) return "logits must be f32 (B,K)";
    out[0] = (Type){SHAPE(1), DT_F32};
    out[1] = (Type){*x, DT_F32};
    return target_misfit(g, n, 1, x);
}

static void cross_entropy_grad(Graph *g, Node n, const Val *dout, Val *din) {
    CHECK(dout[1] == NO_VAL, "%s: only the loss has a gradient, the probabilities are for reading", n.name);
    graph_emit(g, OP_cross_entropy_bwd, n.attr, (Val[]){dout[0], node_out(g, &n, 1), node_in(g, &n, 1)}, 3, &din[0]);
}

const OpDef op_def_cross_entropy = {.name = "cross_entropy", .min_in = 2, .max_in = 2, .n_out = 2, .untyped = 1 << 1,
                                    .infer = cross_entropy_infer, .grad = cross_entropy_grad};

static const char *cross_entropy_bwd_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *dloss = operand(g, n, 0), *prob = operand(g, n, 1);
    if (!dloss || shape_count(dloss) != 1 || dtype(g, n, 0) != DT_F32) return "dloss must be one f32";
    if (!prob || prob->rank != 2 || dtype(g, n, 1) != DT_F32) return "prob must be f32 (B,K)";
    out[0] = (Type){*prob, DT_F32};
    return target_misfit(g, n, 2, prob);
}

const OpDef op_def_cross_entropy_bwd = {.name = "cross_entropy_bwd", .min_in = 3, .max_in = 3, .n_out = 1,
                                        .flags = OPF_NO_GRAD, .untyped = 1 << 2, .infer = cross_entropy_bwd_infer};

Val op_cross_entropy(Graph *g, Val logits, Val target, float smoothing) {
    Val out[2];
    graph_emit(g, OP_cross_entropy, (Attr){.loss = {.smoothing = smoothing}}, (Val[]){logits, target}, 2, out);
    return out[0];
}
