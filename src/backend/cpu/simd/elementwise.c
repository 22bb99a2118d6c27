/* elementwise.c - ops limited by memory: one pass over each tensor, cut into tiles of TILE elements (whole rows where
 * channels matter), tiles given to threads. Sums over rows go tile by tile into slots of the workspace, which are then
 * added in the order of the tiles. */
#include "backend/cpu/simd/math.h"

/* elements per operand: 64 kB, so that the operands of a tile lie in the second-level cache together */
enum { TILE = 16384 };

/* ---- element by element ---- */

typedef struct {
    int64_t begin, count;
} Span;

static Span tile_span(int64_t count, int tile) {
    int64_t begin = (int64_t)tile * TILE;
    return (Span){begin, MIN(count - begin, TILE)};
}

static int tile_count(int64_t count) { return (int)CEIL_DIV(count, TILE); }

/* y = f(a). f is inlined: GCC makes one loop per caller. */
static inline void map1(float *y, const float *a, int64_t n, vf (*f)(vf)) {
    int64_t i = 0;
    for (; i + VL <= n; i += VL) vf_store(y + i, f(vf_load(a + i)));
    if (i < n) vf_store_part(y + i, f(vf_load_part(a + i, n - i)), n - i);
}

/* y = f(a, b) */
static inline void map2(float *y, const float *a, const float *b, int64_t n, vf (*f)(vf, vf)) {
    int64_t i = 0;
    for (; i + VL <= n; i += VL) vf_store(y + i, f(vf_load(a + i), vf_load(b + i)));
    if (i < n) vf_store_part(y + i, f(vf_load_part(a + i, n - i), vf_load_part(b + i, n - i)), n - i);
}

static inline vf gelu_bwd_of(vf dy, vf x) { return dy * vf_gelu_grad(x); }
static inline vf sigmoid_of(vf x) { return 1 / (1 + vf_exp(-x)); }
static inline vf silu_of(vf x) { return x * sigmoid_of(x); }
static inline vf silu_bwd_of(vf dy, vf x) {
    vf s = sigmoid_of(x);
    return dy * s * (1 + x * (1 - s));
}
static inline vf sum_of(vf a, vf b) { return a + b; }
static inline vf product_of(vf a, vf b) { return a * b; }

/* the tile function and the kernel of y = f(a) and of y = f(a, b) */
#define MAP1(op, f) \
    static void op##_tile(void *arg, int tile, int thread) { \
        const KernelCall *call = arg; \
        Span s = tile_span(shape_count(call_out(call, 0)), tile); \
        (void)thread; \
        map1((float *)call->out[0] + s.begin, (const float *)call->in[0] + s.begin, s.count, f); \
    } \
    MAP_KERNEL(op)
#define MAP2(op, f) \
    static void op##_tile(void *arg, int tile, int thread) { \
        const KernelCall *call = arg; \
        Span s = tile_span(shape_count(call_out(call, 0)), tile); \
        (void)thread; \
        map2((float *)call->out[0] + s.begin, (const float *)call->in[0] + s.begin, \
             (const float *)call->in[1] + s.begin, s.count, f); \
    } \
    MAP_KERNEL(op)
#define MAP_KERNEL(op) \
    RUN(op) { \
        if (call->out[0]) parallel_for(tile_count(shape_count(call_out(call, 0))), op##_tile, (void *)call); \
    } \
    KERNEL(op)

MAP1(gelu, vf_gelu);
MAP2(gelu_bwd, gelu_bwd_of);
MAP1(silu, silu_of);
MAP2(silu_bwd, silu_bwd_of);
MAP2(add, sum_of);
MAP2(multiply, product_of);

/* ---- pixels ---- */

/* Channels repeat every 3 elements and vectors every VL: coefficients for PIXELS of both. */
enum { PIXELS = 3 * VL, PIXEL_TILE = TILE / PIXELS * PIXELS };

/* Plain loops, for GCC to vectorise: from bytes it widens better so. */
static void scale_pixels(float *restrict y, const uint8_t *restrict x, const float *restrict scale,
                         const float *restrict shift, int64_t count) {
    int64_t i = 0;
    for (; i + PIXELS <= count; i += PIXELS)
        for (int l = 0; l < PIXELS; l++) y[i + l] = (float)x[i + l] * scale[l] + shift[l];
    for (int l = 0; i + l < count; l++) y[i + l] = (float)x[i + l] * scale[l] + shift[l];
}

static void normalize_tile(void *arg, int tile, int thread) {
    const KernelCall *call = arg;
    const float *mean = call->node->attr.normalize.mean, *std = call->node->attr.normalize.std;
    int64_t begin = (int64_t)tile * PIXEL_TILE, count = MIN(shape_count(call_out(call, 0)) - begin, PIXEL_TILE);
    float scale[PIXELS], shift[PIXELS];
    (void)thread;
    for (int l = 0; l < PIXELS; l++) {
        scale[l] = (float)(1.0 / (255.0 * std[l % 3]));
        shift[l] = (float)(-(double)mean[l % 3] / std[l % 3]);
    }
    scale_pixels((float *)call->out[0] + begin, (const uint8_t *)call->in[0] + begin, scale, shift, count);
}

RUN(normalize) {
    int tiles = (int)CEIL_DIV(shape_count(call_out(call, 0)), PIXEL_TILE);
    if (call->out[0]) parallel_for(tiles, normalize_tile, (void *)call);
}
KERNEL(normalize);

/* ---- residual ---- */

/* rows of u per tile: whole rows, TILE elements or one row */
static int64_t tile_rows(const Shape *u) { return MAX(1, TILE / shape_last(u)); }
static int row_tiles(const Shape *u) { return (int)CEIL_DIV(shape_rows(u), tile_rows(u)); }

/* what the branch of a row is multiplied with beside gamma */
static float keep_of(const KernelCall *call, const Shape *u, int64_t row) {
    const float *keep = call->node->n_in > 3 ? call->in[3] : NULL;
    int64_t batch = u->dim[0];
    return keep ? keep[call->node->attr.residual.stream * batch + row / (shape_rows(u) / batch)] : 1;
}

static void residual_tile(void *arg, int tile, int thread) {
    const KernelCall *call = arg;
    const Shape *u_shape = call_in(call, 1);
    int64_t channels = shape_last(u_shape), rows = tile_rows(u_shape);
    int64_t row = tile * rows, end = MIN(shape_rows(u_shape), row + rows);
    const float *gamma = call->in[2];
    (void)thread;
    for (; row < end; row++) {
        const float *x = (const float *)call->in[0] + row * channels, *u = (const float *)call->in[1] + row * channels;
        float *y = (float *)call->out[0] + row * channels, keep = keep_of(call, u_shape, row);
        int64_t c = 0;
        for (; c + VL <= channels; c += VL)
            vf_store(y + c, vf_load(x + c) + keep * vf_load(gamma + c) * vf_load(u + c));
        for (; c < channels; c++) y[c] = x[c] + keep * gamma[c] * u[c];
    }
}

RUN(residual) {
    if (call->out[0]) parallel_for(row_tiles(call_in(call, 1)), residual_tile, (void *)call);
}
KERNEL(residual);

/* dy times gamma and keep, for one row */
static void scale_row(float *du, const float *dy, const float *gamma, float keep, int64_t channels) {
    int64_t c = 0;
    for (; c + VL <= channels; c += VL) vf_store(du + c, vf_load(dy + c) * keep * vf_load(gamma + c));
    for (; c < channels; c++) du[c] = dy[c] * keep * gamma[c];
}

/* sum += keep dy u, for one row */
static void add_row_product(float *sum, const float *dy, const float *u, float keep, int64_t channels) {
    int64_t c = 0;
    for (; c + VL <= channels; c += VL)
        vf_store(sum + c, vf_load(sum + c) + keep * vf_load(dy + c) * vf_load(u + c));
    for (; c < channels; c++) sum[c] += keep * dy[c] * u[c];
}

static void residual_bwd_tile(void *arg, int tile, int thread) {
    const KernelCall *call = arg;
    const Shape *u_shape = call_in(call, 1);
    int64_t channels = shape_last(u_shape), rows = tile_rows(u_shape);
    int64_t row = tile * rows, end = MIN(shape_rows(u_shape), row + rows);
    float *du = call->out[0], *sum = call->out[1] ? (float *)call->work + tile * channels : NULL;
    (void)thread;
    if (sum) memset(sum, 0, (size_t)channels * sizeof(float));
    for (; row < end; row++) {
        const float *dy = (const float *)call->in[0] + row * channels, *u = (const float *)call->in[1] + row * channels;
        float keep = keep_of(call, u_shape, row);
        if (du) scale_row(du + row * channels, dy, call->in[2], keep, channels);
        if (sum) add_row_product(sum, dy, u, keep, channels);
    }
}

/* one row of sums per tile */
static size_t residual_bwd_workspace(const Graph *g, const Node *n) {
    const Shape *u = in_shape(g, n, 1);
    return (size_t)row_tiles(u) * (size_t)shape_last(u) * sizeof(float);
}

RUN(residual_bwd) {
    const Shape *u = call_in(call, 1);
    int64_t channels = shape_last(u);
    parallel_for(row_tiles(u), residual_bwd_tile, (void *)call);
    float *dgamma = call->out[1];
    if (!dgamma) return;
    memset(dgamma, 0, (size_t)channels * sizeof(float));
    for (int tile = 0; tile < row_tiles(u); tile++)
        map2(dgamma, dgamma, (const float *)call->work + tile * channels, channels, sum_of);
}
KERNEL(residual_bwd, .workspace = residual_bwd_workspace);

/* ---- mean over a map ---- */

/* channels that one tile of mean_pool sums up, in registers */
enum { POOL_CHANNELS = 4 * VL };

/* sums of `count` <= POOL_CHANNELS neighbouring channels over all pixels */
static void pool_columns(float *y, const float *x, int64_t pixels, int64_t channels, int64_t count) {
    vf sum[POOL_CHANNELS / VL] = {{0}};
    const vf share = vf_set(1 / (float)pixels);
    if (count == POOL_CHANNELS) {
        for (int64_t p = 0; p < pixels; p++)
            for (int v = 0; v < POOL_CHANNELS / VL; v++) sum[v] += vf_load(x + p * channels + v * VL);
        for (int v = 0; v < POOL_CHANNELS / VL; v++) vf_store(y + v * VL, sum[v] * share);
        return;
    }
    int64_t c = 0;
    for (; c + VL <= count; c += VL) {
        vf total = {0};
        for (int64_t p = 0; p < pixels; p++) total += vf_load(x + p * channels + c);
        vf_store(y + c, total * share);
    }
    if (c < count) {
        vf total = {0};
        for (int64_t p = 0; p < pixels; p++) total += vf_load_part(x + p * channels + c, count - c);
        vf_store_part(y + c, total * share, count - c);
    }
}

static void mean_pool_tile(void *arg, int tile, int thread) {
    const KernelCall *call = arg;
    const Shape *x = call_in(call, 0);
    int64_t pixels = x->dim[1] * x->dim[2], channels = x->dim[3], blocks = CEIL_DIV(channels, POOL_CHANNELS);
    int64_t b = tile / blocks, c = tile % blocks * POOL_CHANNELS;
    (void)thread;
    const float *picture = (const float *)call->in[0] + b * pixels * channels;
    pool_columns((float *)call->out[0] + b * channels + c, picture + c, pixels, channels,
                 MIN(POOL_CHANNELS, channels - c));
}

RUN(mean_pool) {
    const Shape *x = call_in(call, 0);
    if (call->out[0]) parallel_for((int)(x->dim[0] * CEIL_DIV(x->dim[3], POOL_CHANNELS)), mean_pool_tile, (void *)call);
}
KERNEL(mean_pool);

static void mean_pool_bwd_tile(void *arg, int tile, int thread) {
    const KernelCall *call = arg;
    const Shape *dx_shape = call_out(call, 0);
    int64_t pixels = dx_shape->dim[1] * dx_shape->dim[2], channels = dx_shape->dim[3], rows = tile_rows(dx_shape);
    int64_t row = tile * rows, end = MIN(shape_rows(dx_shape), row + rows);
    float share = 1 / (float)pixels;
    (void)thread;
    for (; row < end; row++) {
        const float *dy = (const float *)call->in[0] + row / pixels * channels;
        float *dx = (float *)call->out[0] + row * channels;
        int64_t c = 0;
        for (; c + VL <= channels; c += VL) vf_store(dx + c, vf_load(dy + c) * share);
        for (; c < channels; c++) dx[c] = dy[c] * share;
    }
}

RUN(mean_pool_bwd) {
    if (call->out[0]) parallel_for(row_tiles(call_out(call, 0)), mean_pool_bwd_tile, (void *)call);
}
KERNEL(mean_pool_bwd);

RUN(zeros) {
    if (call->out[0]) memset(call->out[0], 0, (size_t)shape_count(call_out(call, 0)) * sizeof(float));
}
KERNEL(zeros);
