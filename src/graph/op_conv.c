/* op_conv.c - dense convolutions on channels-last pictures, weights (out, in, k, k) as in files. The same padding on
 * all four sides, the same stride both ways; no dilation, no groups (depthwise is op_dwconv.c). */
#include "graph/op.h"

static int64_t out_side(int64_t side, const Node *n) {
    return (side + 2 * n->attr.conv.pad - n->attr.conv.kernel) / n->attr.conv.stride + 1;
}

static const char *attr_misfit(const Node *n) {
    if (n->attr.conv.kernel < 1 || n->attr.conv.stride < 1) return "kernel and stride must be positive";
    if (n->attr.conv.pad < 0 || n->attr.conv.pad >= n->attr.conv.kernel) return "pad must be in 0 .. kernel - 1";
    return NULL;
}

static bool fits_kernel(const Shape *w, const Node *n) {
    return w->rank == 4 && w->dim[2] == n->attr.conv.kernel && w->dim[3] == n->attr.conv.kernel;
}

/* y[b,p,q,o] = b[o] + sum over i,r,s of x[b, p*stride + r - pad, q*stride + s - pad, i] w[o,i,r,s], x being 0 outside.
 * x (B,H,W,I), w (O,I,k,k), b (O) -> y (B,H',W',O), H' = (H + 2 pad - k) / stride + 1. */
static const char *forward_infer(const Graph *g, const Node *n, const Shape *w, Type out[MAX_OUT]) {
    const char *misfit = attr_misfit(n);
    if (misfit) return misfit;
    const Shape *x = in_shape(g, n, 0), *b = in_shape(g, n, 2);
    if (x->rank != 4 || !fits_kernel(w, n)) return "x must be (B,H,W,I), w (O,I,k,k)";
    if (w->dim[1] != x->dim[3]) return "w must have as many input channels as x";
    if (shape_count(b) != w->dim[0]) return "b must have as many elements as w has output channels";
    int64_t height = out_side(x->dim[1], n), width = out_side(x->dim[2], n);
    if (MIN(x->dim[1], x->dim[2]) + 2 * n->attr.conv.pad < n->attr.conv.kernel)
        return "the picture is smaller than the kernel";
    out[0] = (Type){SHAPE(x->dim[0], height, width, w->dim[0]), DT_F32};
    return NULL;
}

static const char *conv2d_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    return forward_infer(g, n, in_shape(g, n, 1), out);
}

/* All three ops multiply every output element of the forward with every weight of its channel. */
static double conv_macs(const Shape *y, int64_t in_channels, int kernel) {
    return (double)shape_count(y) * (double)in_channels * kernel * kernel;
}

static double conv2d_macs(const Graph *g, const Node *n) {
    return conv_macs(out_shape(g, n, 0), shape_last(in_shape(g, n, 0)), n->attr.conv.kernel);
}

static void conv2d_grad(Graph *g, Node n, const Val *dout, Val *din) {
    Val x = node_in(g, &n, 0), w = node_in(g, &n, 1);
    Attr attr = n.attr;
    attr.conv.in_height = (int32_t)graph_value(g, x)->shape.dim[1];
    attr.conv.in_width = (int32_t)graph_value(g, x)->shape.dim[2];
    graph_emit(g, OP_conv2d_dx, attr, (Val[]){dout[0], w}, 2, &din[0]);
    graph_emit(g, OP_conv2d_dw, attr, (Val[]){dout[0], x}, 2, &din[1]);
    if (op_sums_to_zero(g, dout[0])) din[2] = op_zeros(g, node_in(g, &n, 2));
}

const OpDef op_def_conv2d = {.name = "conv2d", .min_in = 3, .max_in = 3, .n_out = 1, .features = 1 << 0 | 1 << 1,
                             .features_out = 1 << 0, .infer = conv2d_infer, .macs = conv2d_macs, .grad = conv2d_grad};

Val op_conv2d(Graph *g, Val x, Val w, Val b, int kernel, int stride, int pad) {
    Attr attr = {.conv = {.kernel = kernel, .stride = stride, .pad = pad}};
    Val y;
    graph_emit(g, OP_conv2d, attr, (Val[]){x, w, b}, 3, &y);
    return y;
}

/* dx[b,h,w,i] = sum over o and all (p,r), (q,s) with p*stride + r - pad = h, q*stride + s - pad = w of
 * dy[b,p,q,o] w[o,i,r,s]. dy (B,H',W',O), w (O,I,k,k) -> dx (B, in_height, in_width, I). */
static const char *conv2d_dx_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const char *misfit = attr_misfit(n);
    if (misfit) return misfit;
    const Shape *dy = in_shape(g, n, 0), *w = in_shape(g, n, 1);
    int64_t height = n->attr.conv.in_height, width = n->attr.conv.in_width;
    if (dy->rank != 4 || !fits_kernel(w, n)) return "dy must be (B,H',W',O), w (O,I,k,k)";
    if (w->dim[0] != dy->dim[3]) return "w must have as many output channels as dy";
    if (out_side(height, n) != dy->dim[1] || out_side(width, n) != dy->dim[2]) return "dy must have the size of y";
    out[0] = (Type){SHAPE(dy->dim[0], height, width, w->dim[1]), DT_F32};
    return NULL;
}

static double conv2d_dx_macs(const Graph *g, const Node *n) {
    return conv_macs(in_shape(g, n, 0), shape_last(out_shape(g, n, 0)), n->attr.conv.kernel);
}

const OpDef op_def_conv2d_dx = {.name = "conv2d_dx", .min_in = 2, .max_in = 2, .n_out = 1, .flags = OPF_NO_GRAD,
                                .features = 1 << 0 | 1 << 1, .features_out = 1 << 0, .infer = conv2d_dx_infer,
                                .macs = conv2d_dx_macs};

/* dw[o,i,r,s] = sum over b,p,q of dy[b,p,q,o] x[b, p*stride + r - pad, q*stride + s - pad, i]; db[o] = sum of dy.
 * dy (B,H',W',O), x (B,H,W,I) -> dw (O,I,k,k), db (O). */
static const char *conv2d_dw_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const char *misfit = attr_misfit(n);
    if (misfit) return misfit;
    const Shape *dy = in_shape(g, n, 0), *x = in_shape(g, n, 1);
    if (dy->rank != 4 || x->rank != 4 || dy->dim[0] != x->dim[0]) return "dy must be (B,H',W',O), x (B,H,W,I)";
    if (out_side(x->dim[1], n) != dy->dim[1] || out_side(x->dim[2], n) != dy->dim[2])
        return "dy must have the size of y";
    int64_t k = n->attr.conv.kernel;
    out[0] = (Type){SHAPE(dy->dim[3], x->dim[3], k, k), DT_F32};
    out[1] = (Type){SHAPE(dy->dim[3]), DT_F32};
    return NULL;
}

static double conv2d_dw_macs(const Graph *g, const Node *n) {
    return conv_macs(in_shape(g, n, 0), shape_last(in_shape(g, n, 1)), n->attr.conv.kernel);
}

const OpDef op_def_conv2d_dw = {.name = "conv2d_dw", .min_in = 2, .max_in = 2, .n_out = 2, .flags = OPF_NO_GRAD,
                                .features = 1 << 0 | 1 << 1, .infer = conv2d_dw_infer, .macs = conv2d_dw_macs};

/* packed[o,r,s,i] = w[o,i,r,s]: inference turns weights once, ahead of every run. */
static const char *pack_conv_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *w = in_shape(g, n, 0);
    if (!w || w->rank != 4) return "w must be (O,I,k,k)";
    out[0] = (Type){SHAPE(w->dim[0], w->dim[2], w->dim[3], w->dim[1]), DT_F32};
    return NULL;
}

const OpDef op_def_pack_conv = {.name = "pack_conv", .min_in = 1, .max_in = 1, .n_out = 1, .flags = OPF_NO_GRAD,
                                .infer = pack_conv_infer};

/* conv2d on the weights that pack_conv made, and gelu of that with attr gelu. */
static const char *conv2d_packed_infer(const Graph *g, const Node *n, Type out[MAX_OUT]) {
    const Shape *w = in_shape(g, n, 1);
    if (!w || w->rank != 4) return "w must be (O,k,k,I)";
    return forward_infer(g, n, &SHAPE(w->dim[0], w->dim[3], w->dim[1], w->dim[2]), out);
}

const OpDef op_def_conv2d_packed = {.name = "conv2d_packed", .min_in = 3, .max_in = 3, .n_out = 1,
                                    .flags = OPF_NO_GRAD, .features = 1 << 0 | 1 << 1, .features_out = 1 << 0,
                                    .infer = conv2d_packed_infer, .macs = conv2d_macs};
