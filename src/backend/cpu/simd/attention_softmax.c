/* attention_softmax.c - softmax attention by tiles of keys, its scores never in memory as a whole.
 *
 * Forward: a task is a block of queries of one head. The scores of a tile of keys lie with the queries along vectors,
 * so that maxima and sums need no shuffling; what was summed before is rescaled when a later tile raises the maximum.
 * Backward: a task is a range of keys of one head. It finds the probabilities again from the saved logarithms of the
 * sums and finishes dk and dv of its keys; its share of dq is added to the others' in the order of the ranges. */
#include "backend/cpu/simd/attention.h"

enum {
    MAX_BLOCK_FLOATS = 2 * TILE_FLOATS, /* a block is at least one vector of tokens, whatever the head */
    SCORES = 2 * TILE_FLOATS,
    MAX_SPLITS = 8, /* ranges of keys per head in backward: as many copies of dq */
};

typedef struct {
    const Attention *a;
    AttentionSize s;
    int block;  /* queries (forward) or keys (backward) along vectors: a multiple of VL */
    int blocks; /* per head */
    int splits; /* backward: ranges of blocks of keys per head */
    /* (B * heads, N, pad): copies of q (turned and scaled), k (turned), v and the gradient of mix; gradients of the
     * first three, that of q once per split */
    float *q, *k, *v, *g, *dq, *dk, *dv;
    float *lse, *mean; /* (B * heads, N): the saved logarithms, to base 2; g . attention */
} Task;

static size_t task_make(Task *t, const Attention *a, const AttentionSize *s, float *work, bool backward) {
    *t = (Task){.a = a, .s = *s, .block = MAX(VL, s->tile / VL * VL)};
    t->blocks = CEIL_DIV(s->tokens, t->block);
    /* by the group, not the batch: the last group may be smaller, and the workspace is for a whole one */
    t->splits = MIN(MIN(CEIL_DIV(16, s->group * s->heads), MAX_SPLITS), t->blocks);
    size_t used = 0, rows = (size_t)s->batch * (size_t)s->heads * (size_t)s->tokens, pad = (size_t)s->pad;
    size_t k = take(&used, rows * pad), v = take(&used, rows * pad);
    size_t q = 0, g = 0, dq = 0, dk = 0, dv = 0, lse = 0, mean = 0;
    if (backward) {
        q = take(&used, rows * pad);
        g = take(&used, rows * pad);
        dq = take(&used, rows * pad * (size_t)t->splits);
        dk = take(&used, rows * pad);
        dv = take(&used, rows * pad);
        lse = take(&used, rows);
        mean = take(&used, rows);
    }
    if (!work) return used;
    t->k = work + k;
    t->v = work + v;
    if (backward) {
        t->q = work + q;
        t->g = work + g;
        t->dq = work + dq;
        t->dk = work + dk;
        t->dv = work + dv;
        t->lse = work + lse;
        t->mean = work + mean;
    }
    return used;
}

size_t attention_softmax_work(const AttentionSize *s, bool backward) {
    Task t;
    return task_make(&t, NULL, s, NULL, backward);
}

/* to (pad) = a head of a token at x, turned and scaled */
ALWAYS_INLINE void pack_turned(const AttentionSize *s, float *to, const float *x, const Cursor *at, float scale) {
    Rope rope = rope_at(s, at);
    for (int j = 0; j < s->pad; j += VL) vf_store(to + j, rope_turn(&rope, j, load_lanes(s, x, j)) * scale);
}

/* to (pad, block) = rows (count, pad) transposed, columns up to whole vectors zeroed; returns these columns */
ALWAYS_INLINE int transpose(const AttentionSize *s, float *to, int block, const float *rows, int count) {
    const int pad = s->pad, width = ROUND_UP(count, VL);
    for (int i = 0; i < width; i += VL) {
        for (int j = 0; j < pad; j += VL) {
            const float *from = rows + i * pad + j;
            vf x[VL];
            if (i + VL <= count) {
                UNROLL for (int l = 0; l < VL; l++) x[l] = vf_load(from + l * pad);
            } else {
                UNROLL for (int l = 0; l < VL; l++) x[l] = i + l < count ? vf_load(from + l * pad) : vf_set(0);
            }
            transpose_block(x);
            UNROLL for (int l = 0; l < VL; l++) vf_store(to + (j + l) * block + i, x[l]);
        }
    }
    return width;
}

/* ---- forward ---- */

ALWAYS_INLINE void pack_keys_chunk(const AttentionSize *s, const Task *t, int index) {
    Place p = place_of(s, index, s->chunks);
    const float *k = t->a->qkvo + (p.token * 4 + 1) * s->channels + p.channel;
    for (Cursor at = cursor_at(s, p.y0 * s->width); at.row < p.y1; cursor_step(s, &at), k += 4 * s->channels) {
        pack_turned(s, head_row(s, t->k, p.head, at.token), k, &at, 1);
        pack_row(s, head_row(s, t->v, p.head, at.token), k + s->channels);
    }
}

static void pack_keys(void *arg, int index, int thread) {
    (void)thread;
    const Task *t = arg;
    FOR_HEAD(t->s, pack_keys_chunk, t, index);
}

/* The local enhancement, to where finish_block looks for it. */
static void local_chunk(void *arg, int index, int thread) {
    (void)thread;
    const Task *t = arg;
    const AttentionSize *s = &t->s;
    Place p = place_of(s, index, s->chunks);
    float *local = t->a->y ? t->a->y : t->a->mix;
    local_rows(t->a, local + p.token * s->channels + p.channel, s->channels, t->v, &p);
}

/* The state of a block of queries. */
typedef struct {
    _Alignas(64) float q[MAX_BLOCK_FLOATS];   /* (pad, block): turned, times scale / ln 2, transposed */
    _Alignas(64) float sum[MAX_BLOCK_FLOATS]; /* (block, pad): of probabilities times v */
    _Alignas(64) float scores[SCORES];        /* (keys, block) */
    _Alignas(64) float top[MAX_TILE_TOKENS];  /* largest score so far, in powers of two */
    _Alignas(64) float total[MAX_TILE_TOKENS];
    _Alignas(64) float fade[MAX_TILE_TOKENS]; /* what earlier tiles have to be multiplied with */
} QueryBlock;

/* scores become 2^(score - top); updates top, total and fade */
ALWAYS_INLINE void exponentials(QueryBlock *b, int block, int width, int keys, bool first) {
    for (int i = 0; i < width; i += VL) {
        float *x = b->scores + i;
        vf old = first ? vf_load(x) : vf_load(b->top + i), top = old, top2 = old;
        for (int key = 0; key + 1 < keys; key += 2) {
            top = vf_max(top, vf_load(x + key * block));
            top2 = vf_max(top2, vf_load(x + (key + 1) * block));
        }
        if (keys % 2) top = vf_max(top, vf_load(x + (keys - 1) * block));
        top = vf_max(top, top2);
        vf fade = vf_exp2(old - top), total = first ? vf_set(0) : vf_load(b->total + i) * fade;
        for (int key = 0; key < keys; key++) {
            vf p = vf_exp2(vf_load(x + key * block) - top);
            vf_store(x + key * block, p);
            total += p;
        }
        vf_store(b->top + i, top);
        vf_store(b->total + i, total);
        vf_store(b->fade + i, fade);
    }
}

ALWAYS_INLINE void finish_block(const AttentionSize *s, const Attention *a, const QueryBlock *b, int64_t head,
                                int64_t first, int count) {
    const int64_t token = head / s->heads * s->tokens + first, channel = head % s->heads * s->dim;
    const float *local = a->y ? a->y : a->mix;
    for (int i = 0; i < count; i++) {
        float scale = 1 / b->total[i];
        if (a->stats) a->stats[head * s->tokens + first + i] = LN2 * b->top[i] + logf(b->total[i]);
        if (!local) continue;
        const float *gate = a->qkvo + ((token + i) * 4 + 3) * s->channels + channel;
        int64_t at = (token + i) * s->channels + channel;
        for (int j = 0; j < s->pad; j += VL) {
            vf x = vf_load(b->sum + i * s->pad + j) * scale + load_lanes(s, local + at, j);
            if (a->mix) store_lanes(s, a->mix + at, j, x);
            if (a->y) store_lanes(s, a->y + at, j, x * load_lanes(s, gate, j));
        }
    }
}

ALWAYS_INLINE void query_block(const AttentionSize *s, const Task *t, int index) {
    const int pad = s->pad, block = t->block, first = index % t->blocks * block;
    const int64_t head = index / t->blocks;
    const int count = MIN(block, s->tokens - first);
    QueryBlock b;
    Cursor at = cursor_at(s, first);
    const float *q = t->a->qkvo + (head / s->heads * s->tokens + first) * 4 * s->channels + head % s->heads * s->dim;
    for (int i = 0; i < count; i++, cursor_step(s, &at), q += 4 * s->channels)
        pack_turned(s, b.sum + i * pad, q, &at, s->scale * LOG2E);
    const int width = transpose(s, b.q, block, b.sum, count);
    const int tiles = CEIL_DIV(s->tokens, SCORES / block);
    for (int i = 0; i < tiles; i++) {
        int key = (int)((int64_t)s->tokens * i / tiles), keys = (int)((int64_t)s->tokens * (i + 1) / tiles) - key;
        gemm_nn(b.scores, block, head_row(s, t->k, head, key), pad, b.q, block, keys, width, s->dim, false);
        exponentials(&b, block, width, keys, i == 0);
        for (int r = 0; i > 0 && r < count; r++)
            for (int j = 0; j < pad; j += VL) vf_store(b.sum + r * pad + j, vf_load(b.sum + r * pad + j) * b.fade[r]);
        gemm_tn(b.sum, pad, b.scores, block, head_row(s, t->v, head, key), pad, count, pad, keys, i > 0);
    }
    finish_block(s, t->a, &b, head, first, count);
}

static void apply_queries(void *arg, int index, int thread) {
    (void)thread;
    const Task *t = arg;
    FOR_HEAD(t->s, query_block, t, index);
}

void attention_softmax_forward(const Attention *a) {
    Task t;
    task_make(&t, a, &a->size, a->work, false);
    const int heads = a->size.batch * a->size.heads;
    parallel_for(heads * a->size.chunks, pack_keys, &t);
    if (a->y || a->mix) parallel_for(heads * a->size.chunks, local_chunk, &t);
    parallel_for(heads * t.blocks, apply_queries, &t);
}

/* ---- backward ---- */

/* Packs q, k, v and g = dy o; finishes do = dy mix. */
ALWAYS_INLINE void pack_chunk(const AttentionSize *s, const Task *t, int index) {
    const Attention *a = t->a;
    Place p = place_of(s, index, s->chunks);
    int64_t token = p.token * s->channels + p.channel, at4 = p.token * 4 * s->channels + p.channel;
    for (Cursor at = cursor_at(s, p.y0 * s->width); at.row < p.y1; cursor_step(s, &at)) {
        const float *q = a->qkvo + at4, *gate = q + 3 * s->channels;
        float *g = head_row(s, t->g, p.head, at.token), *dgate = a->dqkvo ? a->dqkvo + at4 + 3 * s->channels : NULL;
        pack_turned(s, head_row(s, t->q, p.head, at.token), q, &at, s->scale * LOG2E);
        pack_turned(s, head_row(s, t->k, p.head, at.token), q + s->channels, &at, 1);
        pack_row(s, head_row(s, t->v, p.head, at.token), q + 2 * s->channels);
        for (int j = 0; j < s->pad; j += VL) {
            vf dy = load_lanes(s, a->dy + token, j);
            vf_store(g + j, dy * load_lanes(s, gate, j));
            if (dgate) store_lanes(s, dgate, j, dy * load_lanes(s, a->old_mix + token, j));
        }
        token += s->channels;
        at4 += 4 * s->channels;
    }
}

static void pack_all(void *arg, int index, int thread) {
    (void)thread;
    const Task *t = arg;
    FOR_HEAD(t->s, pack_chunk, t, index);
}

/* The convolution's gradients; lse and mean. */
static void local_gradient(void *arg, int index, int thread) {
    (void)thread;
    const Task *t = arg;
    const Attention *a = t->a;
    const AttentionSize *s = &t->s;
    Place p = place_of(s, index, s->chunks);
    if (a->tap_parts) local_taps_gradient(a, t->v, t->g, &p, index % s->chunks);
    if (!a->dqkvo) return;
    /* the local enhancement, which mix has to be rid of, lies for a moment where dv will be */
    const float *local = a->dqkvo + (p.token * 4 + 2) * s->channels + p.channel;
    local_rows(a, a->dqkvo + (p.token * 4 + 2) * s->channels + p.channel, 4 * s->channels, t->v, &p);
    const float *mix = a->old_mix + p.token * s->channels + p.channel;
    for (int64_t i = (int64_t)p.y0 * s->width; i < (int64_t)p.y1 * s->width; i++) {
        const float *g = head_row(s, t->g, p.head, i);
        vf mean = vf_set(0);
        for (int j = 0; j < s->pad; j += VL) mean += vf_load(g + j) * (load_lanes(s, mix, j) - load_lanes(s, local, j));
        t->mean[p.head * s->tokens + i] = vf_sum(mean);
        t->lse[p.head * s->tokens + i] = a->old_stats[p.head * s->tokens + i] * LOG2E;
        mix += s->channels;
        local += 4 * s->channels;
    }
    local_rows_gradient(a, t->g, &p);
}

/* A block of keys against a tile of queries. */
typedef struct {
    _Alignas(64) float k[MAX_BLOCK_FLOATS], v[MAX_BLOCK_FLOATS]; /* (pad, block): transposed */
    _Alignas(64) float p[SCORES], ds[SCORES];                    /* (tile, block): probabilities, and ds / scale */
} KeyBlock;

static void score_gradient(KeyBlock *b, int block, int width, int queries, const float *lse, const float *mean) {
    for (int i = 0; i < queries; i++) {
        for (int j = 0; j < width; j += VL) {
            vf p = vf_exp2(vf_load(b->p + i * block + j) - lse[i]);
            vf_store(b->p + i * block + j, p);
            vf_store(b->ds + i * block + j, p * (vf_load(b->ds + i * block + j) - mean[i]));
        }
    }
}

ALWAYS_INLINE void key_block(const AttentionSize *s, const Task *t, KeyBlock *b, int64_t head, int split, int first,
                             bool first_of_split) {
    const int pad = s->pad, block = t->block, count = MIN(block, s->tokens - first);
    const float *k = head_row(s, t->k, head, first);
    const int width = transpose(s, b->k, block, k, count);
    transpose(s, b->v, block, head_row(s, t->v, head, first), count);
    float *dk = head_row(s, t->dk, head, first), *dv = head_row(s, t->dv, head, first);
    for (int i = 0; i < s->tokens; i += s->tile) {
        const int queries = MIN(s->tile, s->tokens - i);
        const float *q = head_row(s, t->q, head, i), *g = head_row(s, t->g, head, i);
        float *dq = head_row(s, t->dq, head * t->splits + split, i);
        gemm_nn(b->p, block, q, pad, b->k, block, queries, width, s->dim, false);
        gemm_nn(b->ds, block, g, pad, b->v, block, queries, width, s->dim, false);
        score_gradient(b, block, width, queries, t->lse + head * s->tokens + i, t->mean + head * s->tokens + i);
        gemm_tn(dv, pad, b->p, block, g, pad, count, pad, queries, i > 0);
        gemm_tn(dk, pad, b->ds, block, q, pad, count, pad, queries, i > 0);
        gemm_nn(dq, pad, b->ds, block, k, pad, queries, pad, count, !first_of_split);
    }
}

ALWAYS_INLINE void key_range(const AttentionSize *s, const Task *t, int index) {
    KeyBlock b;
    const int split = index % t->splits;
    const int from = t->blocks * split / t->splits, to = t->blocks * (split + 1) / t->splits;
    for (int i = from; i < to; i++) key_block(s, t, &b, index / t->splits, split, i * t->block, i == from);
}

static void key_gradient(void *arg, int index, int thread) {
    (void)thread;
    const Task *t = arg;
    FOR_HEAD(t->s, key_range, t, index);
}

/* Turns back and scales what the ranges found; the convolution's share of dv is there already. */
ALWAYS_INLINE void finish_chunk(const AttentionSize *s, const Task *t, int index) {
    Place p = place_of(s, index, s->chunks);
    float *out = t->a->dqkvo + p.token * 4 * s->channels + p.channel;
    for (Cursor at = cursor_at(s, p.y0 * s->width); at.row < p.y1; cursor_step(s, &at), out += 4 * s->channels) {
        Rope rope = rope_at(s, &at);
        const float *dk = head_row(s, t->dk, p.head, at.token), *dv = head_row(s, t->dv, p.head, at.token);
        for (int j = 0; j < s->pad; j += VL) {
            vf dq = vf_set(0);
            for (int i = 0; i < t->splits; i++) dq += vf_load(head_row(s, t->dq, p.head * t->splits + i, at.token) + j);
            store_lanes(s, out, j, rope_turn_back(&rope, j, dq) * s->scale);
            store_lanes(s, out + s->channels, j, rope_turn_back(&rope, j, vf_load(dk + j)) * LN2);
            float *to = out + 2 * s->channels;
            store_lanes(s, to, j, load_lanes(s, to, j) + vf_load(dv + j));
        }
    }
}

static void finish_all(void *arg, int index, int thread) {
    (void)thread;
    const Task *t = arg;
    FOR_HEAD(t->s, finish_chunk, t, index);
}

void attention_softmax_backward(const Attention *a) {
    Task t;
    task_make(&t, a, &a->size, a->work, true);
    const int heads = a->size.batch * a->size.heads;
    parallel_for(heads * a->size.chunks, pack_all, &t);
    parallel_for(heads * a->size.chunks, local_gradient, &t);
    if (!a->dqkvo) return;
    parallel_for(heads * t.splits, key_gradient, &t);
    parallel_for(heads * a->size.chunks, finish_all, &t);
}
