/* layer_norm.cu - LayerNorm and its gradient. Memory is the limit: forward reads and writes a feature an element,
 * backward reads two and writes one, with dg and db from the same pass.
 *
 * A row lies in the registers of `lanes` neighbouring threads, K packs in each; so sums need no shared memory, and the
 * variance is taken around the mean. Rows that do not start on 16 bytes, or are too wide, take plain kernels: a warp
 * for a row, which is read again for every sum. */
#include "backend/cuda/columns.cuh"

#define THREADS 256

/* Over the lanes of a row; every lane of the warp calls. */
__device__ static inline float row_sum(float x, int lanes) {
    for (int mask = lanes / 2; mask > 0; mask /= 2) x += warp_xor(x, mask);
    return x;
}

/* The smallest power of two so that `lanes` times K packs hold a row */
static int row_lanes(int64_t packs, int k) {
    int lanes = 1;
    while (lanes * k < packs) lanes *= 2;
    return lanes;
}

/* Runs the statements with K packs for a thread; false when no K holds a row. */
#define WITH_ROW(T, channels, K, ...) \
    do { \
        int64_t packs_ = (channels) % Pack<T>::N ? INT64_MAX : (channels) / Pack<T>::N; \
        if (packs_ <= WARP) { \
            constexpr int K = 1; \
            __VA_ARGS__; \
        } else if (packs_ <= 2 * WARP) { \
            constexpr int K = 2; \
            __VA_ARGS__; \
        } else if (packs_ <= 4 * WARP) { \
            constexpr int K = 4; \
            __VA_ARGS__; \
        } \
    } while (0)

static bool row_fits(DType type, int64_t channels) {
    return columns_width(type, channels) > 1 && channels / columns_width(type, channels) <= 4 * WARP;
}

/* What a thread holds of rows: pack k starts at channel (k lanes + lane) N. */
template <class T, int K> struct RowPart {
    int lane, channels, lanes;
    __device__ RowPart(int channels_, int lanes_) : lane(threadIdx.x % lanes_), channels(channels_), lanes(lanes_) {}
    __device__ int channel(int k) const { return (k * lanes + lane) * Pack<T>::N; }
    __device__ bool has(int k) const { return channel(k) < channels; }
    __device__ void load(Pack<T> (&to)[K], const T *row, bool inside) const {
        UNROLL for (int k = 0; k < K; k++) {
            to[k] = Pack<T>{};
            if (inside && has(k)) to[k] = pack_load(row + channel(k));
        }
    }
    __device__ void load_vector(Vec<float, Pack<T>::N> (&to)[K], const float *vector) const {
        UNROLL for (int k = 0; k < K; k++) {
            to[k] = Vec<float, Pack<T>::N>{};
            if (has(k)) to[k] = vec_load<Pack<T>::N>(vector + channel(k));
        }
    }
};

/* ---- forward; y may be x. mean and rstd (rows), either may be NULL ---- */

template <class T, int K>
__global__ void layer_norm(T *y, float *mean, float *rstd, const T *x, const float *gain, const float *bias,
                           int64_t rows, int channels, int lanes, float eps) {
    constexpr int N = Pack<T>::N;
    RowPart<T, K> part(channels, lanes);
    Vec<float, N> g[K], b[K];
    part.load_vector(g, gain);
    part.load_vector(b, bias);
    const int together = THREADS / lanes;
    for (int64_t first = (int64_t)blockIdx.x * together; first < rows; first += (int64_t)gridDim.x * together) {
        int64_t row = first + threadIdx.x / lanes;
        Pack<T> v[K];
        part.load(v, x + row * channels, row < rows);
        float sum = 0, squares = 0;
        UNROLL for (int k = 0; k < K; k++)
            UNROLL for (int i = 0; i < N; i++) sum += to_float(v[k].x[i]);
        float m = row_sum(sum, lanes) / (float)channels;
        UNROLL for (int k = 0; k < K; k++) {
            if (!part.has(k)) continue;
            UNROLL for (int i = 0; i < N; i++) squares += (to_float(v[k].x[i]) - m) * (to_float(v[k].x[i]) - m);
        }
        float r = 1.0f / sqrtf(row_sum(squares, lanes) / (float)channels + eps);
        if (row >= rows) continue;
        if (part.lane == 0 && mean) mean[row] = m;
        if (part.lane == 0 && rstd) rstd[row] = r;
        UNROLL for (int k = 0; k < K; k++) {
            if (!y || !part.has(k)) continue;
            UNROLL for (int i = 0; i < N; i++)
                v[k].x[i] = from_float<T>((to_float(v[k].x[i]) - m) * r * g[k].x[i] + b[k].x[i]);
            pack_store(y + row * channels + part.channel(k), v[k]);
        }
    }
}

template <class T>
__global__ void layer_norm_plain(T *y, float *mean, float *rstd, const T *x, const float *gain, const float *bias,
                                 int64_t rows, int channels, float eps) {
    int64_t row = (int64_t)blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
    int lane = threadIdx.x % WARP, end = row < rows ? channels : 0;
    const T *from = x + row * channels;
    float sum = 0, squares = 0;
    for (int c = lane; c < end; c += WARP) sum += to_float(from[c]);
    float m = warp_sum(sum) / (float)channels;
    for (int c = lane; c < end; c += WARP) squares += (to_float(from[c]) - m) * (to_float(from[c]) - m);
    float r = 1.0f / sqrtf(warp_sum(squares) / (float)channels + eps);
    if (lane == 0 && row < rows && mean) mean[row] = m;
    if (lane == 0 && row < rows && rstd) rstd[row] = r;
    for (int c = lane; y && c < end; c += WARP)
        y[row * channels + c] = from_float<T>((to_float(from[c]) - m) * r * gain[c] + bias[c]);
}

static void layer_norm_run(const KernelCall *c) {
    int64_t rows = shape_rows(call_in(c, 0)), channels = shape_last(call_in(c, 0));
    float *mean = (float *)c->out[1], *rstd = (float *)c->out[2], eps = c->node->attr.norm.eps;
    const float *gain = (const float *)c->in[1], *bias = (const float *)c->in[2];
    WITH_FEATURE(in_type(c, 0), T, {
        T *y = (T *)c->out[0];
        const T *x = (const T *)c->in[0];
        if (!row_fits(in_type(c, 0), channels)) {
            launch(c, layer_norm_plain<T>, dim3((unsigned)CEIL_DIV(rows, (int64_t)(THREADS / WARP))), dim3(THREADS), 0,
                   y, mean, rstd, x, gain, bias, rows, (int)channels, eps);
            return;
        }
        WITH_ROW(T, channels, K, {
            int lanes = row_lanes(channels / Pack<T>::N, K);
            int64_t blocks = MIN(CEIL_DIV(rows, (int64_t)(THREADS / lanes)), 2048);
            launch(c, layer_norm<T, K>, dim3((unsigned)blocks), dim3(THREADS), 0, y, mean, rstd, x, gain, bias, rows,
                   (int)channels, lanes, eps);
        });
    });
}

CUDA_KERNEL(layer_norm, .run = layer_norm_run, .types = FEATURE_TYPES)

/* ---- backward: dx may be dy, or NULL; parts[block] = dg | db of its rows ---- */

template <class T, int K>
__global__ void __launch_bounds__(THREADS)
    layer_norm_bwd(T *dx, float *parts, const T *dy, const T *x, const float *gain, const float *mean,
                   const float *rstd, int64_t rows, int64_t share, int channels, int lanes) {
    constexpr int N = Pack<T>::N;
    SharedMemory shared;
    float *scratch = shared.take<float>(THREADS * K * N);
    RowPart<T, K> part(channels, lanes);
    Vec<float, N> g[K], dg[K] = {}, db[K] = {};
    part.load_vector(g, gain);
    const int together = THREADS / lanes, group = threadIdx.x / lanes;
    int64_t end = MIN(rows, ((int64_t)blockIdx.x + 1) * share);
    for (int64_t first = (int64_t)blockIdx.x * share; first < end; first += together) {
        int64_t row = first + group;
        Pack<T> d[K], v[K];
        part.load(d, dy + row * channels, row < end);
        part.load(v, x + row * channels, row < end);
        float m = row < end ? mean[row] : 0.0f, r = row < end ? rstd[row] : 0.0f, sum = 0, sum_h = 0;
        UNROLL for (int k = 0; k < K; k++) {
            UNROLL for (int i = 0; i < N; i++) {
                float dyi = to_float(d[k].x[i]), h = (to_float(v[k].x[i]) - m) * r, dh = dyi * g[k].x[i];
                dg[k].x[i] += dyi * h;
                db[k].x[i] += dyi;
                sum += dh;
                sum_h += dh * h;
            }
        }
        sum = row_sum(sum, lanes) / (float)channels;
        sum_h = row_sum(sum_h, lanes) / (float)channels;
        UNROLL for (int k = 0; k < K; k++) {
            if (!dx || row >= end || !part.has(k)) continue;
            UNROLL for (int i = 0; i < N; i++) {
                float h = (to_float(v[k].x[i]) - m) * r;
                d[k].x[i] = from_float<T>((to_float(d[k].x[i]) * g[k].x[i] - sum - h * sum_h) * r);
            }
            pack_store(dx + row * channels + part.channel(k), d[k]);
        }
    }
    UNROLL for (int half = 0; half < 2; half++) {
        barrier();
        UNROLL for (int k = 0; k < K; k++)
            if (part.has(k)) vec_store(scratch + group * channels + part.channel(k), half ? db[k] : dg[k]);
        barrier();
        for (int c = threadIdx.x; c < channels; c += THREADS) {
            float sum = 0;
            for (int i = 0; i < together; i++) sum += scratch[i * channels + c];
            parts[((int64_t)blockIdx.x * 2 + half) * channels + c] = sum;
        }
    }
}

template <class T>
__global__ void layer_norm_bwd_plain(T *dx, const T *dy, const T *x, const float *gain, const float *mean,
                                     const float *rstd, int64_t rows, int channels) {
    int64_t row = (int64_t)blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP, at = row * channels;
    int lane = threadIdx.x % WARP, end = row < rows ? channels : 0;
    float m = end ? mean[row] : 0.0f, r = end ? rstd[row] : 0.0f, sum = 0, sum_h = 0;
    for (int c = lane; c < end; c += WARP) {
        float dh = to_float(dy[at + c]) * gain[c];
        sum += dh;
        sum_h += dh * (to_float(x[at + c]) - m) * r;
    }
    sum = warp_sum(sum) / (float)channels;
    sum_h = warp_sum(sum_h) / (float)channels;
    for (int c = lane; c < end; c += WARP) {
        float h = (to_float(x[at + c]) - m) * r;
        dx[at + c] = from_float<T>((to_float(dy[at + c]) * gain[c] - sum - h * sum_h) * r);
    }
}

/* parts[share] = dg | db, for the plain kernel */
template <class T>
__global__ void layer_norm_sums(float *parts, const T *dy, const T *x, const float *mean, const float *rstd,
                                Columns s) {
    SharedMemory shared;
    float *scratch = shared.take<float>(COLUMN_THREADS);
    ColumnsAt t = columns_at(s, 1);
    Vec<float, 1> dg = {}, db = {};
    for (int64_t row = t.row; row < t.end; row += s.down) {
        float d = to_float(dy[row * s.channels + t.channel]);
        dg.x[0] += d * (to_float(x[row * s.channels + t.channel]) - mean[row]) * rstd[row];
        db.x[0] += d;
    }
    float *out = parts + (int64_t)blockIdx.x * 2 * s.channels + t.first_channel;
    columns_block_sum(out, dg, s, t, scratch);
    columns_block_sum(out + s.channels, db, s, t, scratch);
}

/* Rows of a block: some hundred blocks, of eight rows a thread at least */
static int64_t bwd_share(int64_t rows, int lanes) {
    int64_t together = THREADS / lanes;
    return MAX(8 * together, ROUND_UP(CEIL_DIV(rows, (int64_t)1024), together));
}

static int64_t bwd_parts(DType type, int64_t rows, int64_t channels) {
    int64_t parts = columns_to_sum(rows, channels, 1).shares;
    if (!row_fits(type, channels)) return parts;
    int64_t packs = channels * (int64_t)dtype_size(type) / 16;
    int lanes = row_lanes(packs, packs <= WARP ? 1 : packs <= 2 * WARP ? 2 : 4);
    return CEIL_DIV(rows, bwd_share(rows, lanes));
}

static size_t layer_norm_bwd_workspace(const Graph *g, const Node *n) {
    const Shape *x = in_shape(g, n, 1);
    int64_t parts = bwd_parts(node_compute_type(g, n), shape_rows(x), shape_last(x));
    return (size_t)(parts * 2 * shape_last(x)) * sizeof(float);
}

static void layer_norm_bwd_run(const KernelCall *c) {
    int64_t rows = shape_rows(call_in(c, 1)), channels = shape_last(call_in(c, 1));
    const float *gain = (const float *)c->in[2], *mean = (const float *)c->in[3], *rstd = (const float *)c->in[4];
    float *parts = (float *)c->work;
    WITH_FEATURE(in_type(c, 1), T, {
        T *dx = (T *)c->out[0];
        const T *dy = (const T *)c->in[0], *x = (const T *)c->in[1];
        if (!row_fits(in_type(c, 1), channels)) {
            Columns s = columns_to_sum(rows, channels, 1);
            launch(c, layer_norm_sums<T>, columns_grid(s), dim3(COLUMN_THREADS), shared_size<float>(COLUMN_THREADS),
                   parts, dy, x, mean, rstd, s);
            if (dx)
                launch(c, layer_norm_bwd_plain<T>, dim3((unsigned)CEIL_DIV(rows, (int64_t)(THREADS / WARP))),
                       dim3(THREADS), 0, dx, dy, x, gain, mean, rstd, rows, (int)channels);
        }
        WITH_ROW(T, channels, K, {
            int lanes = row_lanes(channels / Pack<T>::N, K);
            int64_t share = bwd_share(rows, lanes);
            launch(c, layer_norm_bwd<T, K>, dim3((unsigned)CEIL_DIV(rows, share)), dim3(THREADS),
                   shared_size<float>(THREADS * K * Pack<T>::N), dx, parts, dy, x, gain, mean, rstd, rows, share,
                   (int)channels, lanes);
        });
    });
    if (c->out[1] || c->out[2])
        run_add_parts(c, c->out[1], channels, c->out[2], channels, parts,
                      (int)bwd_parts(in_type(c, 1), rows, channels));
}

CUDA_KERNEL(layer_norm_bwd, .run = layer_norm_bwd_run, .types = FEATURE_TYPES, .workspace = layer_norm_bwd_workspace)
