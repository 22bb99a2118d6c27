/* attention.c - the attention op and its gradient as the graph sees them: sizes, the rotary table made once per plan,
 * the convolution's weights transposed, and then the linear kinds or softmax. */
#include "backend/cpu/simd/attention.h"

#include <stdlib.h>

#include "backend/rope.h"

/* Operand i of the node is qkvo. */
static AttentionSize size_of(const Graph *g, const Node *n, int i) {
    const Shape *qkvo = in_shape(g, n, i);
    int channels = (int)qkvo->dim[3] / 4, heads = n->attr.attention.heads, dim = channels / heads;
    CHECK(dim <= MAX_HEAD, "%s: heads of %d channels", n->name, dim);
    AttentionSize s = {.kind = n->attr.attention.kind, .batch = (int)qkvo->dim[0], .height = (int)qkvo->dim[1],
                       .width = (int)qkvo->dim[2], .tokens = (int)(qkvo->dim[1] * qkvo->dim[2]), .channels = channels,
                       .heads = heads, .dim = dim, .pad = ROUND_UP(dim, VL), .scale = 1 / sqrtf((float)dim)};
    s.tile = MIN(MAX_TILE_TOKENS, TILE_FLOATS / s.pad);
    return s;
}

/* ---- rotary table ---- */

/* An entry for every row and then for every column: cosines (pad), then sines (pad), negative at the even channels.
 * Which half of the head is filled: see Rope. */
static void rope_entry(float *entry, const AttentionSize *s, int position, int half) {
    int pairs = s->dim / 4;
    for (int i = 0; i < pairs; i++) {
        double angle = (double)position * (double)rope_angle(i, pairs);
        float *cosine = entry + half * (s->dim / 2) + 2 * i, *sine = cosine + s->pad;
        cosine[0] = cosine[1] = (float)cos(angle);
        sine[1] = (float)sin(angle);
        sine[0] = -sine[1];
    }
}

static bool prepare(const Graph *g, const Node *n, int operand, void **prepared, Err *err) {
    AttentionSize s = size_of(g, n, operand);
    int entries = s.height + s.width;
    if (!mem_try(prepared, (size_t)entries * 2 * (size_t)s.pad * sizeof(float), err)) return false;
    float *table = *prepared;
    for (int i = 0; i < entries; i++)
        rope_entry(table + (int64_t)i * 2 * s.pad, &s, i < s.height ? i : i - s.height, i >= s.height);
    return true;
}

static bool prepare_forward(const Graph *g, const Node *n, Backend *backend, void **prepared, Err *err) {
    (void)backend;
    return prepare(g, n, 0, prepared, err);
}
static bool prepare_backward(const Graph *g, const Node *n, Backend *backend, void **prepared, Err *err) {
    (void)backend;
    return prepare(g, n, 1, prepared, err);
}

/* ---- the kernels ---- */

/* The workspace starts with the transposed weights. */
static size_t taps_size(const AttentionSize *s) { return ROUND_UP((size_t)25 * (size_t)s->channels, (size_t)16); }

static size_t forward_work(const Graph *g, const Node *n) {
    AttentionSize s = size_of(g, n, 0);
    size_t floats = s.kind == ATTN_SOFTMAX ? attention_softmax_work(&s, false) : attention_linear_work(&s, false);
    return (taps_size(&s) + floats) * sizeof(float);
}

RUN(attention) {
    float *taps = call->work;
    Attention a = {.size = size_of(call->graph, call->node, 0), .qkvo = call->in[0], .taps = taps, .bias = call->in[2],
                   .y = call->out[0], .mix = call->out[1], .stats = call->out[2]};
    a.size.rope = call->prepared;
    a.work = taps + taps_size(&a.size);
    dwconv_transpose(taps, call->in[1], a.size.channels, 5, false);
    if (a.size.kind == ATTN_SOFTMAX)
        attention_softmax_forward(&a);
    else
        attention_linear_forward(&a);
}
KERNEL(attention, .workspace = forward_work, .prepare = prepare_forward, .release = free);

static size_t backward_work(const Graph *g, const Node *n) {
    AttentionSize s = size_of(g, n, 1);
    size_t floats = s.kind == ATTN_SOFTMAX ? attention_softmax_work(&s, true) : attention_linear_work(&s, true);
    return (2 * taps_size(&s) + floats) * sizeof(float);
}

RUN(attention_bwd) {
    float *taps = call->work;
    Attention a = {.size = size_of(call->graph, call->node, 1), .dy = call->in[0], .qkvo = call->in[1], .taps = taps,
                   .bias = call->in[3], .old_mix = call->in[4], .old_stats = call->in[5], .dqkvo = call->out[0],
                   .dw = call->out[1], .db = call->out[2]};
    float *turned = taps + taps_size(&a.size);
    a.size.rope = call->prepared;
    a.turned = turned;
    a.work = turned + taps_size(&a.size);
    dwconv_transpose(taps, call->in[2], a.size.channels, 5, false);
    dwconv_transpose(turned, call->in[2], a.size.channels, 5, true);
    if (a.size.kind == ATTN_SOFTMAX)
        attention_softmax_backward(&a);
    else
        attention_linear_backward(&a);
}
KERNEL(attention_bwd, .workspace = backward_work, .prepare = prepare_backward, .release = free);
