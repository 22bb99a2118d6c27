/* onnx_ops.c - each op of an inference graph in ONNX's standard operators. Maps are (B,C,H,W) here. */
#include "io/onnx_build.h"

#include <math.h>
#include <string.h>

static Tensor input(OnnxBuilder *b, const Node *n, int i) { return onnx_operand(b, node_in(b->graph, n, i)); }

static bool has_input(OnnxBuilder *b, const Node *n, int i) { return node_in(b->graph, n, i) != NO_VAL; }

static void result(OnnxBuilder *b, const Node *n, Tensor t) { b->tensor[node_out(b->graph, n, 0)] = t; }

static bool is_map(OnnxBuilder *b, const Node *n, int i) { return in_shape(b->graph, n, i)->rank == 4; }

static Tensor triple(OnnxBuilder *b, const char *name, const float x[3]) {
    float *data = mem_zalloc(3, sizeof *data);
    memcpy(data, x, 3 * sizeof *data);
    return onnx_floats(b, name, SHAPE(3), data);
}

static void emit_normalize(OnnxBuilder *b, const Node *n) {
    Tensor x = onnx_node(b, "Cast", IN(input(b, n, 0)), ATTR(INT("to", ONNX_FLOAT)));
    x = binary(b, "Div", x, onnx_scalar(b, 255));
    x = binary(b, "Sub", x, triple(b, onnx_name(b, "%s/mean", b->scope), n->attr.normalize.mean));
    x = binary(b, "Div", x, triple(b, onnx_name(b, "%s/std", b->scope), n->attr.normalize.std));
    result(b, n, onnx_node(b, "Transpose", IN(x), ATTR(INTS("perm", 0, 3, 1, 2))));
}

static void emit_conv2d(OnnxBuilder *b, const Node *n) {
    int32_t k = n->attr.conv.kernel, s = n->attr.conv.stride, p = n->attr.conv.pad;
    result(b, n,
           onnx_node(b, "Conv", IN(input(b, n, 0), input(b, n, 1), input(b, n, 2)),
                     ATTR(INTS("kernel_shape", k, k), INTS("strides", s, s), INTS("pads", p, p, p, p))));
}

/* ORT and others recognise these five nodes as one GELU. */
static Tensor gelu(OnnxBuilder *b, Tensor x) {
    Tensor y = onnx_node(b, "Erf", IN(binary(b, "Div", x, onnx_scalar(b, sqrtf(2)))), NO_ATTR);
    return binary(b, "Mul", binary(b, "Mul", x, binary(b, "Add", y, onnx_scalar(b, 1))), onnx_scalar(b, 0.5f));
}

static void emit_dwconv(OnnxBuilder *b, const Node *n) {
    int32_t k = n->attr.dwconv.kernel, p = k / 2;
    Tensor x = n->attr.dwconv.gelu ? gelu(b, input(b, n, 0)) : input(b, n, 0);
    Tensor y = onnx_node(
        b, "Conv", IN(x, input(b, n, 1), input(b, n, 2)),
        ATTR(INT("group", shape_last(in_shape(b->graph, n, 0))), INTS("kernel_shape", k, k), INTS("pads", p, p, p, p)));
    result(b, n, n->attr.dwconv.residual ? binary(b, "Add", x, y) : y);
}

/* Over a map: a 1x1 convolution. Over rows: Gemm. */
static void emit_linear(OnnxBuilder *b, const Node *n) {
    const Shape *w = in_shape(b->graph, n, 1), *x = in_shape(b->graph, n, 0);
    CHECK(x->rank == 4 || x->rank == 2, "%s: rank %d", n->name, x->rank);
    Shape wanted = x->rank == 4 ? SHAPE(w->dim[0], w->dim[1], 1, 1) : SHAPE(w->dim[0], w->dim[1]);
    Tensor in[3] = {input(b, n, 0), onnx_parameter(b, node_in(b->graph, n, 1), wanted)};
    int count = 2;
    if (has_input(b, n, 2)) in[count++] = input(b, n, 2);
    Tensor y = x->rank == 4 ? onnx_node(b, "Conv", in, count, ATTR(INTS("kernel_shape", 1, 1)))
                            : onnx_node(b, "Gemm", in, count, ATTR(INT("transB", 1)));
    result(b, n, n->attr.linear.gelu ? gelu(b, y) : y);
}

static void emit_layer_norm(OnnxBuilder *b, const Node *n) {
    Tensor x = input(b, n, 0);
    if (is_map(b, n, 0)) x = onnx_node(b, "Transpose", IN(x), ATTR(INTS("perm", 0, 2, 3, 1)));
    x = onnx_node(b, "LayerNormalization", IN(x, input(b, n, 1), input(b, n, 2)),
                  ATTR(INT("axis", -1), FLOAT("epsilon", n->attr.norm.eps)));
    if (is_map(b, n, 0)) x = onnx_node(b, "Transpose", IN(x), ATTR(INTS("perm", 0, 3, 1, 2)));
    result(b, n, x);
}

static void emit_batch_norm_eval(OnnxBuilder *b, const Node *n) {
    result(b, n,
           onnx_node(b, "BatchNormalization",
                     IN(input(b, n, 0), input(b, n, 1), input(b, n, 2), input(b, n, 3), input(b, n, 4)),
                     ATTR(FLOAT("epsilon", n->attr.norm.eps))));
}

static void emit_gelu(OnnxBuilder *b, const Node *n) { result(b, n, gelu(b, input(b, n, 0))); }

static void emit_silu(OnnxBuilder *b, const Node *n) {
    Tensor x = input(b, n, 0);
    result(b, n, binary(b, "Mul", x, onnx_node(b, "Sigmoid", IN(x), NO_ATTR)));
}

/* keep comes from drop_path, which has no row: here it is absent. */
static void emit_residual(OnnxBuilder *b, const Node *n) {
    CHECK(!has_input(b, n, 3), "%s: drop path in an inference graph", n->name);
    int64_t channels = shape_last(in_shape(b->graph, n, 1));
    Shape wanted = is_map(b, n, 1) ? SHAPE(1, channels, 1, 1) : SHAPE(channels);
    Tensor gamma = onnx_parameter(b, node_in(b->graph, n, 2), wanted);
    result(b, n, binary(b, "Add", input(b, n, 0), binary(b, "Mul", input(b, n, 1), gamma)));
}

static void emit_add(OnnxBuilder *b, const Node *n) { result(b, n, binary(b, "Add", input(b, n, 0), input(b, n, 1))); }

static void emit_mean_pool(OnnxBuilder *b, const Node *n) {
    result(b, n, onnx_node(b, "ReduceMean", IN(input(b, n, 0)), ATTR(INTS("axes", 2, 3), INT("keepdims", 0))));
}

static void emit_softmax(OnnxBuilder *b, const Node *n) {
    result(b, n, onnx_node(b, "Softmax", IN(input(b, n, 0)), ATTR(INT("axis", -1))));
}

const OnnxEmitter onnx_emitter[OP_COUNT] = {
    [OP_normalize] = emit_normalize,
    [OP_conv2d] = emit_conv2d,
    [OP_linear] = emit_linear,
    [OP_dwconv] = emit_dwconv,
    [OP_layer_norm] = emit_layer_norm,
    [OP_batch_norm_eval] = emit_batch_norm_eval,
    [OP_gelu] = emit_gelu,
    [OP_silu] = emit_silu,
    [OP_attention] = onnx_emit_attention,
    [OP_residual] = emit_residual,
    [OP_add] = emit_add,
    [OP_mean_pool] = emit_mean_pool,
    [OP_softmax] = emit_softmax,
};
