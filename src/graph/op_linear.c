/* op_linear.c - matrix products: linear layers with weights as the files keep them, (out, in) or (out, in, 1, 1), and
 * the forms that inference turns them into. The rows of a matrix are all dimensions but the last. */
#include "graph/op.h"

static const Shape *operand(const Graph *g, const Node *n, int i) { return i < n->n_in ? in_shape(g, n, i) : NULL; }

/* a matrix, or the weights of a 1x1 convolution */
static bool is_matrix(const Shape *w) {
    return w->rank == 2 || (w->rank == 4 && w->dim[2] == 1 && w->dim[3] == 1);
}

/* absent, or n numbers of whatever shape: gamma is (1,C,1,1) in files */
static bool is_vector(const Shape *s, int64_t n) { return !s || shape_count(s) == n; }

static Type with_last(const Shape *s, int64_t last) {
    Type t = {.shape = *s, .dtype = DT_F32};
    t.shape.dim[s->rank - 1] = last;
    return t;
}

/* y (...,O) = x w^T + b, x (...,I), w (O,I), b (O) or absent. With attr gelu, y = gelu(x w^T + b): for inference, since
 * the gradient would need the sum that is not kept.
 * dx = dy w;  dw = dy^T x;  db = column sums of dy. */
static const char *linear_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *x = operand(g, n, 0), *w = operand(g, n, 1), *b = operand(g, n, 2);
    if (!x || !w) return "x and w must be present";
    if (x->rank < 1) return "x must have a channel dimension";
    if (!is_matrix(w)) return "w must be (O,I) or (O,I,1,1)";
    if (w->dim[1] != shape_last(x)) return "w must have as many columns as x has channels";
    if (!is_vector(b, w->dim[0])) return "b must have as many elements as w has rows";
    out[0] = with_last(x, w->dim[0]);
    return NULL;
}

static double linear_macs(const Graph *g, const Node *n) {
    return (double)shape_count(in_shape(g, n, 0)) * (double)shape_last(out_shape(g, n, 0));
}

static void linear_grad(Graph *g, Node n, const Val *dout, Val *din) {
    CHECK(!n.attr.linear.gelu, "%s: a linear with a gelu is for inference", n.name);
    Val x = node_in(g, &n, 0), w = node_in(g, &n, 1), dw[2];
    graph_emit(g, OP_linear_dx, (Attr){0}, (Val[]){dout[0], w}, 2, &din[0]);
    graph_emit(g, OP_linear_dw, (Attr){0}, (Val[]){dout[0], x}, 2, dw);
    din[1] = dw[0];
    Val bias = n.n_in > 2 ? node_in(g, &n, 2) : NO_VAL;
    if (bias != NO_VAL) din[2] = op_sums_to_zero(g, dout[0]) ? op_zeros(g, bias) : dw[1];
}

const OpDef op_def_linear = {.name = "linear", .min_in = 2, .max_in = 3, .n_out = 1,
                             .features = 1 << 0 | 1 << 1 | 1 << 2, .features_out = 1 << 0, .infer = linear_infer,
                             .macs = linear_macs, .grad = linear_grad};

Val op_linear(Graph *g, Val x, Val w, Val b) {
    Val y;
    graph_emit(g, OP_linear, (Attr){0}, (Val[]){x, w, b}, 3, &y);
    return y;
}

/* dx (...,I) = dy w, dy (...,O), w (O,I) */
static const char *linear_dx_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *dy = operand(g, n, 0), *w = operand(g, n, 1);
    if (!dy || !w) return "dy and w must be present";
    if (dy->rank < 1 || !is_matrix(w)) return "dy must have channels, w must be (O,I) or (O,I,1,1)";
    if (w->dim[0] != shape_last(dy)) return "w must have as many rows as dy has channels";
    out[0] = with_last(dy, w->dim[1]);
    return NULL;
}

const OpDef op_def_linear_dx = {.name = "linear_dx", .min_in = 2, .max_in = 2, .n_out = 1, .flags = OPF_NO_GRAD,
                                .features = 1 << 0 | 1 << 1, .features_out = 1 << 0, .infer = linear_dx_infer,
                                .macs = linear_macs};

/* dw (O,I) = dy^T x, db (O) = column sums of dy; dy (...,O), x (...,I) */
static const char *linear_dw_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *dy = operand(g, n, 0), *x = operand(g, n, 1);
    if (!dy || !x) return "dy and x must be present";
    if (dy->rank < 1 || x->rank < 1 || shape_rows(dy) != shape_rows(x)) return "dy and x must have the same rows";
    out[0] = (Type){SHAPE(shape_last(dy), shape_last(x)), DT_F32};
    out[1] = (Type){SHAPE(shape_last(dy)), DT_F32};
    return NULL;
}

static double linear_dw_macs(const Graph *g, const Node *n) {
    return (double)shape_count(in_shape(g, n, 0)) * (double)shape_last(in_shape(g, n, 1));
}

const OpDef op_def_linear_dw = {.name = "linear_dw", .min_in = 2, .max_in = 2, .n_out = 2, .flags = OPF_NO_GRAD,
                                .features = 1 << 0 | 1 << 1, .infer = linear_dw_infer, .macs = linear_dw_macs};

/* wt (I,O), wt[i][o] = scale[o] w[o][i], w (O,I) or (O,I,1,1), scale (O elements of any shape) or absent: inference
 * turns weights once, ahead of every run, and the layer scale after a linear layer goes into them. */
static const char *transpose_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *w = operand(g, n, 0);
    if (!w || !is_matrix(w)) return "w must be (O,I) or (O,I,1,1)";
    if (!is_vector(operand(g, n, 1), w->dim[0])) return "scale must have as many elements as w has rows";
    out[0] = (Type){SHAPE(w->dim[1], w->dim[0]), DT_F32};
    return NULL;
}

const OpDef op_def_transpose = {.name = "transpose", .min_in = 1, .max_in = 2, .n_out = 1, .flags = OPF_NO_GRAD,
                                .infer = transpose_infer};

/* y (...,O) = x wt + b, x (...,I), wt (I,O), b (O) or absent; gelu of that with attr gelu; and with x0 (...,O),
 * y = x0 + that: a whole residual branch's end, layer scale being in the weights. */
static const char *linear_packed_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *x = operand(g, n, 0), *wt = operand(g, n, 1), *b = operand(g, n, 2);
    const Shape *x0 = operand(g, n, 3);
    if (!x || !wt) return "x and w^T must be present";
    if (x->rank < 1 || wt->rank != 2) return "x must have channels, w^T must be (I,O)";
    if (wt->dim[0] != shape_last(x)) return "w^T must have as many rows as x has channels";
    if (!is_vector(b, wt->dim[1])) return "b must have as many elements as w^T has columns";
    out[0] = with_last(x, wt->dim[1]);
    if (x0 && !shape_equal(x0, &out[0].shape)) return "x0 must have the shape of y";
    return NULL;
}

const OpDef op_def_linear_packed = {.name = "linear_packed", .min_in = 2, .max_in = 4, .n_out = 1,
                                    .flags = OPF_NO_GRAD, .features = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3,
                                    .features_out = 1 << 0, .infer = linear_packed_infer, .macs = linear_macs};
