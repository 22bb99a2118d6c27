/* conv.cu - the dense convolutions: cuDNN's (convolution.h) and what lies around them: weights between the files' order
 * (O,I,k,k) and the library's (O,k,k,I), bias, GELU, sums of columns. */
#include "backend/cuda/columns.cuh"
#include "backend/cuda/gelu.cuh"

extern "C" {
#include "backend/cuda/convolution.h"
}

#define THREADS 256

/* to (O,k,k,I) = from (O,I,k,k), or back; taps = k k */
template <class To, class From>
__global__ void reorder_weights(To *to, const From *from, int64_t count, int ins, int taps, bool back) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= count) return;
    int64_t o = i / ((int64_t)ins * taps);
    int rest = (int)(i % ((int64_t)ins * taps));
    int64_t files = (o * ins + rest % ins) * taps + rest / ins; /* where files keep what the library has at i */
    if (back)
        to[files] = from_float<To>(to_float(from[i]));
    else
        to[i] = from_float<To>(to_float(from[files]));
}

/* y = y + bias, or gelu of that; in place. A thread takes V channels of a pixel. */
template <class T, int V, bool GELU> __global__ void add_bias(T *y, const float *bias, int64_t pieces, int of_pixel) {
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= pieces) return;
    Vec<T, V> v = vec_load<V>(y + i * V);
    const Vec<float, V> b = vec_load<V>(bias + i % of_pixel * V);
    UNROLL for (int k = 0; k < V; k++) {
        float x = to_float(v.x[k]) + b.x[k];
        v.x[k] = from_float<T>(GELU ? gelu(x) : x);
    }
    vec_store(y + i * V, v);
}

/* ---- sizes ---- */

static ConvolutionSpec spec_of(const Node *n, const Shape *x, const Shape *y, DType type) {
    ConvolutionSpec s = {};
    s.batch = x->dim[0], s.height = x->dim[1], s.width = x->dim[2], s.ins = x->dim[3];
    s.out_height = y->dim[1], s.out_width = y->dim[2], s.outs = y->dim[3];
    s.kernel = n->attr.conv.kernel, s.stride = n->attr.conv.stride, s.pad = n->attr.conv.pad;
    s.type = type;
    return s;
}

static const Shape *spec_x(const Graph *g, const Node *n) {
    return n->op == OP_conv2d_dx ? out_shape(g, n, 0) : in_shape(g, n, n->op == OP_conv2d_dw ? 1 : 0);
}
static const Shape *spec_y(const Graph *g, const Node *n) {
    return n->op == OP_conv2d_dx || n->op == OP_conv2d_dw ? in_shape(g, n, 0) : out_shape(g, n, 0);
}

static ConvolutionPass pass_of(const Node *n) {
    return n->op == OP_conv2d_dx ? CONVOLUTION_DX : n->op == OP_conv2d_dw ? CONVOLUTION_DW : CONVOLUTION_FORWARD;
}

static bool conv_prepare(const Graph *g, const Node *n, Backend *backend, void **prepared, Err *err) {
    ConvolutionSpec s = spec_of(n, spec_x(g, n), spec_y(g, n), graph_value(g, node_in(g, n, 0))->dtype);
    return convolution_prepare((Convolution **)prepared, pass_of(n), &s, backend, err);
}

static void conv_release(void *prepared) { convolution_release((Convolution *)prepared); }

/* work: the library's scratch, then the weights in its order */
static int64_t weight_count(const Graph *g, const Node *n) {
    return shape_last(spec_y(g, n)) * shape_last(spec_x(g, n)) * n->attr.conv.kernel * n->attr.conv.kernel;
}

static size_t conv_workspace(const Graph *g, const Node *n) {
    size_t weights = (size_t)weight_count(g, n) * sizeof(float);
    if (n->op != OP_conv2d_dw) return CONVOLUTION_WORKSPACE + weights;
    const Shape *dy = in_shape(g, n, 0);
    DType type = graph_value(g, node_in(g, n, 0))->dtype;
    return MAX(CONVOLUTION_WORKSPACE + weights, column_sum_workspace(type, shape_rows(dy), shape_last(dy)));
}

static void *weights_in_work(const KernelCall *c) { return (char *)c->work + CONVOLUTION_WORKSPACE; }

template <class To, class From> static void reorder(const KernelCall *c, To *to, const From *from, bool back) {
    int64_t count = weight_count(c->graph, c->node);
    launch(c, reorder_weights<To, From>, dim3((unsigned)CEIL_DIV(count, THREADS)), dim3(THREADS), 0, to, from, count,
           (int)shape_last(spec_x(c->graph, c->node)), c->node->attr.conv.kernel * c->node->attr.conv.kernel, back);
}

static void bias_and_gelu(const KernelCall *c) {
    int64_t count = shape_count(call_out(c, 0));
    int channels = (int)shape_last(call_out(c, 0));
    const float *bias = (const float *)c->in[2];
    WITH_PACKS(out_type(c, 0), channels, T, V, {
        dim3 grid((unsigned)CEIL_DIV(count, (int64_t)THREADS * V));
        if (c->node->attr.conv.gelu)
            launch(c, add_bias<T, V, true>, grid, dim3(THREADS), 0, (T *)c->out[0], bias, count / V, channels / V);
        else
            launch(c, add_bias<T, V, false>, grid, dim3(THREADS), 0, (T *)c->out[0], bias, count / V, channels / V);
    });
}

/* ---- the ops ---- */

static void conv2d_run(const KernelCall *c) {
    WITH_FEATURE(in_type(c, 1), T, reorder(c, (T *)weights_in_work(c), (const T *)c->in[1], false));
    convolution_run((const Convolution *)c->prepared, c, c->out[0], c->in[0], weights_in_work(c), c->work);
    bias_and_gelu(c);
}

static void conv2d_packed_run(const KernelCall *c) {
    convolution_run((const Convolution *)c->prepared, c, c->out[0], c->in[0], c->in[1], c->work);
    bias_and_gelu(c);
}

static void conv2d_dx_run(const KernelCall *c) {
    WITH_FEATURE(in_type(c, 1), T, reorder(c, (T *)weights_in_work(c), (const T *)c->in[1], false));
    convolution_run((const Convolution *)c->prepared, c, c->out[0], c->in[0], weights_in_work(c), c->work);
}

/* The library's dw has the features' type, so a 16-bit dw is rounded once on its way to float32, as it is under
 * PyTorch's autocast; its sums are float32. db is ours and is not rounded. */
static void conv2d_dw_run(const KernelCall *c) {
    const Shape *dy = call_in(c, 0);
    if (c->out[0]) {
        convolution_run((const Convolution *)c->prepared, c, weights_in_work(c), c->in[0], c->in[1], c->work);
        WITH_FEATURE(in_type(c, 0), T, reorder(c, (float *)c->out[0], (const T *)weights_in_work(c), true));
    }
    if (c->out[1]) column_sum(c, (float *)c->out[1], c->in[0], in_type(c, 0), shape_rows(dy), shape_last(dy));
}

/* the bias is a pass of its own over y, db one over dy */
static double conv_moves(const KernelCall *c) { return call_bytes(c) + 2 * out_bytes(c, 0); }
static double conv_dw_moves(const KernelCall *c) { return call_bytes(c) + (c->out[1] ? in_bytes(c, 0) : 0); }

CUDA_KERNEL(conv2d, .run = conv2d_run, .types = FEATURE_TYPES, .workspace = conv_workspace, .prepare = conv_prepare,
            .release = conv_release, .moves = conv_moves)
CUDA_KERNEL(conv2d_packed, .run = conv2d_packed_run, .types = FEATURE_TYPES, .workspace = conv_workspace,
            .prepare = conv_prepare, .release = conv_release, .moves = conv_moves)
CUDA_KERNEL(conv2d_dx, .run = conv2d_dx_run, .types = FEATURE_TYPES, .workspace = conv_workspace,
            .prepare = conv_prepare, .release = conv_release)
CUDA_KERNEL(conv2d_dw, .run = conv2d_dw_run, .types = FEATURE_TYPES, .workspace = conv_workspace,
            .prepare = conv_prepare, .release = conv_release, .moves = conv_dw_moves)
