/* attention_linear.c - the kinds of attention whose cost grows with the number of tokens: mala, linear, inline.
 *
 * Forward takes two walks over the tokens. The first adds up mean phi(k), mean(v) and kv: chunks of rows each have a
 * partial sum, added in the order of the chunks. The second turns every query into its row of the result. Backward
 * does likewise: the first walk finishes dq and do and adds up the gradients of the three sums, the second finishes dk
 * and dv and adds up the gradients of the convolution's weights. A task is a chunk of one head. */
#include "backend/cpu/simd/attention.h"

/* The sums of a head, in rows of `pad` floats: a vector for k, one for v, and the matrix. */
enum { ROW_K, ROW_V, ROW_MATRIX };

static size_t sums_size(const AttentionSize *s) { return (size_t)(ROW_MATRIX + s->dim) * (size_t)s->pad; }

typedef struct {
    const Attention *a;
    AttentionSize s;
    float *v, *g;            /* (B * heads, N, pad): copies of v and of the gradient of mix */
    float *parts;            /* (B * heads * chunks) sums */
    float *state;            /* (B * heads) sums: mean phi(k), mean(v), kv; in backward kv^T */
    float *dstate, *dmatrix; /* (B * heads): gradients of the same, and that of the matrix transposed */
} Task;

/* Lays the workspace out; returns its size in floats. */
static size_t task_make(Task *t, const Attention *a, const AttentionSize *s, float *work, bool backward) {
    *t = (Task){.a = a, .s = *s};
    const size_t heads = (size_t)s->batch * (size_t)s->heads, rows = heads * (size_t)s->tokens * (size_t)s->pad;
    size_t used = 0, v = take(&used, rows), parts = take(&used, heads * (size_t)s->chunks * sums_size(s));
    size_t state = take(&used, heads * sums_size(s)), g = 0, dstate = 0, dmatrix = 0;
    if (backward) {
        g = take(&used, rows);
        dstate = take(&used, heads * sums_size(s));
        dmatrix = take(&used, heads * (size_t)s->dim * (size_t)s->pad);
    }
    if (!work) return used;
    t->v = work + v;
    t->parts = work + parts;
    t->state = work + state;
    if (backward) {
        t->g = work + g;
        t->dstate = work + dstate;
        t->dmatrix = work + dmatrix;
    }
    return used;
}

size_t attention_linear_work(const AttentionSize *s, bool backward) {
    Task t;
    return task_make(&t, NULL, s, NULL, backward);
}

static float *sums_of(const AttentionSize *s, float *sums, int64_t index) {
    return sums + index * (int64_t)sums_size(s);
}

/* out = r_factor(z) r + v_factor(z) mean(v), and the slopes of both factors */
typedef struct {
    float r, v, r_slope, v_slope;
} Factors;

static inline Factors factors(AttentionKind kind, float z) {
    float inverse = 1 / (z + 1e-6f);
    switch (kind) {
    case ATTN_MALA: return (Factors){1 + inverse, -z, -inverse * inverse, -1};
    case ATTN_LINEAR: return (Factors){inverse, 0, -inverse * inverse, 0};
    default: return (Factors){1, 1 - z, 0, -1};
    }
}

/* ---- forward ---- */

/* From k of tokens (stride 4C, v lying C further): turned = R phi(k), values = v, both (count, pad); and adds phi(k)
 * and v to the rows of sums. */
ALWAYS_INLINE void pack_keys(const AttentionSize *s, const float *k, Cursor at, int count, float *turned, float *values,
                             float *sums) {
    const int pad = s->pad;
    vf sum_k[MAX_HEAD / VL], sum_v[MAX_HEAD / VL];
    for (int j = 0; j < pad; j += VL) {
        sum_k[j / VL] = vf_load(sums + ROW_K * pad + j);
        sum_v[j / VL] = vf_load(sums + ROW_V * pad + j);
    }
    for (int i = 0; i < count; i++, cursor_step(s, &at), k += 4 * s->channels) {
        Rope rope = rope_at(s, &at);
        for (int j = 0; j < pad; j += VL) {
            prefetch(s, k + j);
            prefetch(s, k + s->channels + j);
            vf x = phi(load_lanes(s, k, j)), v = load_lanes(s, k + s->channels, j);
            vf_store(turned + i * pad + j, rope_turn(&rope, j, x));
            vf_store(values + i * pad + j, v);
            sum_k[j / VL] += x;
            sum_v[j / VL] += v;
        }
    }
    for (int j = 0; j < pad; j += VL) {
        vf_store(sums + ROW_K * pad + j, sum_k[j / VL]);
        vf_store(sums + ROW_V * pad + j, sum_v[j / VL]);
    }
}

ALWAYS_INLINE void sum_chunk(const AttentionSize *s, const Task *t, int index) {
    _Alignas(64) float turned[TILE_FLOATS];
    Place p = place_of(s, index, s->chunks);
    float *sums = sums_of(s, t->parts, index);
    memset(sums, 0, sums_size(s) * sizeof(float));
    const float *k = t->a->qkvo + (p.token * 4 + 1) * s->channels + p.channel;
    for (int i = p.y0 * s->width, end = p.y1 * s->width; i < end; i += s->tile) {
        const int count = MIN(s->tile, end - i);
        float *values = head_row(s, t->v, p.head, i);
        pack_keys(s, k, cursor_at(s, i), count, turned, values, sums);
        gemm_tn(sums + ROW_MATRIX * s->pad, s->pad, turned, s->pad, values, s->pad, s->dim, s->pad, count, true);
        k += (int64_t)count * 4 * s->channels;
    }
}

static void sum_keys(void *arg, int index, int thread) {
    (void)thread;
    const Task *t = arg;
    FOR_HEAD(t->s, sum_chunk, t, index);
}

/* out = scale * the sum over chunks of one row of one head's partial sums; zero beyond the head's channels */
static void reduce_row(const Task *t, float *out, int head, int row, float scale) {
    const AttentionSize *s = &t->s;
    const float *part = sums_of(s, t->parts, (int64_t)head * s->chunks) + row * s->pad;
    for (int j = 0; j < s->pad; j += VL) {
        vf sum = vf_load(part + j);
        for (int i = 1; i < s->chunks; i++) sum += vf_load(part + i * (int64_t)sums_size(s) + j);
        vf_store(out + j, sum * scale);
    }
    for (int j = s->dim; j < s->pad; j++) out[j] = 0;
}

/* A quarter of the rows of one head's sums; stats get a copy without padding. */
static void reduce_keys(void *arg, int index, int thread) {
    (void)thread;
    const Task *t = arg;
    const AttentionSize *s = &t->s;
    const int head = index / 4, rows = ROW_MATRIX + s->dim;
    float *state = sums_of(s, t->state, head), *stats = t->a->stats;
    for (int row = rows * (index % 4) / 4; row < rows * (index % 4 + 1) / 4; row++) {
        float *out = state + row * s->pad;
        reduce_row(t, out, head, row, (row < ROW_MATRIX ? 1 : s->scale) / (float)s->tokens);
        if (stats) memcpy(stats + ((int64_t)head * rows + row) * s->dim, out, (size_t)s->dim * sizeof(float));
    }
}

/* From q of tokens: turned = R phi(q) and, unless NULL, plain = phi(q), both (count, pad); z (count). */
ALWAYS_INLINE void pack_queries(const AttentionSize *s, const float *q, Cursor at, int count, const float *mean_k,
                                float *turned, float *plain, float *z) {
    const int pad = s->pad;
    for (int i = 0; i < count; i++, cursor_step(s, &at)) {
        Rope rope = rope_at(s, &at);
        vf sum = vf_set(0);
        for (int j = 0; j < pad; j += VL) {
            prefetch(s, q + j);
            vf x = phi(load_lanes(s, q, j));
            sum += x * vf_load(mean_k + j);
            vf_store(turned + i * pad + j, rope_turn(&rope, j, x));
            if (plain) vf_store(plain + i * pad + j, x);
        }
        z[i] = s->scale * vf_sum(sum);
        q += 4 * s->channels;
    }
}

/* Rows of the result for `count` queries of a head from their R phi(q) kv in r: adds them to the local enhancement
 * that waits in `local`, and applies the gate. */
ALWAYS_INLINE void finish_rows(const AttentionSize *s, const Attention *a, const float *r, const float *z,
                               const float *mean_v, int64_t token, int64_t channel, int count, const float *local) {
    float *y = a->y, *mix = a->mix;
    const float *gate = a->qkvo + (token * 4 + 3) * s->channels + channel;
    int64_t at = token * s->channels + channel;
    for (int i = 0; i < count; i++, at += s->channels, gate += 4 * s->channels) {
        Factors f = factors(s->kind, z[i]);
        for (int j = 0; j < s->pad; j += VL) {
            prefetch(s, gate + j);
            vf x = vf_load(r + i * s->pad + j) * f.r + vf_load(mean_v + j) * f.v + load_lanes(s, local + at, j);
            if (mix) store_lanes(s, mix + at, j, x);
            if (y) store_lanes(s, y + at, j, x * load_lanes(s, gate, j));
        }
    }
}

ALWAYS_INLINE void apply_chunk(const AttentionSize *s, const Task *t, int index) {
    const Attention *a = t->a;
    _Alignas(64) float turned[TILE_FLOATS], r[TILE_FLOATS], z[MAX_TILE_TOKENS];
    Place p = place_of(s, index, s->chunks);
    const float *state = sums_of(s, t->state, p.head);
    float *local = a->y ? a->y : a->mix;
    local_rows(a, local + p.token * s->channels + p.channel, s->channels, t->v, &p);
    int64_t token = p.token;
    for (int i = p.y0 * s->width, end = p.y1 * s->width; i < end; i += s->tile) {
        const int count = MIN(s->tile, end - i);
        const float *q = a->qkvo + token * 4 * s->channels + p.channel;
        pack_queries(s, q, cursor_at(s, i), count, state + ROW_K * s->pad, turned, NULL, z);
        gemm_nn(r, s->pad, turned, s->pad, state + ROW_MATRIX * s->pad, s->pad, count, s->pad, s->dim, false);
        finish_rows(s, a, r, z, state + ROW_V * s->pad, token, p.channel, count, local);
        token += count;
    }
}

static void apply_queries(void *arg, int index, int thread) {
    (void)thread;
    const Task *t = arg;
    FOR_HEAD(t->s, apply_chunk, t, index);
}

void attention_linear_forward(const Attention *a) {
    Task t;
    task_make(&t, a, &a->size, a->work, false);
    const int heads = a->size.batch * a->size.heads;
    parallel_for(heads * a->size.chunks, sum_keys, &t);
    parallel_for(heads * 4, reduce_keys, &t);
    if (a->y || a->mix) parallel_for(heads * a->size.chunks, apply_queries, &t);
}

/* ---- backward ---- */

/* state from the saved stats: padded, and kv transposed */
static void load_state(void *arg, int head, int thread) {
    (void)thread;
    const Task *t = arg;
    const AttentionSize *s = &t->s;
    const int64_t d = s->dim;
    const float *stats = t->a->old_stats + head * (ROW_MATRIX + d) * d;
    float *state = sums_of(s, t->state, head), *matrix = state + ROW_MATRIX * s->pad;
    memset(state, 0, sums_size(s) * sizeof(float));
    memcpy(state + ROW_K * s->pad, stats + ROW_K * d, (size_t)d * sizeof(float));
    memcpy(state + ROW_V * s->pad, stats + ROW_V * d, (size_t)d * sizeof(float));
    for (int64_t i = 0; i < d; i++)
        for (int64_t j = 0; j < d; j++) matrix[j * s->pad + i] = stats[(ROW_MATRIX + i) * d + j];
}

/* g = dy o and do = dy mix of `count` tokens of a head, and the copy of v: g and v (count, pad) */
ALWAYS_INLINE void gate_gradient(const AttentionSize *s, const Attention *a, int64_t token, int64_t channel, int count,
                                 float *g, float *v) {
    int64_t at = token * s->channels + channel, gate = (token * 4 + 3) * s->channels + channel;
    for (int i = 0; i < count; i++, at += s->channels, gate += 4 * s->channels, g += s->pad, v += s->pad) {
        for (int j = 0; j < s->pad; j += VL) {
            prefetch(s, a->qkvo + gate - s->channels + j);
            prefetch(s, a->qkvo + gate + j);
            vf dy = load_lanes(s, a->dy + at, j);
            vf_store(v + j, load_lanes(s, a->qkvo + gate - s->channels, j));
            vf_store(g + j, dy * load_lanes(s, a->qkvo + gate, j));
            if (!a->dqkvo) continue;
            prefetch_write(s, a->dqkvo + gate + j);
            store_lanes(s, a->dqkvo + gate, j, dy * load_lanes(s, a->old_mix + at, j));
        }
    }
}

/* A tile of queries in the middle of its gradient; matrices are (tile, pad). */
typedef struct {
    _Alignas(64) float turned[TILE_FLOATS]; /* R phi(q) */
    _Alignas(64) float plain[TILE_FLOATS];  /* phi(q) */
    _Alignas(64) float kv_g[TILE_FLOATS];   /* kv g */
    _Alignas(64) float scaled[TILE_FLOATS]; /* the factor of r times g */
    float z[MAX_TILE_TOKENS];
} QueryTile;

/* dq of `count` tokens; adds their share to the gradients of mean phi(k) and mean(v) */
ALWAYS_INLINE void finish_queries(const AttentionSize *s, QueryTile *q, const float *g, const float *state, float *sums,
                                  float *dq, Cursor at, int count) {
    const int pad = s->pad;
    const float *mean_k = state + ROW_K * pad, *mean_v = state + ROW_V * pad;
    for (int i = 0; i < count; i++, cursor_step(s, &at), g += pad, dq += 4 * s->channels) {
        const float *turned = q->turned + i * pad, *plain = q->plain + i * pad, *kv_g = q->kv_g + i * pad;
        Factors f = factors(s->kind, q->z[i]);
        Rope rope = rope_at(s, &at);
        vf slope = vf_set(0);
        for (int j = 0; j < pad; j += VL) {
            vf gj = vf_load(g + j);
            slope += vf_load(turned + j) * vf_load(kv_g + j) * f.r_slope + gj * vf_load(mean_v + j) * f.v_slope;
            vf_store(q->scaled + i * pad + j, gj * f.r);
            vf_store(sums + ROW_V * pad + j, vf_load(sums + ROW_V * pad + j) + gj * f.v);
            prefetch_write(s, dq + j);
        }
        float dz = s->scale * vf_sum(slope);
        for (int j = 0; j < pad; j += VL) {
            vf x = vf_load(plain + j);
            vf dx = rope_turn_back(&rope, j, vf_load(kv_g + j)) * f.r + vf_load(mean_k + j) * dz;
            store_lanes(s, dq, j, dx * phi_slope(x));
            vf_store(sums + ROW_K * pad + j, vf_load(sums + ROW_K * pad + j) + x * dz);
        }
    }
}

ALWAYS_INLINE void query_chunk(const AttentionSize *s, const Task *t, int index) {
    const int pad = s->pad;
    QueryTile q;
    Place p = place_of(s, index, s->chunks);
    const float *state = sums_of(s, t->state, p.head);
    float *sums = sums_of(s, t->parts, index);
    memset(sums, 0, sums_size(s) * sizeof(float));
    int64_t token = p.token;
    for (int i = p.y0 * s->width, end = p.y1 * s->width; i < end; i += s->tile) {
        const int count = MIN(s->tile, end - i);
        float *g = head_row(s, t->g, p.head, i);
        gate_gradient(s, t->a, token, p.channel, count, g, head_row(s, t->v, p.head, i));
        const int64_t at = token * 4 * s->channels + p.channel;
        token += count;
        if (!t->a->dqkvo) continue;
        pack_queries(s, t->a->qkvo + at, cursor_at(s, i), count, state + ROW_K * pad, q.turned, q.plain, q.z);
        gemm_nn(q.kv_g, pad, g, pad, state + ROW_MATRIX * pad, pad, count, pad, s->dim, false);
        finish_queries(s, &q, g, state, sums, t->a->dqkvo + at, cursor_at(s, i), count);
        gemm_tn(sums + ROW_MATRIX * pad, pad, q.turned, pad, q.scaled, pad, s->dim, pad, count, true);
    }
}

static void query_gradient(void *arg, int index, int thread) {
    (void)thread;
    const Task *t = arg;
    FOR_HEAD(t->s, query_chunk, t, index);
}

/* dstate of a head: the three sums' gradients, each over N as its uses want it, and the matrix transposed */
static void reduce_queries(void *arg, int head, int thread) {
    (void)thread;
    const Task *t = arg;
    const AttentionSize *s = &t->s;
    float *dstate = sums_of(s, t->dstate, head), *matrix = dstate + ROW_MATRIX * s->pad;
    float *transposed = t->dmatrix + (int64_t)head * s->dim * s->pad;
    for (int row = 0; row < ROW_MATRIX + s->dim; row++)
        reduce_row(t, dstate + row * s->pad, head, row, (row < ROW_MATRIX ? 1 : s->scale) / (float)s->tokens);
    memset(transposed, 0, (size_t)s->dim * (size_t)s->pad * sizeof(float));
    for (int i = 0; i < s->dim; i++)
        for (int j = 0; j < s->dim; j++) transposed[j * s->pad + i] = matrix[i * s->pad + j];
}

/* dk and dv of `count` tokens. from_v = v dkv^T and from_k = R phi(k) dkv, (count, pad); the convolution's share of dv
 * is there already. */
ALWAYS_INLINE void finish_keys(const AttentionSize *s, const float *plain, const float *from_v, const float *from_k,
                               const float *dstate, float *dk, Cursor at, int count) {
    const int pad = s->pad;
    for (int i = 0; i < count; i++, cursor_step(s, &at), dk += 4 * s->channels) {
        Rope rope = rope_at(s, &at);
        float *dv = dk + s->channels;
        for (int j = 0; j < pad; j += VL) {
            vf dx = rope_turn_back(&rope, j, vf_load(from_v + i * pad + j)) + vf_load(dstate + ROW_K * pad + j);
            prefetch_write(s, dk + j);
            store_lanes(s, dk, j, dx * phi_slope(vf_load(plain + i * pad + j)));
            vf dvj = vf_load(from_k + i * pad + j) + vf_load(dstate + ROW_V * pad + j);
            store_lanes(s, dv, j, load_lanes(s, dv, j) + dvj);
        }
    }
}

ALWAYS_INLINE void key_chunk(const AttentionSize *s, const Task *t, int index) {
    const Attention *a = t->a;
    const int pad = s->pad;
    _Alignas(64) float turned[TILE_FLOATS], plain[TILE_FLOATS], from_v[TILE_FLOATS], from_k[TILE_FLOATS];
    float z[MAX_TILE_TOKENS];
    Place p = place_of(s, index, s->chunks);
    if (a->tap_parts) local_taps_gradient(a, t->v, t->g, &p, index % s->chunks);
    if (!a->dqkvo) return;
    local_rows_gradient(a, t->g, &p);
    const float *dstate = sums_of(s, t->dstate, p.head), *transposed = t->dmatrix + p.head * s->dim * pad;
    int64_t at = (p.token * 4 + 1) * s->channels + p.channel;
    for (int i = p.y0 * s->width, end = p.y1 * s->width; i < end; i += s->tile) {
        const int count = MIN(s->tile, end - i);
        /* a key is packed as a query is; its z means nothing */
        pack_queries(s, a->qkvo + at, cursor_at(s, i), count, dstate + ROW_K * pad, turned, plain, z);
        gemm_nn(from_v, pad, head_row(s, t->v, p.head, i), pad, transposed, pad, count, pad, s->dim, false);
        gemm_nn(from_k, pad, turned, pad, dstate + ROW_MATRIX * pad, pad, count, pad, s->dim, false);
        finish_keys(s, plain, from_v, from_k, dstate, a->dqkvo + at, cursor_at(s, i), count);
        at += (int64_t)count * 4 * s->channels;
    }
}

static void key_gradient(void *arg, int index, int thread) {
    (void)thread;
    const Task *t = arg;
    FOR_HEAD(t->s, key_chunk, t, index);
}

void attention_linear_backward(const Attention *a) {
    Task t;
    task_make(&t, a, &a->size, a->work, true);
    const int heads = a->size.batch * a->size.heads;
    if (a->dqkvo) parallel_for(heads, load_state, &t);
    parallel_for(heads * a->size.chunks, query_gradient, &t);
    if (a->dqkvo) parallel_for(heads, reduce_queries, &t);
    parallel_for(heads * a->size.chunks, key_gradient, &t);
}
