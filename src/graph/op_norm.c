/* op_norm.c - LayerNorm over channels and BatchNorm over everything else, on tensors (...,C): rows of C channels.
 * Variances are of the population (divided by the count) and eps stands inside the root. mean and rstd are outputs
 * for the backward ops alone and take no gradient. */
#include "graph/op.h"

/* Operands `first` .. end must be vectors of `count` elements, in whatever rank. */
static const char *vectors_misfit(const Graph *g, const Node *n, int first, int end, int64_t count) {
    for (int i = first; i < end; i++)
        if (shape_count(in_shape(g, n, i)) != count) return "vectors must have as many elements as x has channels";
    return NULL;
}

static Type vector(int64_t n) { return (Type){SHAPE(n), DT_F32}; }

static void only_y_has_gradient(const Node *n, const Val *dout) {
    CHECK(dout[0] != NO_VAL && dout[1] == NO_VAL && dout[2] == NO_VAL, "%s: mean and rstd take no gradient", n->name);
}

/* y = (x - mean) rstd g + b, mean and rstd = 1 / sqrt(var + eps) of each row.
 * x (...,C), g (C), b (C) -> y (...,C), mean (rows), rstd (rows). */
static const char *layer_norm_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *x = in_shape(g, n, 0);
    if (x->rank < 1) return "x must have a channel dimension";
    out[0] = (Type){*x, DT_F32};
    out[1] = out[2] = vector(shape_rows(x));
    return vectors_misfit(g, n, 1, 3, shape_last(x));
}

static void layer_norm_grad(Graph *g, Node n, const Val *dout, Val *din) {
    only_y_has_gradient(&n, dout);
    Val in[] = {dout[0], node_in(g, &n, 0), node_in(g, &n, 1), node_out(g, &n, 1), node_out(g, &n, 2)};
    graph_emit(g, OP_layer_norm_bwd, (Attr){0}, in, 5, din);
}

const OpDef op_def_layer_norm = {.name = "layer_norm",
                                 .min_in = 3,
                                 .max_in = 3,
                                 .n_out = 3,
                                 .flags = OPF_INPLACE0 | OPF_CHEAP,
                                 .features = 1 << 0,
                                 .features_out = 1 << 0,
                                 .infer = layer_norm_infer,
                                 .grad = layer_norm_grad};

Val op_layer_norm(Graph *g, Val x, Val gain, Val bias, float eps) {
    Val out[3];
    graph_emit(g, OP_layer_norm, (Attr){.norm = {.eps = eps}}, (Val[]){x, gain, bias}, 3, out);
    return out[0];
}

/* With h = (x - mean) rstd and means over the row:
 * dx = rstd (dy g - mean(dy g) - h mean(dy g h));  dg = sum over rows of dy h;  db = sum over rows of dy.
 * dy, x (...,C), g (C), mean, rstd (rows) -> dx (...,C), dg (C), db (C). */
static const char *layer_norm_bwd_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *x = in_shape(g, n, 1);
    if (!shape_equal(in_shape(g, n, 0), x)) return "dy and x must have the same shape";
    out[0] = (Type){*x, DT_F32};
    out[1] = out[2] = vector(shape_last(x));
    if (shape_count(in_shape(g, n, 3)) != shape_rows(x) || shape_count(in_shape(g, n, 4)) != shape_rows(x))
        return "mean and rstd must have as many elements as x has rows";
    return vectors_misfit(g, n, 2, 3, shape_last(x));
}

const OpDef op_def_layer_norm_bwd = {.name = "layer_norm_bwd", .min_in = 5, .max_in = 5, .n_out = 3,
                                     .flags = OPF_NO_GRAD | OPF_INPLACE0, .features = 1 << 0 | 1 << 1,
                                     .features_out = 1 << 0, .infer = layer_norm_bwd_infer};

/* y = (x - mean) rstd g + b, mean and rstd = 1 / sqrt(var + eps) of each channel over the rows of the batch. Updates
 * running = (1 - momentum) running + momentum of_batch, where the batch's variance is the unbiased one, divided by
 * rows - 1. A single row has no unbiased variance; it counts as 0. A channel whose variance is not finite leaves its
 * running statistics alone: a step that is skipped for it must not destroy them. With attr gelu y is the gelu of that,
 * which itself is never stored: the gradient computes it again.
 * x (...,C), g, b, running mean, running var (C) -> y (...,C), mean (C), rstd (C). */
static const char *batch_norm_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *x = in_shape(g, n, 0);
    if (x->rank < 1) return "x must have a channel dimension";
    out[0] = (Type){*x, DT_F32};
    out[1] = out[2] = vector(shape_last(x));
    return vectors_misfit(g, n, 1, 5, shape_last(x));
}

static void batch_norm_grad(Graph *g, Node n, const Val *dout, Val *din) {
    only_y_has_gradient(&n, dout);
    Val in[] = {dout[0], node_in(g, &n, 0), node_in(g, &n, 1), node_out(g, &n, 1), node_out(g, &n, 2),
                n.attr.norm.gelu ? node_in(g, &n, 2) : NO_VAL};
    graph_emit(g, OP_batch_norm_bwd, n.attr, in, 6, din);
}

const OpDef op_def_batch_norm = {.name = "batch_norm", .min_in = 5, .max_in = 5, .n_out = 3, .flags = OPF_INPLACE0,
                                 .mutates = 1 << 3 | 1 << 4, .features = 1 << 0, .features_out = 1 << 0,
                                 .infer = batch_norm_infer, .grad = batch_norm_grad};

Val op_batch_norm(Graph *g, Val x, Val gain, Val bias, Val running_mean, Val running_var, float eps, float momentum) {
    Val out[3];
    Val in[] = {x, gain, bias, running_mean, running_var};
    graph_emit(g, OP_batch_norm, (Attr){.norm = {.eps = eps, .momentum = momentum}}, in, 5, out);
    return out[0];
}

/* With h = (x - mean) rstd and means over the rows:
 * dg = sum of dy h;  db = sum of dy;  dx = g rstd (dy - mean(dy) - h mean(dy h)).
 * With attr gelu, dy gelu'(h g + b) stands for dy.
 * dy, x (...,C), g, mean, rstd (C), b (C) or absent without gelu -> dx (...,C), dg (C), db (C). */
static const char *batch_norm_bwd_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *x = in_shape(g, n, 1);
    if (!shape_equal(in_shape(g, n, 0), x)) return "dy and x must have the same shape";
    out[0] = (Type){*x, DT_F32};
    out[1] = out[2] = vector(shape_last(x));
    if (n->attr.norm.gelu != (n->n_in > 5 && node_in(g, n, 5) != NO_VAL)) return "b must be present with gelu alone";
    return vectors_misfit(g, n, 2, n->attr.norm.gelu ? 6 : 5, shape_last(x));
}

const OpDef op_def_batch_norm_bwd = {.name = "batch_norm_bwd", .min_in = 5, .max_in = 6, .n_out = 3,
                                     .flags = OPF_NO_GRAD | OPF_INPLACE0, .features = 1 << 0 | 1 << 1,
                                     .features_out = 1 << 0, .infer = batch_norm_bwd_infer};

/* y = (x - running mean) / sqrt(running var + eps) g + b. For evaluation: a frozen BatchNorm is not trained through.
 * x (...,C), g, b, running mean, running var (C) -> y (...,C). */
static const char *batch_norm_eval_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *x = in_shape(g, n, 0);
    if (x->rank < 1) return "x must have a channel dimension";
    out[0] = (Type){*x, DT_F32};
    return vectors_misfit(g, n, 1, 5, shape_last(x));
}

const OpDef op_def_batch_norm_eval = {.name = "batch_norm_eval", .min_in = 5, .max_in = 5, .n_out = 1,
                                      .flags = OPF_NO_GRAD | OPF_INPLACE0, .features = 1 << 0, .features_out = 1 << 0,
                                      .infer = batch_norm_eval_infer};

Val op_batch_norm_eval(Graph *g, Val x, Val gain, Val bias, Val running_mean, Val running_var, float eps) {
    Val y, in[] = {x, gain, bias, running_mean, running_var};
    graph_emit(g, OP_batch_norm_eval, (Attr){.norm = {.eps = eps}}, in, 5, &y);
    return y;
}

/* Weights of a convolution or linear layer that already contain the batch_norm_eval after it; s = g / sqrt(running
 * var + eps) per output channel: w' = w s, b' = (b - running mean) s + beta.
 * w (O,...), b, g, beta, running mean, running var (O) -> w' (O,...), b' (O). */
static const char *fold_batch_norm_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *w = in_shape(g, n, 0);
    if (w->rank < 1) return "w must have output channels";
    out[0] = (Type){*w, DT_F32};
    out[1] = vector(w->dim[0]);
    for (int i = 1; i < 6; i++)
        if (shape_count(in_shape(g, n, i)) != w->dim[0]) return "vectors must have as many elements as w has outputs";
    return NULL;
}

const OpDef op_def_fold_batch_norm = {.name = "fold_batch_norm", .min_in = 6, .max_in = 6, .n_out = 2,
                                      .flags = OPF_NO_GRAD, .infer = fold_batch_norm_infer};
