/* attention.c - the attention op and its gradient as the graph sees them: sizes, the rotary table made once per plan,
 * the convolution's weights transposed, and then the linear kinds or softmax. */
#include "backend/cpu/simd/attention.h"

#include <stdlib.h>

#include "backend/rope.h"

enum { GROUP_FLOATS = 1 << 20, CHUNK_TOKENS = 256, GROUP_TASKS = 16 };

/* Operand i of the node is qkvo. */
static AttentionSize size_of(const Graph *g, const Node *n, int i) {
    const Shape *qkvo = in_shape(g, n, i);
    int channels = (int)qkvo->dim[3] / 4, heads = n->attr.attention.heads, dim = channels / heads;
    CHECK(dim <= MAX_HEAD, "%s: heads of %d channels", n->name, dim);
    AttentionSize s = {.kind = n->attr.attention.kind, .batch = (int)qkvo->dim[0], .height = (int)qkvo->dim[1],
                       .width = (int)qkvo->dim[2], .tokens = (int)(qkvo->dim[1] * qkvo->dim[2]), .channels = channels,
                       .heads = heads, .dim = dim, .pad = ROUND_UP(dim, VL), .scale = 1 / sqrtf((float)dim)};
    s.tile = MIN(MAX_TILE_TOKENS, TILE_FLOATS / s.pad);
    /* Images are taken a few at a time: every pass reads their qkvo again, and shall find it in the caches. */
    s.group = (int)MIN(MAX(1, GROUP_FLOATS / ((int64_t)s.tokens * channels * 4)), s.batch);
    int rows = MIN(CEIL_DIV(CHUNK_TOKENS, s.width), CEIL_DIV(s.height, CEIL_DIV(GROUP_TASKS, s.group * heads)));
    s.chunks = CEIL_DIV(s.height, rows);
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

/* ---- groups of images ---- */

/* Floats of workspace that the passes over a group need. */
static size_t group_work(AttentionSize s, bool backward) {
    s.batch = s.group;
    return s.kind == ATTN_SOFTMAX ? attention_softmax_work(&s, backward) : attention_linear_work(&s, backward);
}

/* x, whose images are `stride` floats apart, from image `first` on; NULL stays */
#define ADVANCE(x, stride) ((x) = (x) ? (x) + first * (stride) : NULL)

static void run_images(Attention a, int first, int count, int64_t stats_stride) {
    const int64_t pixels = (int64_t)a.size.tokens * a.size.channels;
    ADVANCE(a.qkvo, 4 * pixels);
    ADVANCE(a.y, pixels);
    ADVANCE(a.mix, pixels);
    ADVANCE(a.stats, stats_stride);
    ADVANCE(a.dy, pixels);
    ADVANCE(a.old_mix, pixels);
    ADVANCE(a.old_stats, stats_stride);
    ADVANCE(a.dqkvo, 4 * pixels);
    ADVANCE(a.tap_parts, (int64_t)a.size.chunks * 26 * a.size.channels);
    a.size.batch = count;
    if (a.size.kind == ATTN_SOFTMAX)
        (a.dy ? attention_softmax_backward : attention_softmax_forward)(&a);
    else
        (a.dy ? attention_linear_backward : attention_linear_forward)(&a);
}

static void run_groups(const Attention *a, const Shape *stats) {
    const int batch = a->size.batch, group = a->size.group;
    for (int i = 0; i < batch; i += group) run_images(*a, i, MIN(group, batch - i), shape_count(stats) / batch);
}

/* ---- the kernels ---- */

/* The workspace starts with the transposed weights and, in backward, the partial gradients of the weights. */
static size_t taps_size(const AttentionSize *s) { return ROUND_UP((size_t)25 * (size_t)s->channels, (size_t)16); }
static size_t parts_size(const AttentionSize *s) {
    return ROUND_UP((size_t)s->batch * (size_t)s->chunks * 26 * (size_t)s->channels, (size_t)16);
}

static size_t forward_work(const Graph *g, const Node *n) {
    AttentionSize s = size_of(g, n, 0);
    return (taps_size(&s) + group_work(s, false)) * sizeof(float);
}

RUN(attention) {
    float *taps = call->work;
    Attention a = {.size = size_of(call->graph, call->node, 0), .qkvo = call->in[0], .taps = taps, .bias = call->in[2],
                   .y = call->out[0], .mix = call->out[1], .stats = call->out[2]};
    a.size.rope = call->prepared;
    a.work = taps + taps_size(&a.size);
    dwconv_transpose(taps, call->in[1], a.size.channels, 5, false);
    run_groups(&a, call_out(call, 2));
}
KERNEL(attention, .workspace = forward_work, .prepare = prepare_forward, .release = free);

static size_t backward_work(const Graph *g, const Node *n) {
    AttentionSize s = size_of(g, n, 1);
    return (2 * taps_size(&s) + parts_size(&s) + group_work(s, true)) * sizeof(float);
}

RUN(attention_bwd) {
    Attention a = {.size = size_of(call->graph, call->node, 1), .dy = call->in[0], .qkvo = call->in[1],
                   .bias = call->in[3], .old_mix = call->in[4], .old_stats = call->in[5], .dqkvo = call->out[0]};
    float *taps = call->work, *turned = taps + taps_size(&a.size), *parts = turned + taps_size(&a.size);
    float *dw = call->out[1], *db = call->out[2];
    dwconv_transpose(taps, call->in[2], a.size.channels, 5, false);
    dwconv_transpose(turned, call->in[2], a.size.channels, 5, true);
    a.size.rope = call->prepared;
    a.taps = taps;
    a.turned = turned;
    a.tap_parts = dw || db ? parts : NULL;
    a.work = parts + parts_size(&a.size);
    run_groups(&a, call_in(call, 5));
    if (a.tap_parts)
        dwconv_dw_sum(dw, db, parts, a.size.batch * a.size.chunks, 5, a.size.channels, 0, a.size.channels);
}
KERNEL(attention_bwd, .workspace = backward_work, .prepare = prepare_backward, .release = free);
