/* norm.c - LayerNorm and BatchNorm. Rows are cut into chunks by shape alone; a chunk is a task, and sums over rows are
 * made of one partial per chunk, added in the order of chunks. Inside a chunk four rows are worked on together: they
 * share the loads of per-channel vectors, and their sums do not wait for one another. */
#include "backend/cpu/simd/math.h"

enum { TOGETHER = 4, MAX_CHUNKS = 64, CHUNK_ELEMENTS = 8192 };

static int chunks_of(int64_t rows, int64_t channels) {
    int64_t n = rows * channels / CHUNK_ELEMENTS;
    return (int)MAX(1, MIN(MIN(n, MAX_CHUNKS), CEIL_DIV(rows, TOGETHER)));
}

/* The first row of a chunk; chunk == chunks gives the end. A multiple of TOGETHER, but for the end. */
static int64_t chunk_start(int64_t rows, int chunks, int chunk) {
    return MIN(rows, CEIL_DIV(rows, TOGETHER) * chunk / chunks * TOGETHER);
}

/* The first n lanes; whole vectors, the usual case, without a detour. */
ALWAYS_INLINE vf load(const float *p, int64_t n) { return n == VL ? vf_load(p) : vf_load_part(p, n); }
ALWAYS_INLINE void store(float *p, vf v, int64_t n) {
    if (n == VL)
        vf_store(p, v);
    else
        vf_store_part(p, v, n);
}
/* the other lanes 0 */
ALWAYS_INLINE vf only(vf v, int64_t n) {
    if (n == VL) return v;
    float lane[VL];
    vf_store(lane, v);
    return vf_load_part(lane, n);
}

/* ---- LayerNorm ---- */

typedef struct {
    const float *dy, *x, *g, *b, *saved_mean, *saved_rstd; /* dy and saved_*: backward; b: forward */
    float *y, *mean, *rstd;                                /* forward; y is dx in the backward pass */
    float *parts;                                          /* backward: (chunks, 2, C), dg and db */
    int64_t rows, channels;
    int chunks;
    float eps;
} LayerNorm;

/* R rows from `row` on. */
ALWAYS_INLINE void layer_norm_rows(const LayerNorm *t, int64_t row, const int R) {
    const int64_t C = t->channels;
    const float *x = t->x + row * C;
    const float share = 1 / (float)C;
    float mean[TOGETHER], rstd[TOGETHER];
    vf sum[TOGETHER] = {{0}}, squares[TOGETHER] = {{0}};
    for (int64_t c = 0; c < C; c += VL) {
        const int64_t n = MIN(VL, C - c);
        UNROLL for (int r = 0; r < R; r++) sum[r] += load(x + r * C + c, n);
    }
    UNROLL for (int r = 0; r < R; r++) mean[r] = vf_sum(sum[r]) * share;
    for (int64_t c = 0; c < C; c += VL) {
        const int64_t n = MIN(VL, C - c);
        UNROLL for (int r = 0; r < R; r++) {
            vf d = only(load(x + r * C + c, n) - mean[r], n);
            squares[r] += d * d;
            __builtin_prefetch(x + (r + R) * C + c); /* the next rows, while the sums of these are waited for */
        }
    }
    UNROLL for (int r = 0; r < R; r++) rstd[r] = vf_sum(squares[r]) * share + t->eps;
    UNROLL for (int r = 0; r < R; r++) rstd[r] = 1 / sqrtf(rstd[r]);
    for (int r = 0; r < R && t->mean; r++) t->mean[row + r] = mean[r];
    for (int r = 0; r < R && t->rstd; r++) t->rstd[row + r] = rstd[r];
    float *y = t->y + row * C;
    for (int64_t c = 0; t->y && c < C; c += VL) {
        const int64_t n = MIN(VL, C - c);
        vf g = load(t->g + c, n), b = load(t->b + c, n);
        UNROLL for (int r = 0; r < R; r++) {
            vf h = (load(x + r * C + c, n) - mean[r]) * rstd[r];
            store(y + r * C + c, h * g + b, n);
        }
    }
}

static void layer_norm_chunk(void *arg, int chunk, int thread) {
    (void)thread;
    const LayerNorm *t = arg;
    const int64_t end = chunk_start(t->rows, t->chunks, chunk + 1);
    int64_t row = chunk_start(t->rows, t->chunks, chunk);
    for (; row + TOGETHER <= end; row += TOGETHER) layer_norm_rows(t, row, TOGETHER);
    for (; row < end; row++) layer_norm_rows(t, row, 1);
}

RUN(layer_norm) {
    const Shape *x = call_in(call, 0);
    LayerNorm t = {.x = call->in[0], .g = call->in[1], .b = call->in[2],
                   .y = call->out[0], .mean = call->out[1], .rstd = call->out[2],
                   .rows = shape_rows(x), .channels = shape_last(x), .eps = call->node->attr.norm.eps};
    t.chunks = chunks_of(t.rows, t.channels);
    parallel_for(t.chunks, layer_norm_chunk, &t);
}
KERNEL(layer_norm, .workspace = NULL);

/* R rows from `row` on; dg and db (C) are added to. */
ALWAYS_INLINE void layer_norm_bwd_rows(const LayerNorm *t, float *dg, float *db, int64_t row, const int R) {
    const int64_t C = t->channels;
    const float *x = t->x + row * C, *dy = t->dy + row * C;
    const float *mean = t->saved_mean + row, *rstd = t->saved_rstd + row;
    vf sum[TOGETHER] = {{0}}, sum_h[TOGETHER] = {{0}};
    for (int64_t c = 0; c < C; c += VL) {
        const int64_t n = MIN(VL, C - c);
        vf g = load(t->g + c, n), gain = vf_set(0), bias = vf_set(0);
        UNROLL for (int r = 0; r < R; r++) {
            vf d = load(dy + r * C + c, n), dh = d * g, h = (load(x + r * C + c, n) - mean[r]) * rstd[r];
            sum[r] += dh;
            sum_h[r] += dh * h;
            gain += d * h;
            bias += d;
        }
        store(dg + c, load(dg + c, n) + gain, n);
        store(db + c, load(db + c, n) + bias, n);
    }
    if (!t->y) return;
    const float share = 1 / (float)C;
    float mean_dh[TOGETHER], mean_dhh[TOGETHER];
    UNROLL for (int r = 0; r < R; r++) {
        mean_dh[r] = vf_sum(sum[r]) * share;
        mean_dhh[r] = vf_sum(sum_h[r]) * share;
    }
    float *dx = t->y + row * C;
    for (int64_t c = 0; c < C; c += VL) {
        const int64_t n = MIN(VL, C - c);
        vf g = load(t->g + c, n);
        UNROLL for (int r = 0; r < R; r++) {
            vf h = (load(x + r * C + c, n) - mean[r]) * rstd[r];
            store(dx + r * C + c, (load(dy + r * C + c, n) * g - mean_dh[r] - h * mean_dhh[r]) * rstd[r], n);
        }
    }
}

static void layer_norm_bwd_chunk(void *arg, int chunk, int thread) {
    (void)thread;
    const LayerNorm *t = arg;
    float *dg = t->parts + 2 * t->channels * chunk, *db = dg + t->channels;
    memset(dg, 0, (size_t)(2 * t->channels) * sizeof *dg);
    const int64_t end = chunk_start(t->rows, t->chunks, chunk + 1);
    int64_t row = chunk_start(t->rows, t->chunks, chunk);
    for (; row + TOGETHER <= end; row += TOGETHER) layer_norm_bwd_rows(t, dg, db, row, TOGETHER);
    for (; row < end; row++) layer_norm_bwd_rows(t, dg, db, row, 1);
}

/* a and b (C), either NULL, from partials (chunks, 2, C). */
static void sum_parts(float *a, float *b, const float *parts, int chunks, int64_t channels) {
    for (int half = 0; half < 2; half++) {
        float *out = half ? b : a;
        if (!out) continue;
        memset(out, 0, (size_t)channels * sizeof *out);
        for (int i = 0; i < chunks; i++)
            for (int64_t c = 0; c < channels; c++) out[c] += parts[(2 * i + half) * channels + c];
    }
}

static size_t layer_norm_bwd_work(const Graph *g, const Node *n) {
    const Shape *x = in_shape(g, n, 1);
    int64_t channels = shape_last(x);
    return (size_t)chunks_of(shape_rows(x), channels) * 2 * (size_t)channels * sizeof(float);
}

RUN(layer_norm_bwd) {
    const Shape *x = call_in(call, 1);
    LayerNorm t = {.dy = call->in[0], .x = call->in[1], .g = call->in[2], .saved_mean = call->in[3],
                   .saved_rstd = call->in[4], .y = call->out[0], .parts = call->work,
                   .rows = shape_rows(x), .channels = shape_last(x)};
    t.chunks = chunks_of(t.rows, t.channels);
    parallel_for(t.chunks, layer_norm_bwd_chunk, &t);
    sum_parts(call->out[1], call->out[2], t.parts, t.chunks, t.channels);
}
KERNEL(layer_norm_bwd, .workspace = layer_norm_bwd_work);

/* ---- BatchNorm ---- */

typedef struct {
    const float *x, *dy;
    float *y; /* dx in the backward pass */
    const float *mean, *scale, *shift, *slope; /* (C), see apply_rows */
    const float *bias;                         /* (C), of a GELU's gradient; else NULL */
    bool gelu;                                 /* forward */
    float *parts;                              /* (chunks, 2, C) */
    int64_t rows, channels;
    int chunks;
} BatchNorm;

/* Rows that fit half of the first-level cache, so that a second look at them is free. */
static int64_t block_rows(int64_t channels) { return MAX(8, 4096 / channels); }

/* Of n channels over some rows: the sum (mean NULL), or the sum of squares around mean. */
ALWAYS_INLINE vf column_sum(const float *x, const vf *mean, int64_t rows, int64_t C, int64_t n) {
    vf acc[TOGETHER] = {{0}};
    int64_t row = 0;
    for (; row + TOGETHER <= rows; row += TOGETHER) {
        UNROLL for (int r = 0; r < TOGETHER; r++) {
            vf v = load(x + (row + r) * C, n);
            acc[r] += mean ? (v - *mean) * (v - *mean) : v;
        }
    }
    for (; row < rows; row++) {
        vf v = load(x + row * C, n);
        acc[0] += mean ? (v - *mean) * (v - *mean) : v;
    }
    return (acc[0] + acc[1]) + (acc[2] + acc[3]);
}

/* Mean and sum of squares around it, of each channel over the chunk's rows: exact in two passes for a block, and
 * blocks are joined by Chan's formula, which has no cancellation, unlike sums of x and x^2. */
static void batch_norm_statistics(void *arg, int chunk, int thread) {
    (void)thread;
    const BatchNorm *t = arg;
    const int64_t C = t->channels, first = chunk_start(t->rows, t->chunks, chunk);
    const int64_t end = chunk_start(t->rows, t->chunks, chunk + 1);
    float *mean = t->parts + 2 * C * chunk, *squares = mean + C;
    memset(mean, 0, (size_t)(2 * C) * sizeof *mean);
    for (int64_t row = first, rows; row < end; row += rows) {
        rows = MIN(block_rows(C), end - row);
        const float share = (float)rows / (float)(row - first + rows);
        const float spread = share * (float)(row - first);
        for (int64_t c = 0; c < C; c += VL) {
            const int64_t n = MIN(VL, C - c);
            const float *x = t->x + row * C + c;
            vf block_mean = column_sum(x, NULL, rows, C, n) / (float)rows;
            vf block_squares = column_sum(x, &block_mean, rows, C, n);
            vf delta = block_mean - load(mean + c, n);
            store(mean + c, load(mean + c, n) + delta * share, n);
            store(squares + c, load(squares + c, n) + block_squares + delta * delta * spread, n);
        }
    }
}

/* Joins the chunks' statistics (parts) into mean and population variance (C), in double. */
static void join_statistics(double *mean, double *var, const BatchNorm *t) {
    const int64_t C = t->channels;
    for (int64_t c = 0; c < C; c++) mean[c] = var[c] = 0;
    for (int chunk = 0; chunk < t->chunks; chunk++) {
        const int64_t before = chunk_start(t->rows, t->chunks, chunk), end = chunk_start(t->rows, t->chunks, chunk + 1);
        const double share = (double)(end - before) / (double)end, spread = share * (double)before;
        const float *part = t->parts + 2 * C * chunk;
        for (int64_t c = 0; c < C; c++) {
            double delta = part[c] - mean[c];
            mean[c] += delta * share;
            var[c] += part[C + c] + delta * delta * spread;
        }
    }
    for (int64_t c = 0; c < C; c++) var[c] /= (double)t->rows;
}

/* Forward: y = (x - mean) scale + shift, or the gelu of that. Backward: dx = (dy - shift - (x - mean) slope) scale,
 * where with gelu dy gelu'((x - mean) scale + bias) stands for dy. */
ALWAYS_INLINE void apply_rows(const BatchNorm *t, int64_t row, const int R, const bool gelu) {
    const int64_t C = t->channels;
    for (int64_t c = 0; c < C; c += VL) {
        const int64_t n = MIN(VL, C - c);
        vf mean = load(t->mean + c, n), scale = load(t->scale + c, n), shift = load(t->shift + c, n);
        vf slope = vf_set(0), bias = slope;
        if (t->dy) slope = load(t->slope + c, n);
        if (t->dy && gelu) bias = load(t->bias + c, n);
        UNROLL for (int r = 0; r < R; r++) {
            const int64_t at = (row + r) * C + c;
            vf d = load(t->x + at, n) - mean, y;
            if (t->dy) {
                y = load(t->dy + at, n);
                if (gelu) y *= vf_gelu_grad(d * scale + bias);
                y = (y - shift - d * slope) * scale;
            } else {
                y = d * scale + shift;
                if (gelu) y = vf_gelu(y);
            }
            store(t->y + at, y, n);
        }
    }
}

static void apply_chunk(void *arg, int chunk, int thread) {
    (void)thread;
    const BatchNorm *t = arg;
    const int64_t end = chunk_start(t->rows, t->chunks, chunk + 1);
    int64_t row = chunk_start(t->rows, t->chunks, chunk);
    for (; (t->gelu || t->bias) && row < end; row++) apply_rows(t, row, 1, true);
    for (; row + TOGETHER <= end; row += TOGETHER) apply_rows(t, row, TOGETHER, false);
    for (; row < end; row++) apply_rows(t, row, 1, false);
}

/* Partials (chunks, 2, C), then 2 vectors of C doubles or 3 of floats. */
static size_t batch_norm_work(const Graph *g, const Node *n) {
    const Shape *x = in_shape(g, n, 0);
    size_t channels = (size_t)shape_last(x), chunks = (size_t)chunks_of(shape_rows(x), shape_last(x));
    return 2 * chunks * channels * sizeof(float) + 5 * channels * sizeof(double);
}

RUN(batch_norm) {
    const Shape *shape = call_in(call, 0);
    const float *g = call->in[1], eps = call->node->attr.norm.eps, momentum = call->node->attr.norm.momentum;
    float *running_mean = call->in[3], *running_var = call->in[4];
    float *saved_mean = call->out[1], *saved_rstd = call->out[2];
    const int64_t rows = shape_rows(shape), C = shape_last(shape);
    double *mean = call->work, *var = mean + C;
    float *center = (float *)(var + C), *scale = center + C;
    BatchNorm t = {.x = call->in[0], .y = call->out[0], .mean = center, .scale = scale, .shift = call->in[2],
                   .gelu = call->node->attr.norm.gelu, .parts = scale + C, .rows = rows, .channels = C,
                   .chunks = chunks_of(rows, C)};
    parallel_for(t.chunks, batch_norm_statistics, &t);
    join_statistics(mean, var, &t);
    const double unbias = rows > 1 ? (double)rows / (double)(rows - 1) : 0;
    for (int64_t c = 0; c < C; c++) {
        float rstd = (float)(1 / sqrt(var[c] + eps));
        center[c] = (float)mean[c];
        scale[c] = rstd * g[c];
        if (saved_mean) saved_mean[c] = center[c];
        if (saved_rstd) saved_rstd[c] = rstd;
        if (!isfinite(var[c])) continue;
        running_mean[c] = (float)((1 - momentum) * running_mean[c] + momentum * mean[c]);
        running_var[c] = (float)((1 - momentum) * running_var[c] + momentum * var[c] * unbias);
    }
    if (t.y) parallel_for(t.chunks, apply_chunk, &t);
}
KERNEL(batch_norm, .workspace = batch_norm_work);

/* Sums of dy (x - mean) and of dy over the chunk's rows; gelu as in apply_rows. */
ALWAYS_INLINE void bwd_sums(const BatchNorm *t, int chunk, const bool gelu) {
    const int64_t C = t->channels, end = chunk_start(t->rows, t->chunks, chunk + 1);
    float *dg = t->parts + 2 * C * chunk, *db = dg + C;
    memset(dg, 0, (size_t)(2 * C) * sizeof *dg);
    for (int64_t first = chunk_start(t->rows, t->chunks, chunk), rows; first < end; first += rows) {
        rows = MIN(block_rows(C), end - first);
        for (int64_t c = 0; c < C; c += VL) {
            const int64_t n = MIN(VL, C - c);
            vf mean = load(t->mean + c, n), gain[2] = {{0}}, bias[2] = {{0}}, scale = mean, before = mean;
            if (gelu) scale = load(t->scale + c, n), before = load(t->bias + c, n);
            for (int64_t row = 0; row < rows; row++) {
                vf d = load(t->dy + (first + row) * C + c, n), h = load(t->x + (first + row) * C + c, n) - mean;
                if (gelu) d *= vf_gelu_grad(h * scale + before);
                gain[row & 1] += d * h;
                bias[row & 1] += d;
            }
            store(dg + c, load(dg + c, n) + (gain[0] + gain[1]), n);
            store(db + c, load(db + c, n) + (bias[0] + bias[1]), n);
        }
    }
}

static void batch_norm_bwd_sums(void *arg, int chunk, int thread) {
    (void)thread;
    const BatchNorm *t = arg;
    if (t->bias)
        bwd_sums(t, chunk, true);
    else
        bwd_sums(t, chunk, false);
}

RUN(batch_norm_bwd) {
    const Shape *shape = call_in(call, 1);
    const float *g = call->in[2], *rstd = call->in[4];
    const int64_t rows = shape_rows(shape), C = shape_last(shape);
    float *scale = call->work, *shift = scale + C, *slope = shift + C;
    BatchNorm t = {.dy = call->in[0], .x = call->in[1], .y = call->out[0], .mean = call->in[3],
                   .scale = scale, .shift = shift, .slope = slope, .bias = call->in[5], .parts = slope + C,
                   .rows = rows, .channels = C, .chunks = chunks_of(rows, C)};
    for (int64_t c = 0; c < C; c++) scale[c] = g[c] * rstd[c];
    parallel_for(t.chunks, batch_norm_bwd_sums, &t);
    sum_parts(slope, shift, t.parts, t.chunks, C);
    float *dg = call->out[1], *db = call->out[2];
    for (int64_t c = 0; c < C; c++) {
        float gain = slope[c] * rstd[c];
        if (dg) dg[c] = gain;
        if (db) db[c] = shift[c];
        shift[c] /= (float)rows;
        slope[c] = gain * rstd[c] / (float)rows;
    }
    if (t.y) parallel_for(t.chunks, apply_chunk, &t);
}
KERNEL(batch_norm_bwd, .workspace = batch_norm_work);

RUN(batch_norm_eval) {
    const Shape *shape = call_in(call, 0);
    const float *g = call->in[1], *running_var = call->in[4], eps = call->node->attr.norm.eps;
    const int64_t rows = shape_rows(shape), C = shape_last(shape);
    float *scale = call->work;
    if (!call->out[0]) return;
    for (int64_t c = 0; c < C; c++) scale[c] = g[c] / sqrtf(running_var[c] + eps);
    BatchNorm t = {.x = call->in[0], .y = call->out[0], .mean = call->in[3], .scale = scale, .shift = call->in[2],
                   .rows = rows, .channels = C, .chunks = chunks_of(rows, C)};
    parallel_for(t.chunks, apply_chunk, &t);
}
KERNEL(batch_norm_eval, .workspace = batch_norm_work);

RUN(fold_batch_norm) {
    const Shape *shape = call_in(call, 0);
    const float *w = call->in[0], *b = call->in[1], *g = call->in[2], *beta = call->in[3];
    const float *running_mean = call->in[4], *running_var = call->in[5], eps = call->node->attr.norm.eps;
    float *folded_w = call->out[0], *folded_b = call->out[1];
    const int64_t outs = shape->dim[0], each = shape_count(shape) / outs;
    for (int64_t o = 0; o < outs; o++) {
        const float scale = g[o] / sqrtf(running_var[o] + eps);
        if (folded_b) folded_b[o] = (b[o] - running_mean[o]) * scale + beta[o];
        for (int64_t i = o * each; folded_w && i < (o + 1) * each; i++) folded_w[i] = w[i] * scale;
    }
}
KERNEL(fold_batch_norm, .workspace = NULL);
