/* batch_norm.cu - BatchNorm over rows, its gradient, and what evaluation makes of it. Memory is the limit. Features
 * read and written an element: training forward 3 (once for the statistics, once to apply them), backward 5,
 * evaluation 2. A GELU behind it adds none, but its derivative is taken twice an element. */
#include "backend/cuda/columns.cuh"
#include "backend/cuda/gelu.cuh"

/* ---- statistics: mean and the sum of squares around it, joined without cancellation (Chan et al., 1983) ---- */

struct Moments {
    double count, mean, squares;
    __device__ void join(double n, double m, double sq) {
        if (n == 0) return;
        double delta = m - mean, whole = count + n;
        mean += delta * n / whole;
        squares += sq + delta * delta * count * n / whole;
        count = whole;
    }
};

/* parts[share] = mean | squares of the share's rows. A thread goes through its rows by Welford's recurrence. */
template <class T, int V> __global__ void batch_norm_statistics(float *parts, const T *x, Columns s) {
    SharedMemory shared;
    float *means = shared.take<float>(COLUMN_THREADS * V), *sums = shared.take<float>(COLUMN_THREADS * V);
    ColumnsAt t = columns_at(s, V);
    Vec<float, V> mean = {}, squares = {};
    float count = 0;
    for (int64_t row = t.row; row < t.end; row += 4 * s.down) {
        Vec<T, V> v[4] = {};
        UNROLL for (int r = 0; r < 4; r++)
            if (row + r * s.down < t.end) v[r] = vec_load<V>(x + (row + r * s.down) * s.channels + t.channel);
        UNROLL for (int r = 0; r < 4; r++) {
            if (row + r * s.down >= t.end) continue;
            float share = 1.0f / ++count;
            UNROLL for (int k = 0; k < V; k++) {
                float delta = to_float(v[r].x[k]) - mean.x[k];
                mean.x[k] += delta * share;
                squares.x[k] += delta * (to_float(v[r].x[k]) - mean.x[k]);
            }
        }
    }
    int wide = s.across * V, down = threadIdx.x / s.across;
    if (down < s.down) {
        vec_store(means + down * wide + t.column, mean);
        vec_store(sums + down * wide + t.column, squares);
    }
    barrier();
    int64_t rows = MIN(s.rows - (int64_t)blockIdx.x * s.share_rows, s.share_rows);
    for (int c = threadIdx.x; c < wide && t.first_channel + c < s.channels; c += COLUMN_THREADS) {
        float n = 0, m = 0, sq = 0;
        for (int i = 0; i < s.down && i < rows; i++) {
            float more = (float)((rows - 1 - i) / s.down + 1), delta = means[i * wide + c] - m, whole = n + more;
            m += delta * (more / whole);
            sq += sums[i * wide + c] + delta * delta * (n * (more / whole));
            n = whole;
        }
        float *out = parts + (int64_t)blockIdx.x * 2 * s.channels + t.first_channel + c;
        out[0] = m;
        out[s.channels] = sq;
    }
}

struct RunningStatistics {
    float *mean, *var, momentum;
};

/* Joins the shares; statistics = mean | rstd, copied to mean and rstd unless NULL. A block has WARP channels. */
static __global__ void batch_norm_join(float *statistics, float *mean, float *rstd, RunningStatistics running,
                                       const float *parts, float eps, Columns s) {
    SharedMemory shared;
    double *count = shared.take<double>(COLUMN_THREADS), *means = shared.take<double>(COLUMN_THREADS),
           *squares = shared.take<double>(COLUMN_THREADS);
    const int lanes = COLUMN_THREADS / WARP;
    int c = blockIdx.x * WARP + threadIdx.x % WARP, lane = threadIdx.x / WARP;
    Moments all = {};
    for (int p = lane; c < s.channels && p < s.shares; p += lanes) {
        const float *part = parts + (int64_t)p * 2 * s.channels + c;
        all.join((double)MIN(s.rows - p * s.share_rows, s.share_rows), part[0], part[s.channels]);
    }
    count[threadIdx.x] = all.count, means[threadIdx.x] = all.mean, squares[threadIdx.x] = all.squares;
    barrier();
    if (lane > 0 || c >= s.channels) return;
    for (int i = 1; i < lanes; i++)
        all.join(count[i * WARP + threadIdx.x], means[i * WARP + threadIdx.x], squares[i * WARP + threadIdx.x]);
    double var = all.squares / (double)s.rows, unbiased = s.rows > 1 ? all.squares / (double)(s.rows - 1) : 0;
    float r = (float)(1.0 / sqrt(var + (double)eps));
    statistics[c] = (float)all.mean;
    statistics[s.channels + c] = r;
    if (mean) mean[c] = (float)all.mean;
    if (rstd) rstd[c] = r;
    if (!isfinite(var)) return; /* a step that is skipped for it must not destroy them */
    double keep = 1.0 - (double)running.momentum;
    running.mean[c] = (float)(keep * running.mean[c] + running.momentum * all.mean);
    running.var[c] = (float)(keep * running.var[c] + running.momentum * unbiased);
}

/* ---- y = (x - mean) rstd g + b, where rstd = 1 / sqrt(spread + eps) if the spread is a variance, or gelu of that;
 * y may be x ---- */

template <class T, int V, bool GELU>
__global__ void batch_norm_apply(T *y, const T *x, const float *mean, const float *spread, bool variance, float eps,
                                 const float *gain, const float *bias, Columns s) {
    ColumnsAt t = columns_at(s, V);
    if (t.row >= t.end) return;
    Vec<float, V> m = vec_load<V>(mean + t.channel), scale = vec_load<V>(gain + t.channel);
    Vec<float, V> shift = vec_load<V>(bias + t.channel), sp = vec_load<V>(spread + t.channel);
    UNROLL for (int k = 0; k < V; k++) scale.x[k] *= variance ? 1.0f / sqrtf(sp.x[k] + eps) : sp.x[k];
    for (int64_t row = t.row; row < t.end; row += 4 * s.down) {
        Vec<T, V> v[4];
        UNROLL for (int r = 0; r < 4; r++)
            if (row + r * s.down < t.end) v[r] = vec_load<V>(x + (row + r * s.down) * s.channels + t.channel);
        UNROLL for (int r = 0; r < 4; r++) {
            if (row + r * s.down >= t.end) continue;
            UNROLL for (int k = 0; k < V; k++) {
                float h = (to_float(v[r].x[k]) - m.x[k]) * scale.x[k] + shift.x[k];
                v[r].x[k] = from_float<T>(GELU ? gelu(h) : h);
            }
            vec_store(y + (row + r * s.down) * s.channels + t.channel, v[r]);
        }
    }
}

/* work: mean | rstd, then the shares' parts */
static size_t batch_norm_workspace(const Graph *g, const Node *n) {
    const Shape *x = in_shape(g, n, 0);
    int64_t channels = shape_last(x);
    Columns s = columns_to_sum(shape_rows(x), channels, columns_width(node_compute_type(g, n), channels));
    return (size_t)(ROUND_UP(2 * channels, 4) + (int64_t)s.shares * 2 * channels) * sizeof(float);
}

static void batch_norm_run(const KernelCall *c) {
    int64_t rows = shape_rows(call_in(c, 0)), channels = shape_last(call_in(c, 0));
    float *statistics = (float *)c->work, *parts = statistics + ROUND_UP(2 * channels, 4);
    float eps = c->node->attr.norm.eps;
    RunningStatistics running = {(float *)c->in[3], (float *)c->in[4], c->node->attr.norm.momentum};
    WITH_PACKS(in_type(c, 0), channels, T, V, {
        Columns s = columns_to_sum(rows, channels, V);
        Columns map = columns_to_map(rows, channels, V);
        launch(c, batch_norm_statistics<T, V>, columns_grid(s), dim3(COLUMN_THREADS),
               2 * shared_size<float>(COLUMN_THREADS * V), parts, (const T *)c->in[0], s);
        launch(c, batch_norm_join, dim3((unsigned)CEIL_DIV(channels, (int64_t)WARP)), dim3(COLUMN_THREADS),
               3 * shared_size<double>(COLUMN_THREADS), statistics, (float *)c->out[1], (float *)c->out[2], running,
               (const float *)parts, eps, s);
        auto apply = c->node->attr.norm.gelu ? batch_norm_apply<T, V, true> : batch_norm_apply<T, V, false>;
        if (c->out[0])
            launch(c, apply, columns_grid(map), dim3(COLUMN_THREADS), 0, (T *)c->out[0],
                   (const T *)c->in[0], (const float *)statistics, (const float *)(statistics + channels), false, eps,
                   (const float *)c->in[1], (const float *)c->in[2], map);
    });
}

/* x twice: for its statistics, and to be normed */
static double batch_norm_moves(const KernelCall *c) { return call_bytes(c) + (c->out[0] ? in_bytes(c, 0) : 0); }

CUDA_KERNEL(batch_norm, .run = batch_norm_run, .types = FEATURE_TYPES, .workspace = batch_norm_workspace,
            .moves = batch_norm_moves)

static void batch_norm_eval_run(const KernelCall *c) {
    int64_t rows = shape_rows(call_in(c, 0)), channels = shape_last(call_in(c, 0));
    WITH_PACKS(in_type(c, 0), channels, T, V, {
        Columns s = columns_to_map(rows, channels, V);
        launch(c, batch_norm_apply<T, V, false>, columns_grid(s), dim3(COLUMN_THREADS), 0, (T *)c->out[0],
               (const T *)c->in[0], (const float *)c->in[3], (const float *)c->in[4], true,
               c->node->attr.norm.eps, (const float *)c->in[1], (const float *)c->in[2], s);
    });
}

CUDA_KERNEL(batch_norm_eval, .run = batch_norm_eval_run, .types = FEATURE_TYPES)

/* ---- backward ---- */

/* dy, or what comes of it through a GELU of h scale + bias, h = x - mean, scale = g rstd */
template <bool GELU> __device__ static inline float behind_gelu(float dy, float h, float scale, float bias) {
    return GELU ? dy * gelu_pair(h * scale + bias).slope : dy;
}

/* parts[share] = sums of dy h | of dy, h = (x - mean) rstd */
template <class T, int V, bool GELU>
__global__ void batch_norm_bwd_sums(float *parts, const T *dy, const T *x, const float *gain, const float *bias,
                                    const float *mean, const float *rstd, Columns s) {
    SharedMemory shared;
    float *scratch = shared.take<float>(COLUMN_THREADS * V);
    ColumnsAt t = columns_at(s, V);
    Vec<float, V> dg = {}, db = {}, m = {}, r = {};
    [[maybe_unused]] Vec<float, V> scale = {}, b = {};
    if (t.row < t.end) m = vec_load<V>(mean + t.channel), r = vec_load<V>(rstd + t.channel);
    if (GELU && t.row < t.end) {
        scale = vec_load<V>(gain + t.channel), b = vec_load<V>(bias + t.channel);
        UNROLL for (int k = 0; k < V; k++) scale.x[k] *= r.x[k];
    }
    for (int64_t row = t.row; row < t.end; row += 4 * s.down) {
        Vec<T, V> d[4] = {}, v[4] = {};
        UNROLL for (int i = 0; i < 4; i++) {
            int64_t at = row + i * s.down;
            if (at >= t.end) continue;
            d[i] = vec_load<V>(dy + at * s.channels + t.channel);
            v[i] = vec_load<V>(x + at * s.channels + t.channel);
        }
        UNROLL for (int i = 0; i < 4; i++) {
            UNROLL for (int k = 0; k < V; k++) { /* rows that are missing have dy = 0 */
                float h = to_float(v[i].x[k]) - m.x[k];
                float di = behind_gelu<GELU>(to_float(d[i].x[k]), h, scale.x[k], b.x[k]);
                dg.x[k] += di * h;
                db.x[k] += di;
            }
        }
    }
    UNROLL for (int k = 0; k < V; k++) dg.x[k] *= r.x[k];
    float *out = parts + (int64_t)blockIdx.x * 2 * s.channels + t.first_channel;
    columns_block_sum(out, dg, s, t, scratch);
    columns_block_sum(out + s.channels, db, s, t, scratch);
}

/* dx = g rstd (dy - db / rows - h dg / rows); dx may be dy. sums = dg | db */
template <class T, int V, bool GELU>
__global__ void __launch_bounds__(COLUMN_THREADS, GELU ? 2 : 0)
    batch_norm_bwd_apply(T *dx, const T *dy, const T *x, const float *gain, const float *bias, const float *mean,
                         const float *rstd, const float *sums, Columns s) {
    ColumnsAt t = columns_at(s, V);
    if (t.row >= t.end) return;
    Vec<float, V> m = vec_load<V>(mean + t.channel), r = vec_load<V>(rstd + t.channel);
    Vec<float, V> scale = vec_load<V>(gain + t.channel), slope, shift, b = {};
    if (GELU) b = vec_load<V>(bias + t.channel);
    UNROLL for (int k = 0; k < V; k++) {
        scale.x[k] *= r.x[k];
        slope.x[k] = sums[t.channel + k] * r.x[k] / (float)s.rows;
        shift.x[k] = sums[s.channels + t.channel + k] / (float)s.rows;
    }
    for (int64_t row = t.row; row < t.end; row += 4 * s.down) {
        Vec<T, V> d[4], v[4];
        UNROLL for (int i = 0; i < 4; i++) {
            int64_t at = row + i * s.down;
            if (at >= t.end) continue;
            d[i] = vec_load<V>(dy + at * s.channels + t.channel);
            v[i] = vec_load<V>(x + at * s.channels + t.channel);
        }
        UNROLL for (int i = 0; i < 4; i++) {
            int64_t at = row + i * s.down;
            if (at >= t.end) continue;
            UNROLL for (int k = 0; k < V; k++) {
                float h = to_float(v[i].x[k]) - m.x[k];
                float di = behind_gelu<GELU>(to_float(d[i].x[k]), h, scale.x[k], b.x[k]);
                d[i].x[k] = from_float<T>((di - shift.x[k] - h * slope.x[k]) * scale.x[k]);
            }
            vec_store(dx + at * s.channels + t.channel, d[i]);
        }
    }
}

/* work: dg | db, then the shares' parts: as much as forward */
template <class T, int V, bool GELU> static void launch_bwd(const KernelCall *c) {
    int64_t rows = shape_rows(call_in(c, 1)), channels = shape_last(call_in(c, 1));
    float *sums = (float *)c->work, *parts = sums + ROUND_UP(2 * channels, 4);
    const float *gain = (const float *)c->in[2], *mean = (const float *)c->in[3], *rstd = (const float *)c->in[4];
    const float *bias = (const float *)c->in[5];
    Columns s = columns_to_sum(rows, channels, V);
    Columns map = columns_to_map(rows, channels, V);
    const T *dy = (const T *)c->in[0], *x = (const T *)c->in[1];
    launch(c, batch_norm_bwd_sums<T, V, GELU>, columns_grid(s), dim3(COLUMN_THREADS),
           shared_size<float>(COLUMN_THREADS * V), parts, dy, x, gain, bias, mean, rstd, s);
    if (c->out[0]) {
        run_add_parts(c, sums, channels, sums + channels, channels, parts, s.shares);
        launch(c, batch_norm_bwd_apply<T, V, GELU>, columns_grid(map), dim3(COLUMN_THREADS), 0, (T *)c->out[0], dy, x,
               gain, bias, mean, rstd, (const float *)sums, map);
    }
    if (c->out[1] || c->out[2]) run_add_parts(c, c->out[1], channels, c->out[2], channels, parts, s.shares);
}

static void batch_norm_bwd_run(const KernelCall *c) {
    WITH_PACKS(in_type(c, 1), shape_last(call_in(c, 1)), T, V, {
        if (c->node->attr.norm.gelu)
            launch_bwd<T, V, true>(c);
        else
            launch_bwd<T, V, false>(c);
    });
}

/* dy and x twice: for the sums, and for dx */
static double batch_norm_bwd_moves(const KernelCall *c) { return call_bytes(c) + (c->out[0] ? 2 * in_bytes(c, 0) : 0); }

CUDA_KERNEL(batch_norm_bwd, .run = batch_norm_bwd_run, .types = FEATURE_TYPES, .workspace = batch_norm_workspace,
            .moves = batch_norm_bwd_moves)

/* ---- weights that contain the norm behind them; a block has an output channel ---- */

static __global__ void fold_batch_norm(float *folded_w, float *folded_b, const float *w, const float *b,
                                       const float *gain, const float *beta, const float *mean, const float *var,
                                       float eps, int64_t each) {
    int o = blockIdx.x;
    float scale = gain[o] / sqrtf(var[o] + eps);
    if (threadIdx.x == 0 && folded_b) folded_b[o] = (b[o] - mean[o]) * scale + beta[o];
    for (int64_t i = threadIdx.x; folded_w && i < each; i += COLUMN_THREADS)
        folded_w[o * each + i] = w[o * each + i] * scale;
}

static void fold_batch_norm_run(const KernelCall *c) {
    const Shape *w = call_in(c, 0);
    const float *const *in = (const float *const *)c->in;
    launch(c, fold_batch_norm, dim3((unsigned)w->dim[0]), dim3(COLUMN_THREADS), 0, (float *)c->out[0],
           (float *)c->out[1], in[0], in[1], in[2], in[3], in[4], in[5], c->node->attr.norm.eps,
           shape_count(w) / w->dim[0]);
}

CUDA_KERNEL(fold_batch_norm, .run = fold_batch_norm_run)
