/* op_elementwise.c - ops that work element by element, or nearly: activations, residual sums, the pixel transform and
 * the mean over a map. */
#include "graph/op.h"

/* the shape of operand i; NULL when it is absent */
static const Shape *operand(const Graph *g, const Node *n, int i) { return i < n->n_in ? in_shape(g, n, i) : NULL; }

static Type f32(const Shape *shape) { return (Type){*shape, DT_F32}; }

static Val emit1(Graph *g, OpId op, Attr attr, const Val *in, int n_in) {
    Val out;
    graph_emit(g, op, attr, in, n_in, &out);
    return out;
}

/* one or two tensors of one shape -> one more */
static const char *map_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *a = operand(g, n, 0);
    for (int i = 0; i < n->n_in; i++) {
        if (!operand(g, n, i)) return "every operand must be present";
        if (!shape_equal(a, operand(g, n, i))) return "operands must have the same shape";
    }
    out[0] = f32(a);
    return NULL;
}

/* y = (images / 255 - mean) / std, images u8 (B,H,W,3), mean and std per channel, in units of the full scale; y is
 * stored as attr.normalize.dtype */
static const char *normalize_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *x = operand(g, n, 0);
    if (!x || graph_value(g, node_in(g, n, 0))->dtype != DT_U8) return "images must be u8";
    if (x->rank != 4 || x->dim[3] != 3) return "images must be (B,H,W,3)";
    for (int c = 0; c < 3; c++)
        if (!(n->attr.normalize.std[c] > 0)) return "std must be positive";
    if (!dtype_is_float(n->attr.normalize.dtype)) return "the output must be f32, bf16 or f16";
    out[0] = (Type){*x, n->attr.normalize.dtype};
    return NULL;
}

const OpDef op_def_normalize = {.name = "normalize", .min_in = 1, .max_in = 1, .n_out = 1, .flags = OPF_NO_GRAD,
                                .features_out = 1 << 0, .untyped = 1 << 0, .infer = normalize_infer};

Val op_normalize(Graph *g, Val images, const float mean[3], const float std[3]) {
    Attr attr = {0};
    for (int c = 0; c < 3; c++) attr.normalize.mean[c] = mean[c], attr.normalize.std[c] = std[c];
    return emit1(g, OP_normalize, attr, &images, 1);
}

/* y = x, stored as attr.cast.dtype, rounded to the nearest, ties to even. The way back rounds the gradient to x's type
 * where it has another; the gradient of a weight is f32 already, as the master is. */
static const char *cast_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    if (!dtype_is_float(graph_value(g, node_in(g, n, 0))->dtype)) return "x must be f32, bf16 or f16";
    if (!dtype_is_float(n->attr.cast.dtype)) return "casts lead to f32, bf16 or f16";
    out[0] = (Type){*in_shape(g, n, 0), n->attr.cast.dtype};
    return NULL;
}

static void cast_grad(Graph *g, Node n, const Val *dout, Val *din) {
    din[0] = op_cast(g, dout[0], graph_value(g, node_in(g, &n, 0))->dtype);
}

const OpDef op_def_cast = {.name = "cast", .min_in = 1, .max_in = 1, .n_out = 1, .untyped = 1 << 0, .infer = cast_infer,
                           .grad = cast_grad};

Val op_cast(Graph *g, Val x, DType dtype) {
    if (graph_value(g, x)->dtype == dtype) return x;
    return emit1(g, OP_cast, (Attr){.cast = {dtype}}, &x, 1);
}

/* y = x Phi(x), Phi the distribution function of the normal distribution; dx = dy (Phi(x) + x Phi'(x)) */
static void gelu_grad(Graph *g, Node n, const Val *dout, Val *din) {
    din[0] = emit1(g, OP_gelu_bwd, (Attr){0}, (Val[]){dout[0], node_in(g, &n, 0)}, 2);
}

const OpDef op_def_gelu = {.name = "gelu", .min_in = 1, .max_in = 1, .n_out = 1, .flags = OPF_INPLACE0 | OPF_CHEAP,
                           .features = 1 << 0, .features_out = 1 << 0, .infer = map_infer, .grad = gelu_grad};
const OpDef op_def_gelu_bwd = {.name = "gelu_bwd", .min_in = 2, .max_in = 2, .n_out = 1,
                               .flags = OPF_NO_GRAD | OPF_INPLACE0, .features = 1 << 0 | 1 << 1,
                               .features_out = 1 << 0, .infer = map_infer};

Val op_gelu(Graph *g, Val x) { return emit1(g, OP_gelu, (Attr){0}, &x, 1); }

/* y = x s, s = sigmoid(x); dx = dy s (1 + x (1 - s)) */
static void silu_grad(Graph *g, Node n, const Val *dout, Val *din) {
    din[0] = emit1(g, OP_silu_bwd, (Attr){0}, (Val[]){dout[0], node_in(g, &n, 0)}, 2);
}

const OpDef op_def_silu = {.name = "silu", .min_in = 1, .max_in = 1, .n_out = 1, .flags = OPF_INPLACE0 | OPF_CHEAP,
                           .features = 1 << 0, .features_out = 1 << 0, .infer = map_infer, .grad = silu_grad};
const OpDef op_def_silu_bwd = {.name = "silu_bwd", .min_in = 2, .max_in = 2, .n_out = 1,
                               .flags = OPF_NO_GRAD | OPF_INPLACE0, .features = 1 << 0 | 1 << 1,
                               .features_out = 1 << 0, .infer = map_infer};

Val op_silu(Graph *g, Val x) { return emit1(g, OP_silu, (Attr){0}, &x, 1); }

/* y = a + b */
static void add_grad(Graph *g, Node n, const Val *dout, Val *din) {
    (void)g, (void)n;
    din[0] = din[1] = dout[0];
}

const OpDef op_def_add = {.name = "add", .min_in = 2, .max_in = 2, .n_out = 1, .flags = OPF_INPLACE0,
                          .features = 1 << 0 | 1 << 1, .features_out = 1 << 0, .infer = map_infer, .grad = add_grad};

Val op_add(Graph *g, Val a, Val b) { return emit1(g, OP_add, (Attr){0}, (Val[]){a, b}, 2); }

/* y = a b, of the shape of a; b may have another shape with as many elements. For weights, ahead of every run. */
static const char *multiply_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    if (shape_count(in_shape(g, n, 0)) != shape_count(in_shape(g, n, 1))) return "operands must have as many elements";
    out[0] = f32(in_shape(g, n, 0));
    return NULL;
}

const OpDef op_def_multiply = {.name = "multiply", .min_in = 2, .max_in = 2, .n_out = 1,
                               .flags = OPF_NO_GRAD | OPF_INPLACE0, .infer = multiply_infer};

/* What residual and its gradient share: u (B,...,C), C elements of gamma, keep (S,B) or absent. */
static const char *branch_misfit(const Graph *g, const Node *n, const Shape *u, int gamma, int keep) {
    if (u->rank < 1) return "u must have channels";
    if (!operand(g, n, gamma)) return "gamma must be present";
    if (shape_count(operand(g, n, gamma)) != shape_last(u)) return "gamma must have one element per channel";
    const Shape *k = operand(g, n, keep);
    if (k && (u->rank < 2 || k->rank != 2 || k->dim[1] != u->dim[0])) return "keep must have one column per sample";
    if (k && (n->attr.residual.stream < 0 || n->attr.residual.stream >= k->dim[0])) return "keep has no such row";
    return NULL;
}

/* y = x + k[b] gamma[c] u, x and u (B,...,C), gamma C elements in any shape, k row attr.stream of keep (S,B), or 1
 * dx = dy;  du = dy k gamma;  dgamma = sum over all rows of dy k u */
static const char *residual_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *x = operand(g, n, 0), *u = operand(g, n, 1);
    if (!x || !u || !shape_equal(x, u)) return "x and u must have the same shape";
    out[0] = f32(x);
    return branch_misfit(g, n, u, 2, 3);
}

static void residual_grad(Graph *g, Node n, const Val *dout, Val *din) {
    Val keep = n.n_in > 3 ? node_in(g, &n, 3) : NO_VAL, d[2];
    graph_emit(g, OP_residual_bwd, n.attr, (Val[]){dout[0], node_in(g, &n, 1), node_in(g, &n, 2), keep}, 4, d);
    din[0] = dout[0];
    din[1] = d[0];
    din[2] = d[1];
}

const OpDef op_def_residual = {.name = "residual", .min_in = 3, .max_in = 4, .n_out = 1, .flags = OPF_INPLACE0,
                               .features = 1 << 0 | 1 << 1, .features_out = 1 << 0, .infer = residual_infer,
                               .grad = residual_grad};

static const char *residual_bwd_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *dy = operand(g, n, 0), *u = operand(g, n, 1);
    if (!dy || !u || !shape_equal(dy, u)) return "dy and u must have the same shape";
    const char *misfit = branch_misfit(g, n, u, 2, 3);
    if (misfit) return misfit;
    out[0] = f32(u);
    out[1] = f32(operand(g, n, 2));
    return NULL;
}

const OpDef op_def_residual_bwd = {.name = "residual_bwd", .min_in = 3, .max_in = 4, .n_out = 2, .flags = OPF_NO_GRAD,
                                   .features = 1 << 0 | 1 << 1, .features_out = 1 << 0, .infer = residual_bwd_infer};

Val op_residual(Graph *g, Val x, Val u, Val gamma, Val keep, int stream) {
    return emit1(g, OP_residual, (Attr){.residual = {.stream = stream}}, (Val[]){x, u, gamma, keep}, 4);
}

/* y (B,C) = mean of x (B,H,W,C) over H and W; dx = dy / (H W) */
static const char *mean_pool_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *x = operand(g, n, 0);
    if (!x || x->rank != 4) return "x must be (B,H,W,C)";
    out[0] = (Type){SHAPE(x->dim[0], x->dim[3]), DT_F32};
    return NULL;
}

static void mean_pool_grad(Graph *g, Node n, const Val *dout, Val *din) {
    const Shape *x = in_shape(g, &n, 0);
    Attr attr = {.pool = {.height = (int32_t)x->dim[1], .width = (int32_t)x->dim[2]}};
    din[0] = emit1(g, OP_mean_pool_bwd, attr, dout, 1);
}

const OpDef op_def_mean_pool = {.name = "mean_pool", .min_in = 1, .max_in = 1, .n_out = 1, .features = 1 << 0,
                                .features_out = 1 << 0, .infer = mean_pool_infer, .grad = mean_pool_grad};

static const char *mean_pool_bwd_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *dy = operand(g, n, 0);
    if (!dy || dy->rank != 2) return "dy must be (B,C)";
    out[0] = (Type){SHAPE(dy->dim[0], n->attr.pool.height, n->attr.pool.width, dy->dim[1]), DT_F32};
    return NULL;
}

const OpDef op_def_mean_pool_bwd = {.name = "mean_pool_bwd", .min_in = 1, .max_in = 1, .n_out = 1,
                                    .flags = OPF_NO_GRAD, .features = 1 << 0, .features_out = 1 << 0,
                                    .infer = mean_pool_bwd_infer};

Val op_mean_pool(Graph *g, Val x) { return emit1(g, OP_mean_pool, (Attr){0}, &x, 1); }

static const char *zeros_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    out[0] = (Type){*in_shape(g, n, 0), DT_F32};
    return NULL;
}

const OpDef op_def_zeros = {.name = "zeros", .min_in = 1, .max_in = 1, .n_out = 1, .flags = OPF_NO_GRAD,
                            .untyped = 1 << 0, .infer = zeros_infer};

Val op_zeros(Graph *g, Val like) { return emit1(g, OP_zeros, (Attr){0}, &like, 1); }
