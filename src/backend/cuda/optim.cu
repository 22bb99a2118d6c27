/* optim.cu - stochastic depth's draws and the optimizer, over flat float32 buffers. Memory is the limit; bytes per
 * parameter: norm 4, AdamW 28 (reads w, g, m, v, writes w, m, v), moving average 12. */
#include "backend/cuda/kernel.cuh"
#include "base/rng.h"

#define THREADS 256

/* ---- draws: a thread has a sample of a stream, hence a word of the stream's block b / 4 ---- */

static __global__ void drop_path(float *keep, const uint64_t *counter, float most, int streams, int batch) {
    int i = blockIdx.x * THREADS + threadIdx.x, stream = i / batch, b = i % batch;
    if (stream >= streams) return;
    float rate = most * (float)(stream / 2 + 1) / (float)(streams / 2);
    Rng r = rng_make(counter[0], RNG_DROP_PATH, counter[1], (uint32_t)stream);
    uint32_t word[4];
    r.counter[0] = (uint32_t)b / 4;
    philox4x32(r.key, r.counter, word);
    uint32_t mine = b % 4 == 0 ? word[0] : b % 4 == 1 ? word[1] : b % 4 == 2 ? word[2] : word[3];
    keep[i] = rng_unit(mine) >= rate ? 1.0f / (1.0f - rate) : 0.0f;
}

static void drop_path_run(const KernelCall *c) {
    int batch = c->node->attr.drop_path.batch, streams = c->node->attr.drop_path.streams;
    launch(c, drop_path, dim3((unsigned)CEIL_DIV(streams * batch, THREADS)), dim3(THREADS), 0, (float *)c->out[0],
           (const uint64_t *)c->in[0], c->node->attr.drop_path.rate, streams, batch);
}

CUDA_KERNEL(drop_path, .run = drop_path_run)

/* ---- norm: squares in double, which holds those of every float; whatever is not finite shows in the sum ---- */

/* Adds up a block's numbers in a fixed order; thread 0 gets the sum. */
__device__ static inline double block_sum_double(double x, double *scratch) {
    scratch[threadIdx.x] = x;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        barrier();
        if ((int)threadIdx.x < half) scratch[threadIdx.x] += scratch[threadIdx.x + half];
    }
    return scratch[0];
}

/* parts[block] = sum of squares of `share` numbers, a multiple of 4 THREADS */
static __global__ void squares(double *parts, const float *g, int64_t count, int64_t share) {
    SharedMemory shared;
    double *scratch = shared.take<double>(THREADS), sum = 0;
    int64_t end = MIN(count, ((int64_t)blockIdx.x + 1) * share);
    for (int64_t i = (int64_t)blockIdx.x * share + threadIdx.x * 4; i < end; i += 2 * 4 * THREADS) {
        Vec<float, 4> v[2] = {};
        UNROLL for (int r = 0; r < 2; r++) {
            int64_t at = i + r * 4 * THREADS;
            if (at + 4 <= end) v[r] = vec_load<4>(g + at);
            for (int k = 0; at < end && end - at < 4 && k < end - at; k++) sum += (double)g[at + k] * g[at + k];
        }
        UNROLL for (int r = 0; r < 2; r++)
            UNROLL for (int k = 0; k < 4; k++) sum += (double)v[r].x[k] * v[r].x[k];
    }
    sum = block_sum_double(sum, scratch);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

static __global__ void norm_of(float *norm, const double *parts, int count, const float *hyper) {
    SharedMemory shared;
    double *scratch = shared.take<double>(THREADS), sum = 0;
    for (int i = threadIdx.x; i < count; i += THREADS) sum += parts[i];
    sum = block_sum_double(sum, scratch);
    if (threadIdx.x == 0) *norm = (float)(sqrt(sum) * hyper[HYPER_INV_SCALE]);
}

/* Numbers of a block: at most 1024 blocks */
static int64_t norm_share(int64_t count) {
    return ROUND_UP(MAX(CEIL_DIV(count, (int64_t)1024), (int64_t)1), (int64_t)4 * THREADS);
}

static size_t grad_norm_workspace(const Graph *g, const Node *n) {
    int64_t count = shape_count(in_shape(g, n, 0));
    return (size_t)CEIL_DIV(count, norm_share(count)) * sizeof(double);
}

static void grad_norm_run(const KernelCall *c) {
    int64_t count = shape_count(call_in(c, 0)), share = norm_share(count), blocks = CEIL_DIV(count, share);
    double *parts = (double *)c->work;
    launch(c, squares, dim3((unsigned)blocks), dim3(THREADS), shared_size<double>(THREADS), parts,
           (const float *)c->in[0], count, share);
    launch(c, norm_of, dim3(1), dim3(THREADS), shared_size<double>(THREADS), (float *)c->out[0], (const double *)parts,
           (int)blocks, (const float *)c->in[1]);
}

CUDA_KERNEL(grad_norm, .run = grad_norm_run, .workspace = grad_norm_workspace)

/* ---- AdamW ---- */

struct AdamW {
    float factor; /* what gradients are multiplied with */
    float keep_weight, beta1, rest1, beta2, rest2;
    float rate, root, eps; /* lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t) */

    __device__ AdamW(const float *hyper, float norm, bool decay) {
        float clip = hyper[HYPER_CLIP], lr = hyper[HYPER_LR];
        factor = hyper[HYPER_INV_SCALE] * (clip > 0 ? fminf(1.0f, clip / (norm + 1e-6f)) : 1.0f);
        keep_weight = 1.0f - lr * (decay ? hyper[HYPER_WEIGHT_DECAY] : 0.0f);
        beta1 = hyper[HYPER_BETA1], rest1 = 1.0f - beta1;
        beta2 = hyper[HYPER_BETA2], rest2 = 1.0f - beta2;
        rate = lr / hyper[HYPER_CORRECTION1];
        root = 1.0f / sqrtf(hyper[HYPER_CORRECTION2]);
        eps = hyper[HYPER_EPS];
    }
    __device__ void update(float &w, float g, float &m, float &v) const {
        float d = g * factor;
        m = beta1 * m + rest1 * d;
        v = beta2 * v + rest2 * (d * d);
        w = keep_weight * w - rate * m / (sqrtf(v) * root + eps);
    }
};

/* Nothing changes when the norm is not finite. */
static __global__ void adamw(float *w, const float *g, float *m, float *v, const float *norm, const float *hyper,
                             bool decay, int64_t count) {
    if (!isfinite(*norm)) return;
    AdamW a(hyper, *norm, decay);
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * 4;
    if (i + 4 <= count) {
        Vec<float, 4> wi = vec_load<4>(w + i), gi = vec_load<4>(g + i), mi = vec_load<4>(m + i),
                      vi = vec_load<4>(v + i);
        UNROLL for (int k = 0; k < 4; k++) a.update(wi.x[k], gi.x[k], mi.x[k], vi.x[k]);
        vec_store(w + i, wi);
        vec_store(m + i, mi);
        vec_store(v + i, vi);
    } else {
        for (; i < count; i++) a.update(w[i], g[i], m[i], v[i]);
    }
}

static void adamw_run(const KernelCall *c) {
    int64_t count = shape_count(call_in(c, 0));
    launch(c, adamw, dim3((unsigned)CEIL_DIV(count, (int64_t)THREADS * 4)), dim3(THREADS), 0, (float *)c->in[0],
           (const float *)c->in[1], (float *)c->in[2], (float *)c->in[3], (const float *)c->in[4],
           (const float *)c->in[5], c->node->attr.adamw.decay, count);
}

CUDA_KERNEL(adamw, .run = adamw_run)

/* ---- moving average ---- */

static __global__ void ema(const float *w, float *average, const float *norm, const float *hyper, int64_t count) {
    if (!isfinite(*norm)) return;
    float decay = hyper[HYPER_EMA_DECAY], rest = 1.0f - decay;
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * 4;
    if (i + 4 <= count) {
        Vec<float, 4> a = vec_load<4>(average + i), wi = vec_load<4>(w + i);
        UNROLL for (int k = 0; k < 4; k++) a.x[k] = decay * a.x[k] + rest * wi.x[k];
        vec_store(average + i, a);
    } else {
        for (; i < count; i++) average[i] = decay * average[i] + rest * w[i];
    }
}

static void ema_run(const KernelCall *c) {
    int64_t count = shape_count(call_in(c, 0));
    launch(c, ema, dim3((unsigned)CEIL_DIV(count, (int64_t)THREADS * 4)), dim3(THREADS), 0, (const float *)c->in[0],
           (float *)c->in[1], (const float *)c->in[2], (const float *)c->in[3], count);
}

CUDA_KERNEL(ema, .run = ema_run)
