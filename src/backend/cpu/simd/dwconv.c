/* dwconv.c - depthwise convolution and its gradients: see dwconv.h for the row routines others share.
 *
 * Both directions go down a column of the picture, a few pixels wide and one vector of channels deep, and load every
 * input of it once: forward, an input feeds the k rows of outputs around it, which are all in registers; for the
 * weights, the last rows of dy and the gradients of the taps are. A second look at an input would often be a miss of
 * the first-level cache, however small the picture: pixels lie a power of two apart and share a few of its sets.
 * A GELU before the convolution is taken of a band's rows, GROUP channels at a time, into scratch memory that stays in
 * the second-level cache; the rows above and below a band are taken twice, which costs less than storing gelu(x).
 *
 * Kernels other than 3 and 5, and channels beyond the last whole vector, take plain loops. */
#include "backend/cpu/simd/dwconv.h"
#include "backend/cpu/simd/math.h"

/* Widths of columns that fit the registers, 32 of them where VL is 16, else taken to be 16. Forward: k rows of outputs,
 * a row of inputs. Weights: TAP_ROWS rows of dy and as many times k taps; the taps are done in two or three goes. */
#if VL == 16
enum { TILE_3 = 7, TILE_5 = 4, DW_TILE_3 = 7, DW_TILE_5 = 4, TAP_ROWS = 3 };
#else
enum { TILE_3 = 3, TILE_5 = 2, DW_TILE_3 = 4, DW_TILE_5 = 2, TAP_ROWS = 2 };
#endif
enum { MAX_KERNEL = 5, MAX_TAPS = MAX_KERNEL * MAX_KERNEL, MAX_TILE = 7 };

void dwconv_transpose(float *wt, const float *w, int64_t channels, int kernel, bool flip) {
    const int taps = kernel * kernel;
    /* blocks of channels, so that neither side strides through memory */
    for (int64_t c0 = 0; c0 < channels; c0 += VL)
        for (int t = 0; t < taps; t++)
            for (int64_t c = c0; c < MIN(c0 + VL, channels); c++)
                wt[(flip ? taps - 1 - t : t) * channels + c] = w[c * taps + t];
}

/* The i-th of n nearly equal pieces of a length starts here. */
static int piece(int length, int n, int i) { return (int)((int64_t)length * i / n); }

static bool inside(int i, int n) { return (unsigned)i < (unsigned)n; }

/* ---- forward ---- */

/* Columns ix .. ix + P of rows [y0, y1), channels c .. c + VL. Goes down the column of inputs once: each row of
 * P + K - 1 inputs is loaded once and feeds the K rows of outputs around it, which are all in registers. */
ALWAYS_INLINE void forward_column(const DwconvRows *d, int y0, int y1, int ix, int c, const int K, const int P) {
    const int pad = K / 2;
    vf w[MAX_TAPS], acc[MAX_KERNEL][MAX_TILE], in[MAX_TILE + MAX_KERNEL - 1];
    const vf bias = d->bias ? vf_load(d->bias + c) : vf_set(0);
    UNROLL for (int t = 0; t < K * K; t++) w[t] = vf_load(d->wt + (int64_t)t * d->channels + c);
    UNROLL for (int r = 0; r < K; r++) {
        UNROLL for (int j = 0; j < P; j++) acc[r][j] = bias;
    }
    for (int iy = y0 - pad; iy < y1 + pad; iy++) {
        if (inside(iy, d->height)) {
            const float *x = d->x + ((int64_t)iy * d->width + ix - pad) * d->x_stride + c;
            UNROLL for (int i = 0; i < P + K - 1; i++) {
                in[i] = inside(ix - pad + i, d->width) ? vf_load(x) : vf_set(0);
                x += d->x_stride;
            }
            /* acc[r] is row iy - pad + r of the output */
            UNROLL for (int r = 0; r < K; r++) {
                if (iy - pad + r < y0 || iy - pad + r >= y1) continue;
                UNROLL for (int kx = 0; kx < K; kx++) {
                    UNROLL for (int j = 0; j < P; j++) acc[r][j] += in[j + kx] * w[(K - 1 - r) * K + kx];
                }
            }
            if (d->residual) {
                UNROLL for (int j = 0; j < P; j++) acc[pad][j] += in[j + pad];
            }
        }
        if (iy - pad >= y0) {
            float *y = d->y + ((int64_t)(iy - pad - y0) * d->width + ix) * d->y_stride + c;
            UNROLL for (int j = 0; j < P; j++) {
                vf_store(y, acc[0][j]);
                y += d->y_stride;
            }
        }
        UNROLL for (int j = 0; j < P; j++) {
            UNROLL for (int r = 0; r < K - 1; r++) acc[r][j] = acc[r + 1][j];
            acc[K - 1][j] = bias;
        }
    }
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

/* A call with the width as a constant, so that the column's arrays become registers. */
#define TILE(P, K) \
    case P: forward_column(d, y0, y1, ix, c, K, MIN(P, TILE_##K)); break;

void dwconv_rows(const DwconvRows *d, int y0, int y1, int c0, int c1) {
    int c = c0;
    const int tiles = CEIL_DIV(d->width, d->kernel == 3 ? TILE_3 : TILE_5);
    for (; (d->kernel == 3 || d->kernel == 5) && c + VL <= c1; c += VL) {
        for (int i = 0; i < tiles; i++) {
            const int ix = piece(d->width, tiles, i), width = piece(d->width, tiles, i + 1) - ix;
            if (d->kernel == 3) {
                switch (width) { TILE(1, 3) TILE(2, 3) TILE(3, 3) TILE(4, 3) TILE(5, 3) TILE(6, 3) TILE(7, 3) }
            } else {
                switch (width) { TILE(1, 5) TILE(2, 5) TILE(3, 5) TILE(4, 5) }
            }
        }
    }
    if (c < c1) forward_plain(d, y0, y1, c, c1);
}
#undef TILE

/* ---- gradient of the weights ---- */

/* Taps ky0 .. ky0 + R of columns ix .. ix + P, rows [y0, y1), channels c .. c + VL. Goes down the column of inputs
 * once, with R rows of dy and the gradients of R * K taps in registers: every input is loaded once and feeds up to
 * R * K of them. Gradients start from zero for each column: short sums lose less than long ones. */
ALWAYS_INLINE void dw_column(const DwconvDwRows *d, int y0, int y1, int ix, int c, int ky0, const int R, const int K,
                             const int P) {
    const int pad = K / 2;
    vf acc[MAX_TAPS], g[MAX_KERNEL][MAX_TILE], sum = vf_set(0);
    UNROLL for (int t = 0; t < R * K; t++) acc[t] = vf_set(0);
    UNROLL for (int r = 0; r < R; r++) {
        UNROLL for (int j = 0; j < P; j++) g[r][j] = vf_set(0);
    }
    for (int iy = y0 + ky0 - pad; iy < y1 + ky0 + R - 1 - pad; iy++) {
        /* g[r] is row iy + pad - ky0 - r of dy */
        const int newest = iy + pad - ky0;
        const float *dy = d->dy + ((int64_t)(newest - y0) * d->width + ix) * d->dy_stride + c;
        UNROLL for (int j = 0; j < P; j++) {
            UNROLL for (int r = R - 1; r > 0; r--) g[r][j] = g[r - 1][j];
            g[0][j] = newest < y1 ? vf_load(dy) : vf_set(0);
            sum += g[0][j];
            dy += d->dy_stride;
        }
        if (!inside(iy, d->height)) continue;
        const float *x = d->x + ((int64_t)iy * d->width + ix - pad) * d->x_stride + c;
        UNROLL for (int i = 0; i < P + K - 1; i++) {
            vf v = inside(ix - pad + i, d->width) ? vf_load(x) : vf_set(0);
            x += d->x_stride;
            UNROLL for (int r = 0; r < R; r++) {
                UNROLL for (int kx = 0; kx < K; kx++)
                    if (i - kx >= 0 && i - kx < P) acc[r * K + kx] += v * g[r][i - kx];
            }
        }
    }
    UNROLL for (int t = 0; t < R * K; t++) {
        float *dw = d->dw + (int64_t)(ky0 * K + t) * d->channels + c;
        vf_store(dw, vf_load(dw) + acc[t]);
    }
    if (d->db && ky0 == 0) vf_store(d->db + c, vf_load(d->db + c) + sum);
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

#define TILE(P, K) \
    case P: dw_column(d, y0, y1, ix, c, ky0, R, K, MIN(P, DW_TILE_##K)); break;

/* One column's taps ky0 .. ky0 + R of a k x k kernel. */
ALWAYS_INLINE void dw_taps(const DwconvDwRows *d, int y0, int y1, int ix, int width, int c, int ky0, const int R) {
    if (d->kernel == 3) {
        switch (width) { TILE(1, 3) TILE(2, 3) TILE(3, 3) TILE(4, 3) TILE(5, 3) TILE(6, 3) TILE(7, 3) }
    } else {
        switch (width) { TILE(1, 5) TILE(2, 5) TILE(3, 5) TILE(4, 5) }
    }
}
#undef TILE

void dwconv_dw_rows(const DwconvDwRows *d, int y0, int y1, int c0, int c1) {
    int c = c0;
    const int tiles = CEIL_DIV(d->width, d->kernel == 3 ? DW_TILE_3 : DW_TILE_5);
    for (; (d->kernel == 3 || d->kernel == 5) && c + VL <= c1; c += VL) {
        for (int i = 0; i < tiles; i++) {
            const int ix = piece(d->width, tiles, i), width = piece(d->width, tiles, i + 1) - ix;
            int ky0 = 0;
            for (; ky0 + TAP_ROWS <= d->kernel; ky0 += TAP_ROWS) dw_taps(d, y0, y1, ix, width, c, ky0, TAP_ROWS);
            if (ky0 < d->kernel) dw_taps(d, y0, y1, ix, width, c, ky0, 5 % TAP_ROWS);
        }
    }
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

/* ---- GELU ---- */

enum { GROUP = 64, FORWARD_PARTS = 32 };

/* Which of `parts` scratch memories a part may use: its thread's, so that those of the others are never touched, or
 * its own where there are more threads than parts. */
static int slot_of(int threads, int parts, int part, int thread) { return threads <= parts ? thread : part; }

/* gelu(x) of the rows that rows [y0, y1) of a convolution read, as a picture of its own with `channels` channels. */
typedef struct {
    int first, height; /* its rows are first .. first + height of the picture */
} GeluRows;

static GeluRows gelu_rows(float *to, const float *x, int64_t x_stride, int height, int width, int channels, int y0,
                          int y1, int pad) {
    const int first = MAX(0, y0 - pad), end = MIN(height, y1 + pad);
    x += (int64_t)first * width * x_stride;
    for (int64_t p = 0; p < (int64_t)(end - first) * width; p++, x += x_stride, to += channels) {
        int c = 0;
        for (; c + VL <= channels; c += VL) vf_store(to + c, vf_gelu(vf_load(x + c)));
        if (c < channels) vf_store_part(to + c, vf_gelu(vf_load_part(x + c, channels - c)), channels - c);
    }
    return (GeluRows){first, end - first};
}

/* floats of scratch memory for bands of at most `rows` rows */
static int64_t gelu_floats(int rows, int width, int channels, int kernel) {
    return ROUND_UP((int64_t)(rows + kernel - 1) * width * MIN(GROUP, channels), (int64_t)16);
}

/* dx *= gelu'(x), pixels of `channels` channels, `stride` floats apart in both */
static void times_gelu_grad(float *dx, const float *x, int64_t stride, int64_t pixels, int channels) {
    for (; pixels > 0; pixels--, x += stride, dx += stride) {
        int c = 0;
        for (; c + VL <= channels; c += VL) vf_store(dx + c, vf_load(dx + c) * vf_gelu_grad(vf_load(x + c)));
        if (c < channels) {
            const int rest = channels - c;
            vf_store_part(dx + c, vf_load_part(dx + c, rest) * vf_gelu_grad(vf_load_part(x + c, rest)), rest);
        }
    }
}

/* ---- the kernels ---- */

/* Rows of a band: enough to reuse the rows which overlap, and 8 pictures of the smallest map still make 16 tasks. */
static int bands(int height) { return height > 14 ? CEIL_DIV(height, 8) : height > 1 ? 2 : 1; }

typedef struct {
    DwconvRows rows;
    int bands;
    /* where the convolution is of gelu(x): */
    float *scratch; /* scratch_floats for each part */
    int64_t scratch_floats;
    int tasks, parts, threads;
} ForwardTask;

static void forward_gelu(const DwconvRows *d, int y0, int y1, float *scratch) {
    for (int c = 0; c < d->channels; c += GROUP) {
        const int count = MIN(GROUP, d->channels - c);
        GeluRows g = gelu_rows(scratch, d->x + c, d->x_stride, d->height, d->width, count, y0, y1, d->kernel / 2);
        DwconvRows part = *d;
        part.x = scratch, part.x_stride = count, part.height = g.height;
        part.y += c, part.wt += c, part.bias += c;
        dwconv_rows(&part, y0 - g.first, y1 - g.first, 0, count);
    }
}

/* scratch NULL: no GELU */
static void forward_band(const ForwardTask *task, int index, float *scratch) {
    DwconvRows d = task->rows;
    int image = index / task->bands, band = index % task->bands;
    int y0 = piece(d.height, task->bands, band), y1 = piece(d.height, task->bands, band + 1);
    int64_t pixels = (int64_t)d.height * d.width;
    d.x += image * pixels * d.x_stride;
    d.y += (image * pixels + (int64_t)y0 * d.width) * d.y_stride;
    if (scratch)
        forward_gelu(&d, y0, y1, scratch);
    else
        dwconv_rows(&d, y0, y1, 0, d.channels);
}

static void forward_task(void *arg, int index, int thread) {
    (void)thread;
    forward_band(arg, index, NULL);
}

static void forward_gelu_part(void *arg, int part, int thread) {
    const ForwardTask *t = arg;
    float *scratch = t->scratch + slot_of(t->threads, t->parts, part, thread) * t->scratch_floats;
    for (int i = piece(t->tasks, t->parts, part); i < piece(t->tasks, t->parts, part + 1); i++)
        forward_band(t, i, scratch);
}

/* floats of the transposed weights, which the workspace starts with */
static int64_t taps_floats(const Shape *w) { return ROUND_UP(shape_count(w), (int64_t)16); }

/* those of a forward part's scratch memory */
static int64_t forward_scratch(const Shape *x, const Node *n) {
    const int height = (int)x->dim[1];
    return gelu_floats(CEIL_DIV(height, bands(height)), (int)x->dim[2], (int)x->dim[3], n->attr.dwconv.kernel);
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
    task.tasks = (int)x->dim[0] * task.bands;
    if (call->node->op != OP_dwconv || !call->node->attr.dwconv.gelu) {
        parallel_for(task.tasks, forward_task, &task);
        return;
    }
    task.scratch = (float *)call->work + taps_floats(call_in(call, 1));
    task.scratch_floats = forward_scratch(x, call->node);
    task.parts = MIN(task.tasks, FORWARD_PARTS);
    task.threads = parallel_threads();
    parallel_for(task.parts, forward_gelu_part, &task);
}

static size_t forward_work(const Graph *g, const Node *n) {
    const Shape *x = in_shape(g, n, 0);
    int64_t floats = taps_floats(in_shape(g, n, 1));
    if (n->op == OP_dwconv && n->attr.dwconv.gelu)
        floats += MIN(x->dim[0] * bands((int)x->dim[1]), FORWARD_PARTS) * forward_scratch(x, n);
    return (size_t)floats * sizeof(float);
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

enum { DW_TASKS = 32 };

static DwTask dw_task_of(const Graph *g, const Node *n) {
    const Shape *x = in_shape(g, n, 1);
    DwTask t = {.batch = (int)x->dim[0], .height = (int)x->dim[1], .width = (int)x->dim[2], .channels = (int)x->dim[3],
                .kernel = n->attr.dwconv.kernel};
    t.groups = CEIL_DIV(t.channels, GROUP);
    t.bands = CEIL_DIV(t.height, 14);
    t.chunks = MIN(t.batch * t.bands, CEIL_DIV(DW_TASKS, t.groups));
    return t;
}

/* Starts the partial gradient of a chunk: zeros for channels [c0, c1). */
static float *dw_part(const DwTask *t, int chunk, int c0, int c1) {
    const int taps = t->kernel * t->kernel;
    float *part = t->parts + (int64_t)chunk * (taps + 1) * t->channels;
    for (int i = 0; i <= taps; i++) memset(part + (int64_t)i * t->channels + c0, 0, (size_t)(c1 - c0) * sizeof *part);
    return part;
}

/* A band of rows [y0, y1) of a picture that starts at element `picture`. */
typedef struct {
    int64_t picture;
    int y0, y1;
} DwBand;

static DwBand dw_band(const DwTask *t, int unit) {
    const int image = unit / t->bands, band = unit % t->bands;
    return (DwBand){(int64_t)image * t->height * t->width * t->channels, piece(t->height, t->bands, band),
                    piece(t->height, t->bands, band + 1)};
}

static void dw_chunk(void *arg, int index, int thread) {
    (void)thread;
    const DwTask *t = arg;
    const int taps = t->kernel * t->kernel, chunk = index / t->groups, group = index % t->groups;
    const int c0 = group * GROUP, c1 = MIN(c0 + GROUP, t->channels), units = t->batch * t->bands;
    float *part = dw_part(t, chunk, c0, c1);
    for (int unit = piece(units, t->chunks, chunk); unit < piece(units, t->chunks, chunk + 1); unit++) {
        const DwBand b = dw_band(t, unit);
        DwconvDwRows d = {.dy = t->dy + b.picture + (int64_t)b.y0 * t->width * t->channels, .dy_stride = t->channels,
                          .x = t->x + b.picture, .x_stride = t->channels,
                          .dw = part, .db = part + (int64_t)taps * t->channels,
                          .kernel = t->kernel, .height = t->height, .width = t->width, .channels = t->channels};
        dwconv_dw_rows(&d, b.y0, b.y1, c0, c1);
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

/* The whole gradient behind a GELU in one go over dy and x: the chunks and groups of dw, each with its part of dx. */
typedef struct {
    DwTask dw;
    float *dx;
    const float *wt; /* turned by half a turn */
    bool residual;
    float *scratch; /* scratch_floats for each chunk and group */
    int64_t scratch_floats;
    int threads;
} GeluBwdTask;

/* Channels c .. c + count of one band. */
static void gelu_bwd_band(const GeluBwdTask *task, const DwBand *b, int c, int count, float *part, float *scratch) {
    const DwTask *t = &task->dw;
    const int64_t row = (int64_t)t->width * t->channels, at = b->picture + b->y0 * row;
    const int taps = t->kernel * t->kernel;
    if (t->dw || t->db) {
        GeluRows g = gelu_rows(scratch, t->x + b->picture + c, t->channels, t->height, t->width, count, b->y0, b->y1,
                               t->kernel / 2);
        DwconvDwRows d = {.dy = t->dy + at + c, .dy_stride = t->channels, .x = scratch, .x_stride = count,
                          .dw = part + c, .db = part + (int64_t)taps * t->channels + c,
                          .kernel = t->kernel, .height = g.height, .width = t->width, .channels = t->channels};
        dwconv_dw_rows(&d, b->y0 - g.first, b->y1 - g.first, 0, count);
    }
    if (task->dx) {
        DwconvRows d = {.x = t->dy + b->picture, .x_stride = t->channels, .y = task->dx + at, .y_stride = t->channels,
                        .wt = task->wt, .residual = task->residual, .kernel = t->kernel, .height = t->height,
                        .width = t->width, .channels = t->channels};
        dwconv_rows(&d, b->y0, b->y1, c, c + count);
        times_gelu_grad(task->dx + at + c, t->x + at + c, t->channels, (int64_t)(b->y1 - b->y0) * t->width, count);
    }
}

static void gelu_bwd_chunk(void *arg, int index, int thread) {
    const GeluBwdTask *task = arg;
    const DwTask *t = &task->dw;
    const int chunk = index / t->groups, c0 = index % t->groups * GROUP, c1 = MIN(c0 + GROUP, t->channels);
    const int units = t->batch * t->bands;
    const int slot = slot_of(task->threads, t->chunks * t->groups, index, thread);
    float *part = dw_part(t, chunk, c0, c1), *scratch = task->scratch + slot * task->scratch_floats;
    for (int unit = piece(units, t->chunks, chunk); unit < piece(units, t->chunks, chunk + 1); unit++) {
        const DwBand b = dw_band(t, unit);
        gelu_bwd_band(task, &b, c0, c1 - c0, part, scratch);
    }
}

static int64_t gelu_bwd_scratch(const DwTask *t) {
    return gelu_floats(CEIL_DIV(t->height, t->bands), t->width, t->channels, t->kernel);
}

/* the transposed weights, scratch memory, the partial gradients */
static size_t gelu_bwd_work(const Graph *g, const Node *n) {
    DwTask t = dw_task_of(g, n);
    return (size_t)(taps_floats(in_shape(g, n, 2)) + t.chunks * t.groups * gelu_bwd_scratch(&t)) * sizeof(float) +
           dw_work(g, n);
}

RUN(dwconv_gelu_bwd) {
    GeluBwdTask task = {.dw = dw_task_of(call->graph, call->node), .dx = call->out[0],
                        .residual = call->node->attr.dwconv.residual};
    DwTask *t = &task.dw;
    t->dy = call->in[0], t->x = call->in[1];
    t->dw = call->out[1], t->db = call->out[2];
    task.wt = call->work;
    task.scratch_floats = gelu_bwd_scratch(t);
    task.scratch = (float *)call->work + taps_floats(call_in(call, 2));
    t->parts = task.scratch + t->chunks * t->groups * task.scratch_floats;
    task.threads = parallel_threads();
    dwconv_transpose(call->work, call->in[2], t->channels, t->kernel, true);
    parallel_for(t->chunks * t->groups, gelu_bwd_chunk, &task);
    if (t->dw || t->db) parallel_for(t->groups, dw_sum_group, t);
}
KERNEL(dwconv_gelu_bwd, .workspace = gelu_bwd_work);
