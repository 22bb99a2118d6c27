/* op_dwconv.c - depthwise convolution on channels-last pictures: one k x k kernel per channel, stride 1, same size,
 * odd k. Strides, dilation and channel multipliers are refused: no model here has them. */
#include "graph/op.h"

/* picture (B,H,W,C), weights (C,1,k,k) or NULL */
static const char *misfit(const Node *n, const Shape *picture, const Shape *w) {
    const int k = n->attr.dwconv.kernel;
    if (k < 1 || k % 2 == 0) return "the kernel must be odd";
    if (picture->rank != 4) return "pictures must be (B,H,W,C)";
    if (w && (w->rank != 4 || w->dim[0] != picture->dim[3] || w->dim[1] != 1 || w->dim[2] != k || w->dim[3] != k))
        return "w must be (C,1,k,k)";
    return NULL;
}

/* one multiplication per tap and element of the picture, in each of the three ops without a GELU */
static double dwconv_macs(const Graph *g, const Node *n) {
    return (double)shape_count(in_shape(g, n, 0)) * n->attr.dwconv.kernel * n->attr.dwconv.kernel;
}

/* y[b,i,j,c] = [x[b,i,j,c] +] bias[c] + sum over r,s of x[b, i + r - p, j + s - p, c] w[c,0,r,s], p = (k - 1) / 2, x
 * being 0 outside. attr residual adds the term in brackets: MAViT's position encoding is x + conv(x). With attr gelu x
 * is a GELU's input and gelu(x) stands for it in the formula: as an element feeds k * k sums, a GELU costs little here,
 * and its result, which the gradient of w needs again, is never stored.
 * x (B,H,W,C), w (C,1,k,k), b (C) -> y (B,H,W,C). */
static const char *dwconv_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *x = in_shape(g, n, 0), *b = in_shape(g, n, 2);
    out[0] = (Type){*x, DT_F32};
    if (shape_count(b) != shape_last(x)) return "b must have as many elements as x has channels";
    return misfit(n, x, in_shape(g, n, 1));
}

static void dwconv_grad(Graph *g, Node n, const Val *dout, Val *din) {
    Val x = node_in(g, &n, 0), w = node_in(g, &n, 1);
    if (n.attr.dwconv.gelu) {
        graph_emit(g, OP_dwconv_gelu_bwd, n.attr, (Val[]){dout[0], x, w}, 3, din);
    } else {
        graph_emit(g, OP_dwconv_dx, n.attr, (Val[]){dout[0], w}, 2, &din[0]);
        graph_emit(g, OP_dwconv_dw, n.attr, (Val[]){dout[0], x}, 2, &din[1]);
    }
    if (op_sums_to_zero(g, dout[0])) din[2] = op_zeros(g, node_in(g, &n, 2));
}

const OpDef op_def_dwconv = {.name = "dwconv", .min_in = 3, .max_in = 3, .n_out = 1, .flags = OPF_CHEAP,
                             .features = 1 << 0, .features_out = 1 << 0, .infer = dwconv_infer, .macs = dwconv_macs,
                             .grad = dwconv_grad};

Val op_dwconv(Graph *g, Val x, Val w, Val b, int kernel, bool residual) {
    Val y;
    graph_emit(g, OP_dwconv, (Attr){.dwconv = {.kernel = kernel, .residual = residual}}, (Val[]){x, w, b}, 3, &y);
    return y;
}

/* dx[b,i,j,c] = [dy[b,i,j,c] +] sum over r,s of dy[b, i + p - r, j + p - s, c] w[c,0,r,s].
 * dy (B,H,W,C), w (C,1,k,k) -> dx (B,H,W,C). */
static const char *dwconv_dx_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    out[0] = (Type){*in_shape(g, n, 0), DT_F32};
    return misfit(n, in_shape(g, n, 0), in_shape(g, n, 1));
}

const OpDef op_def_dwconv_dx = {.name = "dwconv_dx", .min_in = 2, .max_in = 2, .n_out = 1, .flags = OPF_NO_GRAD,
                                .features = 1 << 0, .features_out = 1 << 0, .infer = dwconv_dx_infer,
                                .macs = dwconv_macs};

/* dw[c,0,r,s] = sum over b,i,j of dy[b,i,j,c] x[b, i + r - p, j + s - p, c];  db[c] = sum over b,i,j of dy[b,i,j,c].
 * dy, x (B,H,W,C) -> dw (C,1,k,k), db (C). */
static const char *dwconv_dw_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *dy = in_shape(g, n, 0);
    const int k = n->attr.dwconv.kernel;
    if (!shape_equal(dy, in_shape(g, n, 1))) return "dy and x must have the same shape";
    out[0] = (Type){SHAPE(shape_last(dy), 1, k, k), DT_F32};
    out[1] = (Type){SHAPE(shape_last(dy)), DT_F32};
    return misfit(n, dy, NULL);
}

const OpDef op_def_dwconv_dw = {.name = "dwconv_dw", .min_in = 2, .max_in = 2, .n_out = 2, .flags = OPF_NO_GRAD,
                                .features = 1 << 0 | 1 << 1, .infer = dwconv_dw_infer, .macs = dwconv_macs};

/* With g = gelu(x) and d the dx of dwconv_dx: dx = gelu'(x) d; dw and db as dwconv_dw has them for dy and g.
 * dy, x (B,H,W,C), w (C,1,k,k) -> dx (B,H,W,C), dw (C,1,k,k), db (C). */
static const char *dwconv_gelu_bwd_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *dy = in_shape(g, n, 0), *w = in_shape(g, n, 2);
    if (!shape_equal(dy, in_shape(g, n, 1))) return "dy and x must have the same shape";
    out[0] = (Type){*dy, DT_F32};
    out[1] = (Type){*w, DT_F32};
    out[2] = (Type){SHAPE(shape_last(dy)), DT_F32};
    return misfit(n, dy, w);
}

static double dwconv_gelu_bwd_macs(const Graph *g, const Node *n) { return 2 * dwconv_macs(g, n); }

const OpDef op_def_dwconv_gelu_bwd = {.name = "dwconv_gelu_bwd", .min_in = 3, .max_in = 3, .n_out = 3,
                                      .flags = OPF_NO_GRAD, .features = 1 << 0 | 1 << 1, .features_out = 1 << 0,
                                      .infer = dwconv_gelu_bwd_infer, .macs = dwconv_gelu_bwd_macs};
