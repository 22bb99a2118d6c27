/* dwconv.c - depthwise convolution and its gradients: see dwconv.h for the row routines others share.
 *
 * Forward: a tile is up to 8 neighbouring outputs of one vector of channels. Every input of a tile's row is loaded
 * once and feeds up to k accumulators, and tiles are walked down a column, so that the rows which overlap are still
 * in the first-level cache although pixels lie a power of two apart. Gradient of the weights: the same with the taps
 * as accumulators. Kernels other than 3 and 5, and channels beyond the last whole vector, take the plain loops. */
#include "backend/cpu/simd/dwconv.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

enum { MAX_TILE = 8, MAX_TAPS = 5 * 5 };

void dwconv_transpose(float *wt, const float *w, int64_t channels, int kernel, bool flip) {
    int taps = kernel * kernel;
    for (int64_t c = 0; c < channels; c++)
        for (int t = 0; t < taps; t++) wt[(flip ? taps - 1 - t : t) * channels + c] = w[c * taps + t];
}

/* The i-th of n nearly equal pieces of a length starts here. */
static int piece(int length, int n, int i) { return (int)((int64_t)length * i / n); }

static bool inside(int i, int n) { return (unsigned)i < (unsigned)n; }

/* ---- forward ---- */

/* K*K*P multiply-adds: outputs (iy, ix .. ix + P). guard: some taps may fall outside of the picture. */
ALWAYS_INLINE void forward_tile(const DwconvRows *d, const float *x, float *y, const vf *w, vf bias, int iy, int ix,
                                const int K, const int P, const bool guard) {
    const int pad = K / 2;
    vf acc[MAX_TILE];
    UNROLL for (int j = 0; j < P; j++) acc[j] = bias;
    if (d->residual) {
        const float *center = x + ((int64_t)iy * d->width + ix) * d->x_stride;
        UNROLL for (int j = 0; j < P; j++) acc[j] += vf_load(center + j * d->x_stride);
    }
    UNROLL for (int ky = 0; ky < K; ky++) {
        if (guard && !inside(iy + ky - pad, d->height)) continue;
        const float *row = x + ((int64_t)(iy + ky - pad) * d->width + ix - pad) * d->x_stride;
        UNROLL for (int i = 0; i < P + K - 1; i++) {
            if (guard && !inside(ix + i - pad, d->width)) continue;
            vf v = vf_load(row + i * d->x_stride);
            UNROLL for (int kx = 0; kx < K; kx++)
                if (i - kx >= 0 && i - kx < P) acc[i - kx] += v * w[ky * K + kx];
        }
    }
    UNROLL for (int j = 0; j < P; j++) vf_store(y + j * d->y_stride, acc[j]);
}

/* Rows [y0, y1) of the columns ix .. ix + P, channels c .. c + VL. */
ALWAYS_INLINE void forward_column(const DwconvRows *d, int y0, int y1, int ix, int c, const int K, const int P) {
    const int pad = K / 2;
    vf w[MAX_TAPS], bias = d->bias ? vf_load(d->bias + c) : vf_set(0);
    UNROLL for (int t = 0; t < K * K; t++) w[t] = vf_load(d->wt + (int64_t)t * d->channels + c);
    bool whole_width = ix >= pad && ix + P + pad <= d->width;
    for (int iy = y0; iy < y1; iy++) {
        float *y = d->y + ((int64_t)(iy - y0) * d->width + ix) * d->y_stride + c;
        if (whole_width && iy >= pad && iy + pad < d->height)
            forward_tile(d, d->x + c, y, w, bias, iy, ix, K, P, false);
        else
            forward_tile(d, d->x + c, y, w, bias, iy, ix, K, P, true);
    }
}

/* column(..., K, P) with P as a constant: 1 <= width <= MAX_TILE. */
#define WIDTH_CASE(P, column, K, ...) \
    case P: column(__VA_ARGS__, K, P); break;
#define FOR_WIDTH(width, ...) \
    switch (width) { \
        WIDTH_CASE(1, __VA_ARGS__) \
        WIDTH_CASE(2, __VA_ARGS__) \
        WIDTH_CASE(3, __VA_ARGS__) \
        WIDTH_CASE(4, __VA_ARGS__) \
        WIDTH_CASE(5, __VA_ARGS__) \
        WIDTH_CASE(6, __VA_ARGS__) \
        WIDTH_CASE(7, __VA_ARGS__) \
        WIDTH_CASE(8, __VA_ARGS__) \
    }

static void forward_plain(const DwconvRows *d, int y0, int y1, int c0, int c1) {
    const int k = d->kernel, pad = k / 2;
    for (int iy = y0; iy < y1; iy++) {
        for (int ix = 0; ix < d->width; ix++) {
            float *y = d->y + ((int64_t)(iy - y0) * d->width + ix) * d->y_stride;
            const float *center = d->x + ((int64_t)iy * d->width + ix) * d->x_stride;
            for (int c = c0; c < c1; c++) y[c] = (d->bias ? d->bias[c] : 0) + (d->residual ? center[c] : 0);
            for (int t = 0; t < k * k; t++) {
                int sy = iy + t / k - pad, sx = ix + t % k - pad;
                if (!inside(sy, d->height) || !inside(sx, d->width)) continue;
                const float *x = d->x + ((int64_t)sy * d->width + sx) * d->x_stride;
                const float *w = d->wt + (int64_t)t * d->channels;
                for (int c = c0; c < c1; c++) y[c] += x[c] * w[c];
            }
        }
    }
}

void dwconv_rows(const DwconvRows *d, int y0, int y1, int c0, int c1) {
    int c = c0, tiles = CEIL_DIV(d->width, MAX_TILE);
    if (d->kernel == 3 || d->kernel == 5) {
        for (; c + VL <= c1; c += VL) {
            for (int i = 0; i < tiles; i++) {
                int ix = piece(d->width, tiles, i), width = piece(d->width, tiles, i + 1) - ix;
                if (d->kernel == 3) {
                    FOR_WIDTH(width, forward_column, 3, d, y0, y1, ix, c)
                } else {
                    FOR_WIDTH(width, forward_column, 5, d, y0, y1, ix, c)
                }
            }
        }
    }
    if (c < c1) forward_plain(d, y0, y1, c, c1);
}

/* ---- gradient of the weights ---- */

/* Rows of taps whose accumulators fit the registers together, and the width of a tile beside them. */
#if VL == 16
#define TAP_ROWS(K) (K)
#define DW_TILE(K) ((K) == 3 ? 8 : 4)
#else
#define TAP_ROWS(K) ((K) == 3 ? 3 : 2)
#define DW_TILE(K) 4
#endif

/* acc[R * K] += taps ky0 .. ky0 + R of outputs (iy, ix .. ix + P); sum += their dy. */
ALWAYS_INLINE void dw_tile(const DwconvDwRows *d, vf *acc, vf *sum, const float *dy, const float *x, int iy, int ix,
                           int ky0, const int K, const int R, const int P, const bool guard) {
    const int pad = K / 2;
    const int64_t pitch = d->width * d->x_stride;
    const float *row = x + ((int64_t)(iy + ky0 - pad) * d->width + ix - pad) * d->x_stride;
    vf g[MAX_TILE];
    UNROLL for (int j = 0; j < P; j++) *sum += g[j] = vf_load(dy + j * d->dy_stride);
    UNROLL for (int i = 0; i < P + K - 1; i++) {
        if (guard && !inside(ix + i - pad, d->width)) continue;
        UNROLL for (int r = 0; r < R; r++) {
            if (guard && !inside(iy + ky0 + r - pad, d->height)) continue;
            vf v = vf_load(row + r * pitch + i * d->x_stride);
            UNROLL for (int kx = 0; kx < K; kx++)
                if (i - kx >= 0 && i - kx < P) acc[r * K + kx] += v * g[i - kx];
        }
    }
}

/* Rows [y0, y1) of the columns ix .. ix + P, channels c .. c + VL, taps ky0 .. ky0 + R. The accumulators start from
 * zero for each column: besides saving registers, short sums lose less than long ones. */
ALWAYS_INLINE void dw_column(const DwconvDwRows *d, int y0, int y1, int ix, int c, int ky0, const int R, const int K,
                             const int P) {
    const int pad = K / 2;
    vf acc[MAX_TAPS], sum = vf_set(0);
    UNROLL for (int t = 0; t < R * K; t++) acc[t] = vf_set(0);
    bool whole_width = ix >= pad && ix + P + pad <= d->width;
    for (int iy = y0; iy < y1; iy++) {
        const float *dy = d->dy + ((int64_t)(iy - y0) * d->width + ix) * d->dy_stride + c;
        if (whole_width && iy + ky0 >= pad && iy + ky0 + R - 1 - pad < d->height)
            dw_tile(d, acc, &sum, dy, d->x + c, iy, ix, ky0, K, R, P, false);
        else
            dw_tile(d, acc, &sum, dy, d->x + c, iy, ix, ky0, K, R, P, true);
    }
    UNROLL for (int t = 0; t < R * K; t++) {
        float *dw = d->dw + (int64_t)(ky0 * K + t) * d->channels + c;
        vf_store(dw, vf_load(dw) + acc[t]);
    }
    if (d->db && ky0 == 0) vf_store(d->db + c, vf_load(d->db + c) + sum);
}

ALWAYS_INLINE void dw_columns(const DwconvDwRows *d, int y0, int y1, int c, const int K) {
    const int R = TAP_ROWS(K), tiles = CEIL_DIV(d->width, DW_TILE(K));
    for (int ky0 = 0; ky0 < K; ky0 += R) {
        for (int i = 0; i < tiles; i++) {
            int ix = piece(d->width, tiles, i), width = piece(d->width, tiles, i + 1) - ix;
            if (ky0 + R <= K) {
                FOR_WIDTH(width, dw_column, K, d, y0, y1, ix, c, ky0, R)
            } else {
                FOR_WIDTH(width, dw_column, K, d, y0, y1, ix, c, ky0, K % R)
            }
        }
    }
}

static void dw_plain(const DwconvDwRows *d, int y0, int y1, int c0, int c1) {
    const int k = d->kernel, pad = k / 2;
    for (int iy = y0; iy < y1; iy++) {
        for (int ix = 0; ix < d->width; ix++) {
            const float *dy = d->dy + ((int64_t)(iy - y0) * d->width + ix) * d->dy_stride;
            for (int t = 0; t < k * k; t++) {
                int sy = iy + t / k - pad, sx = ix + t % k - pad;
                if (!inside(sy, d->height) || !inside(sx, d->width)) continue;
                const float *x = d->x + ((int64_t)sy * d->width + sx) * d->x_stride;
                float *dw = d->dw + (int64_t)t * d->channels;
                for (int c = c0; c < c1; c++) dw[c] += dy[c] * x[c];
            }
            for (int c = c0; d->db && c < c1; c++) d->db[c] += dy[c];
        }
    }
}

void dwconv_dw_rows(const DwconvDwRows *d, int y0, int y1, int c0, int c1) {
    int c = c0;
    if (d->kernel == 3)
        for (; c + VL <= c1; c += VL) dw_columns(d, y0, y1, c, 3);
    if (d->kernel == 5)
        for (; c + VL <= c1; c += VL) dw_columns(d, y0, y1, c, 5);
    if (c < c1) dw_plain(d, y0, y1, c, c1);
}

void dwconv_dw_sum(float *dw, float *db, const float *parts, int n, int kernel, int channels, int c0, int c1) {
    const int taps = kernel * kernel;
    for (int t = 0; t <= taps; t++) {
        float *out = t < taps ? dw : db;
        int64_t step = t < taps ? taps : 1;
        if (!out) continue;
        if (t < taps) out += t;
        for (int c = c0; c < c1; c++) {
            float sum = 0;
            for (int i = 0; i < n; i++) sum += parts[((int64_t)i * (taps + 1) + t) * channels + c];
            out[c * step] = sum;
        }
    }
}

/* ---- the kernels ---- */

/* Rows of a band: enough to reuse the rows which overlap, and 8 pictures of the smallest map still make 16 tasks. */
static int bands(int height) { return height > 14 ? CEIL_DIV(height, 8) : height > 1 ? 2 : 1; }

typedef struct {
    DwconvRows rows;
    int bands;
} ForwardTask;

static void forward_task(void *arg, int index, int thread) {
    (void)thread;
    const ForwardTask *task = arg;
    DwconvRows d = task->rows;
    int image = index / task->bands, band = index % task->bands;
    int y0 = piece(d.height, task->bands, band), y1 = piece(d.height, task->bands, band + 1);
    int64_t pixels = (int64_t)d.height * d.width;
    d.x += image * pixels * d.x_stride;
    d.y += (image * pixels + (int64_t)y0 * d.width) * d.y_stride;
    dwconv_rows(&d, y0, y1, 0, d.channels);
}

static void forward(const KernelCall *call, const float *bias, bool flip) {
    const Shape *x = call_in(call, 0);
    int channels = (int)x->dim[3], kernel = call->node->attr.dwconv.kernel;
    if (!call->out[0]) return;
    dwconv_transpose(call->work, call->in[1], channels, kernel, flip);
    ForwardTask task = {
        .rows = {.x = call->in[0], .x_stride = channels, .y = call->out[0], .y_stride = channels, .wt = call->work,
                 .bias = bias, .residual = call->node->attr.dwconv.residual, .kernel = kernel,
                 .height = (int)x->dim[1], .width = (int)x->dim[2], .channels = channels},
        .bands = bands((int)x->dim[1])};
    parallel_for((int)x->dim[0] * task.bands, forward_task, &task);
}

static size_t forward_work(const Graph *g, const Node *n) {
    return (size_t)shape_count(in_shape(g, n, 1)) * sizeof(float);
}

RUN(dwconv) { forward(call, call->in[2], false); }
KERNEL(dwconv, .workspace = forward_work);

RUN(dwconv_dx) { forward(call, NULL, true); }
KERNEL(dwconv_dx, .workspace = forward_work);

/* The sum over B*H*W is cut twice: into groups of channels, which are independent, and into chunks of rows, each with
 * a partial gradient of its own. */
typedef struct {
    const float *dy, *x;
    float *dw, *db, *parts;
    int batch, height, width, channels, kernel;
    int groups, chunks, bands;
} DwTask;

enum { GROUP = 64, DW_TASKS = 32 };

static DwTask dw_task_of(const Graph *g, const Node *n) {
    const Shape *x = in_shape(g, n, 1);
    DwTask t = {.batch = (int)x->dim[0], .height = (int)x->dim[1], .width = (int)x->dim[2], .channels = (int)x->dim[3],
                .kernel = n->attr.dwconv.kernel};
    t.groups = CEIL_DIV(t.channels, GROUP);
    t.bands = CEIL_DIV(t.height, 14);
    t.chunks = MIN(t.batch * t.bands, CEIL_DIV(DW_TASKS, t.groups));
    return t;
}

static void dw_chunk(void *arg, int index, int thread) {
    (void)thread;
    const DwTask *t = arg;
    const int taps = t->kernel * t->kernel, chunk = index / t->groups, group = index % t->groups;
    const int c0 = group * GROUP, c1 = MIN(c0 + GROUP, t->channels), units = t->batch * t->bands;
    float *part = t->parts + (int64_t)chunk * (taps + 1) * t->channels;
    for (int i = 0; i <= taps; i++) memset(part + (int64_t)i * t->channels + c0, 0, (size_t)(c1 - c0) * sizeof *part);
    for (int unit = piece(units, t->chunks, chunk); unit < piece(units, t->chunks, chunk + 1); unit++) {
        int image = unit / t->bands, band = unit % t->bands;
        int y0 = piece(t->height, t->bands, band), y1 = piece(t->height, t->bands, band + 1);
        int64_t picture = (int64_t)image * t->height * t->width * t->channels;
        DwconvDwRows d = {.dy = t->dy + picture + (int64_t)y0 * t->width * t->channels, .dy_stride = t->channels,
                          .x = t->x + picture, .x_stride = t->channels,
                          .dw = part, .db = part + (int64_t)taps * t->channels,
                          .kernel = t->kernel, .height = t->height, .width = t->width, .channels = t->channels};
        dwconv_dw_rows(&d, y0, y1, c0, c1);
    }
}

static void dw_sum_group(void *arg, int index, int thread) {
    (void)thread;
    const DwTask *t = arg;
    dwconv_dw_sum(t->dw, t->db, t->parts, t->chunks, t->kernel, t->channels, index * GROUP,
                  MIN((index + 1) * GROUP, t->channels));
}

static size_t dw_work(const Graph *g, const Node *n) {
    DwTask t = dw_task_of(g, n);
    return (size_t)t.chunks * (size_t)(t.kernel * t.kernel + 1) * (size_t)t.channels * sizeof(float);
}

RUN(dwconv_dw) {
    DwTask t = dw_task_of(call->graph, call->node);
    t.dy = call->in[0], t.x = call->in[1];
    t.dw = call->out[0], t.db = call->out[1];
    t.parts = call->work;
    if (!t.dw && !t.db) return;
    parallel_for(t.chunks * t.groups, dw_chunk, &t);
    parallel_for(t.groups, dw_sum_group, &t);
}
KERNEL(dwconv_dw, .workspace = dw_work);
