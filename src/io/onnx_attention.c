/* onnx_attention.c - the attention op (formulas in graph/op_attention.c) in ONNX's standard operators.
 *
 * Maps are (B,C,H,W) in the file, so a head is (d,N), transposed against the formulas: r becomes kv^T (R phi(q))^T. */
#include "io/onnx_build.h"

#include <math.h>

#include "backend/rope.h"

static Tensor reshape(OnnxBuilder *b, Tensor x, Tensor shape) { return binary(b, "Reshape", x, shape); }

static Tensor root_scale(OnnxBuilder *b, int64_t head) { return onnx_scalar(b, (float)(1 / sqrt((double)head))); }

/* (B,h,i,j) -> (B,h,j,i) */
static Tensor turn(OnnxBuilder *b, Tensor x) {
    return onnx_node(b, "Transpose", IN(x), ATTR(INTS("perm", 0, 1, 3, 2)));
}

/* ---- rotary tables ---- */

static void tables_of_size(OnnxBuilder *b, OnnxRope *r) {
    int pairs = (int)(r->head / 4);
    int64_t tokens = r->height * r->width;
    float *cosine = mem_zalloc((size_t)(2 * pairs * tokens), sizeof *cosine);
    float *sine = mem_zalloc((size_t)(2 * pairs * tokens), sizeof *sine);
    for (int i = 0; i < 2 * pairs; i++) {
        for (int64_t t = 0; t < tokens; t++) {
            int64_t position = i < pairs ? t / r->width : t % r->width;
            double angle = (double)position * (double)rope_angle(i % pairs, pairs);
            cosine[i * tokens + t] = (float)cos(angle);
            sine[i * tokens + t] = (float)sin(angle);
        }
    }
    Tensor name = onnx_name(b, "rope/%lldx%lldx%lld", (long long)r->height, (long long)r->width, (long long)r->head);
    r->cos = onnx_floats(b, onnx_name(b, "%s/cos", name), SHAPE(2 * pairs, 1, tokens), cosine);
    r->sin = onnx_floats(b, onnx_name(b, "%s/sin", name), SHAPE(2 * pairs, 1, tokens), sine);
}

/* H and W of a map, when the graph runs: (2) */
static Tensor map_sides(OnnxBuilder *b, Tensor map) {
    return onnx_node(b, "Slice", IN(onnx_node(b, "Shape", IN(map), NO_ATTR), INT64S(b, 2), INT64S(b, 4)), NO_ATTR);
}

static Tensor as_float(OnnxBuilder *b, Tensor x) { return onnx_node(b, "Cast", IN(x), ATTR(INT("to", ONNX_FLOAT))); }

/* 0, 1 ... count-1 times each angle: (pairs, count). count (1), angles (pairs, 1). */
static Tensor positions(OnnxBuilder *b, Tensor count, Tensor angles) {
    Tensor end = onnx_node(b, "Squeeze", IN(as_float(b, count), INT64S(b, 0)), NO_ATTR);
    return binary(b, "Mul", angles, onnx_node(b, "Range", IN(onnx_scalar(b, 0), end, onnx_scalar(b, 1)), NO_ATTR));
}

/* The same from the shape of a map (B,C,H,W), when the graph runs. */
static void tables_from_shape(OnnxBuilder *b, OnnxRope *r, Tensor map) {
    int pairs = (int)(r->head / 4);
    float *angle = mem_zalloc((size_t)pairs, sizeof *angle);
    for (int i = 0; i < pairs; i++) angle[i] = rope_angle(i, pairs);
    Tensor angles = onnx_floats(b, onnx_name(b, "rope/%lld/angle", (long long)r->head), SHAPE(pairs, 1), angle);
    Tensor sides = map_sides(b, map), side[2];
    onnx_nodes(b, "Split", IN(sides), ATTR(INT("axis", 0)), side, 2);
    Tensor size = onnx_node(b, "Concat", IN(INT64S(b, pairs), sides), ATTR(INT("axis", 0)));
    Tensor rows = onnx_node(b, "Unsqueeze", IN(positions(b, side[0], angles), INT64S(b, 2)), NO_ATTR);
    Tensor columns = onnx_node(b, "Unsqueeze", IN(positions(b, side[1], angles), INT64S(b, 1)), NO_ATTR);
    Tensor all = onnx_node(b, "Concat", IN(binary(b, "Expand", rows, size), binary(b, "Expand", columns, size)),
                           ATTR(INT("axis", 0)));
    all = reshape(b, all, INT64S(b, 2 * pairs, 1, -1));
    r->cos = onnx_node(b, "Cos", IN(all), NO_ATTR);
    r->sin = onnx_node(b, "Sin", IN(all), NO_ATTR);
}

/* One set of tables for all layers at a map's size. Maps of different strides differ in the size the graph was built
 * for, so that size tells them apart when sizes are free, too. */
static OnnxRope *rope_for(OnnxBuilder *b, const Shape *map, int64_t head, Tensor tensor) {
    OnnxRope r = {.height = map->dim[1], .width = map->dim[2], .head = head};
    for (int32_t i = 0; i < b->rope_count; i++) {
        OnnxRope *old = &b->ropes[i];
        if (old->height == r.height && old->width == r.width && old->head == r.head) return old;
    }
    if (b->dynamic_size)
        tables_from_shape(b, &r, tensor);
    else
        tables_of_size(b, &r);
    b->ropes = mem_resize(b->ropes, (size_t)b->rope_count + 1, sizeof *b->ropes);
    b->ropes[b->rope_count] = r;
    return &b->ropes[b->rope_count++];
}

static Tensor token_scale(OnnxBuilder *b, OnnxRope *r, Tensor map) {
    if (!r->scale && b->dynamic_size) {
        Tensor tokens = onnx_node(b, "ReduceProd", IN(map_sides(b, map)), ATTR(INTS("axes", 0), INT("keepdims", 0)));
        r->scale = binary(b, "Div", root_scale(b, r->head), as_float(b, tokens));
    } else if (!r->scale) {
        r->scale = onnx_scalar(b, (float)(1 / sqrt((double)r->head) / (double)(r->height * r->width)));
    }
    return r->scale;
}

/* Heads (B,h,d,N), turned by their position: channels as pairs (a, b) become (a cos - b sin, b cos + a sin). */
static Tensor rotate(OnnxBuilder *b, Tensor x, const OnnxRope *r, int64_t heads) {
    Tensor pair[2];
    x = reshape(b, x, INT64S(b, 0, heads, r->head / 2, 2, -1));
    onnx_nodes(b, "Split", IN(x), ATTR(INT("axis", 3)), pair, 2);
    Tensor first = binary(b, "Sub", binary(b, "Mul", pair[0], r->cos), binary(b, "Mul", pair[1], r->sin));
    Tensor second = binary(b, "Add", binary(b, "Mul", pair[1], r->cos), binary(b, "Mul", pair[0], r->sin));
    x = onnx_node(b, "Concat", IN(first, second), ATTR(INT("axis", 3)));
    return reshape(b, x, INT64S(b, 0, heads, r->head, -1));
}

/* ---- the kinds: q, k, v (B,h,d,N) -> (B,h,d,N) ---- */

static Tensor softmax_kind(OnnxBuilder *b, const OnnxRope *r, int64_t heads, const Tensor qkv[3]) {
    Tensor q = binary(b, "Mul", rotate(b, qkv[0], r, heads), root_scale(b, r->head));
    Tensor scores = binary(b, "MatMul", turn(b, q), rotate(b, qkv[1], r, heads));
    Tensor share = onnx_node(b, "Softmax", IN(scores), ATTR(INT("axis", -1)));
    return turn(b, binary(b, "MatMul", share, turn(b, qkv[2])));
}

static Tensor mean_token(OnnxBuilder *b, Tensor x) {
    return onnx_node(b, "ReduceMean", IN(x), ATTR(INTS("axes", 3), INT("keepdims", 1)));
}

static Tensor phi(OnnxBuilder *b, Tensor x) {
    return binary(b, "Add", onnx_node(b, "Elu", IN(x), NO_ATTR), onnx_scalar(b, 1));
}

static Tensor linear_kind(OnnxBuilder *b, const OnnxRope *r, int64_t heads, const Tensor qkv[3], Tensor scale,
                          AttentionKind kind) {
    Tensor q = phi(b, qkv[0]), k = phi(b, qkv[1]), v = qkv[2];
    Tensor z = binary(b, "MatMul", turn(b, mean_token(b, k)), q); /* (B,h,1,N), before the rotation */
    z = binary(b, "Mul", z, root_scale(b, r->head));
    Tensor kv = binary(b, "MatMul", v, turn(b, rotate(b, k, r, heads))); /* (B,h,d,d): kv^T of the formulas */
    Tensor out = binary(b, "MatMul", binary(b, "Mul", kv, scale), rotate(b, q, r, heads));
    if (kind == ATTN_INLINE) {
        Tensor rest = binary(b, "Sub", onnx_scalar(b, 1), z);
        return binary(b, "Add", out, binary(b, "Mul", mean_token(b, v), rest));
    }
    Tensor safe = binary(b, "Add", z, onnx_scalar(b, 1e-6f));
    if (kind == ATTN_LINEAR) return binary(b, "Div", out, safe);
    Tensor factor = binary(b, "Add", onnx_scalar(b, 1), onnx_node(b, "Reciprocal", IN(safe), NO_ATTR));
    return binary(b, "Sub", binary(b, "Mul", out, factor), binary(b, "Mul", mean_token(b, v), z));
}

void onnx_emit_attention(OnnxBuilder *b, const Node *n) {
    const Shape *map = out_shape(b->graph, n, 0);
    int64_t channels = map->dim[3], heads = n->attr.attention.heads, head = channels / heads;
    Tensor qkvo[4], parts[3];
    onnx_nodes(b, "Split", IN(onnx_operand(b, node_in(b->graph, n, 0))), ATTR(INT("axis", 1)), qkvo, 4);
    Tensor local = onnx_node(
        b, "Conv", IN(qkvo[2], onnx_operand(b, node_in(b->graph, n, 1)), onnx_operand(b, node_in(b->graph, n, 2))),
        ATTR(INT("group", channels), INTS("kernel_shape", 5, 5), INTS("pads", 2, 2, 2, 2)));
    OnnxRope *r = rope_for(b, map, head, qkvo[2]);
    for (int i = 0; i < 3; i++) parts[i] = reshape(b, qkvo[i], INT64S(b, 0, heads, head, -1));
    AttentionKind kind = n->attr.attention.kind;
    Tensor y = kind == ATTN_SOFTMAX ? softmax_kind(b, r, heads, parts)
                                    : linear_kind(b, r, heads, parts, token_scale(b, r, qkvo[2]), kind);
    Tensor size = b->dynamic_size ? onnx_node(b, "Shape", IN(qkvo[2]), NO_ATTR)
                                  : INT64S(b, 0, channels, map->dim[1], map->dim[2]);
    y = binary(b, "Add", reshape(b, y, size), local);
    b->tensor[node_out(b->graph, n, 0)] = binary(b, "Mul", y, qkvo[3]);
}
