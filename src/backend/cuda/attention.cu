/* attention.cu - the attention op and its gradient as the graph sees them: sizes, the rotary table made once per plan,
 * and then the linear kinds or softmax. */
#include "backend/cuda/attention.cuh"

#include <stdlib.h>

#include "backend/rope.h"

/* Operand i of the node is qkvo. */
static AttentionSize size_of(const Graph *g, const Node *n, int i) {
    const Shape *qkvo = in_shape(g, n, i);
    AttentionSize s = {};
    s.kind = n->attr.attention.kind;
    s.batch = (int)qkvo->dim[0], s.height = (int)qkvo->dim[1], s.width = (int)qkvo->dim[2];
    s.tokens = s.height * s.width, s.channels = (int)qkvo->dim[3] / 4, s.heads = n->attr.attention.heads;
    s.d = s.channels / s.heads;
    s.scale = 1 / sqrtf((float)s.d);
    return s;
}

/* ---- rotary table ---- */

struct Rope {
    Backend *backend;
    void *turns;
};

static void rope_release(void *prepared) {
    Rope *rope = (Rope *)prepared;
    if (rope->turns) rope->backend->free(rope->backend, rope->turns);
    free(rope);
}

static void rope_fill(Turn *turns, int positions, int pairs) {
    for (int i = 0; i < positions * pairs; i++) {
        double angle = (double)(i / pairs) * (double)rope_angle(i % pairs, pairs);
        turns[i].cosine = (float)cos(angle);
        turns[i].sine = (float)sin(angle);
    }
}

static bool prepare(const Graph *g, const Node *n, int operand, Backend *backend, void **prepared, Err *err) {
    AttentionSize s = size_of(g, n, operand);
    if (s.d > MAX_HEAD)
        return err_set(err, EXIT_DEVICE,
                       "%s: heads of %d channels are more than the %d that the CUDA kernels take - use "
                       "more heads, or --device cpu",
                       n->name, s.d, MAX_HEAD);
    int positions = MAX(s.height, s.width), pairs = s.d / 4;
    size_t bytes = (size_t)positions * pairs * sizeof(Turn);
    void *host, *memory;
    if (!mem_try(&memory, sizeof(Rope), err)) return false;
    Rope *rope = (Rope *)memory;
    rope->backend = backend;
    if (!mem_try(&host, bytes, err)) return free(rope), false;
    rope_fill((Turn *)host, positions, pairs);
    bool done = backend->alloc(backend, &rope->turns, bytes, err) &&
                backend->upload(backend, rope->turns, host, bytes, 0, err) && backend->wait(backend, 0, err);
    free(host);
    if (!done) return rope_release(rope), false;
    *prepared = rope;
    return true;
}

static bool prepare_forward(const Graph *g, const Node *n, Backend *backend, void **prepared, Err *err) {
    return prepare(g, n, 0, backend, prepared, err);
}
static bool prepare_backward(const Graph *g, const Node *n, Backend *backend, void **prepared, Err *err) {
    return prepare(g, n, 1, backend, prepared, err);
}

/* ---- the kernels ---- */

static size_t work_bytes(const Graph *g, const Node *n, int operand) {
    AttentionSize s = size_of(g, n, operand);
    size_t element = dtype_size(graph_value(g, node_in(g, n, operand))->dtype);
    return (s.kind == ATTN_SOFTMAX ? attention_softmax_work : attention_linear_work)(s, element, operand == 1);
}

static size_t forward_work(const Graph *g, const Node *n) { return work_bytes(g, n, 0); }
static size_t backward_work(const Graph *g, const Node *n) { return work_bytes(g, n, 1); }

static void attention_run(const KernelCall *c) {
    Attention a = {};
    a.call = c;
    a.size = size_of(c->graph, c->node, 0);
    a.size.turns = (const Turn *)((const Rope *)c->prepared)->turns;
    a.qkvo = c->in[0], a.w = (const float *)c->in[1], a.b = (const float *)c->in[2];
    a.y = c->out[0], a.mix = c->out[1], a.stats = (float *)c->out[2];
    WITH_FEATURE(in_type(c, 0), T,
                 (a.size.kind == ATTN_SOFTMAX ? attention_softmax_forward<T> : attention_linear_forward<T>)(a));
}

static void attention_bwd_run(const KernelCall *c) {
    Attention a = {};
    a.call = c;
    a.size = size_of(c->graph, c->node, 1);
    a.size.turns = (const Turn *)((const Rope *)c->prepared)->turns;
    a.dy = c->in[0], a.qkvo = c->in[1], a.w = (const float *)c->in[2], a.b = (const float *)c->in[3];
    a.old_mix = c->in[4], a.old_stats = (const float *)c->in[5];
    a.dqkvo = c->out[0], a.dw = (float *)c->out[1], a.db = (float *)c->out[2];
    WITH_FEATURE(in_type(c, 1), T,
                 (a.size.kind == ATTN_SOFTMAX ? attention_softmax_backward<T> : attention_linear_backward<T>)(a));
}

/* In features (B,N,C), as the heads of attention_linear.cu, attention_softmax.cu and attention_taps.cu count them */
static double forward_moves(const KernelCall *c) {
    int inputs = c->node->attr.attention.kind == ATTN_SOFTMAX ? 4 : 5;
    return (inputs + (c->out[0] != NULL) + (c->out[1] != NULL)) * in_bytes(c, 0) / 4;
}
static double backward_moves(const KernelCall *c) {
    return (c->node->attr.attention.kind == ATTN_SOFTMAX ? 6 + 5 + 6 + 2 : 7 + 5 + 2) * in_bytes(c, 0);
}

CUDA_KERNEL(attention, .run = attention_run, .types = KERNEL_TYPES_ALL, .workspace = forward_work,
            .prepare = prepare_forward, .release = rope_release, .moves = forward_moves)
CUDA_KERNEL(attention_bwd, .run = attention_bwd_run, .types = KERNEL_TYPES_ALL, .workspace = backward_work,
            .prepare = prepare_backward, .release = rope_release, .moves = backward_moves)
