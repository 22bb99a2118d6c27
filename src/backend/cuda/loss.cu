/* loss.cu - softmax and cross-entropy over rows of class scores, float32; a block has a row, which stays in the
 * first-level cache between passes. A few megabytes in all: latency is the limit. A row with a score that is not finite
 * gives probabilities and a loss that are not numbers, so that divergence is seen at once. */
#include <float.h>

#include "backend/cuda/kernel.cuh"

#define THREADS 256

/* scratch: WARP floats of shared memory that nobody has used */
__device__ static inline float block_max(float x, float *scratch) {
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    x = warp_max(x);
    if (lane == 0) scratch[warp] = x;
    barrier();
    return warp_max(lane < THREADS / WARP ? scratch[lane] : -FLT_MAX);
}

/* The largest score and the sum of exp(x - max); not numbers if any score is not finite. */
struct RowScale {
    float max, sum;
};

__device__ static inline RowScale row_scale(const float *x, int classes, float *scratch) {
    RowScale s = {-FLT_MAX, 0};
    float poison = 0;
    for (int k = threadIdx.x; k < classes; k += THREADS) {
        s.max = fmaxf(s.max, x[k]);
        poison += x[k] - x[k];
    }
    s.max = block_max(s.max, scratch) + block_sum(poison, scratch);
    for (int k = threadIdx.x; k < classes; k += THREADS) s.sum += expf(x[k] - s.max);
    s.sum = block_sum(s.sum, scratch);
    return s;
}

/* ---- softmax; y may be x ---- */

static __global__ void softmax(float *y, const float *x, int classes) {
    SharedMemory shared;
    float *scratch = shared.take<float>(WARP);
    const int64_t row = (int64_t)blockIdx.x * classes;
    RowScale s = row_scale(x + row, classes, scratch);
    for (int k = threadIdx.x; k < classes; k += THREADS) y[row + k] = expf(x[row + k] - s.max) / s.sum;
}

static void softmax_run(const KernelCall *c) {
    const Shape *x = call_in(c, 0);
    launch(c, softmax, dim3((unsigned)shape_rows(x)), dim3(THREADS), shared_size<float>(WARP), (float *)c->out[0],
           (const float *)c->in[0], (int)shape_last(x));
}

CUDA_KERNEL(softmax, .run = softmax_run)

/* ---- cross-entropy. What a row should be: a label, or a distribution; then smoothed ---- */

struct Target {
    const int32_t *labels;     /* (B), or NULL: */
    const float *distribution; /* (B,K) */
    float smoothing;
    __device__ bool counts(int64_t row, int classes) const {
        return !labels || (labels[row] >= 0 && labels[row] < classes);
    }
};

static Target target_of(const KernelCall *c, int i) {
    bool labels = in_type(c, i) == DT_I32;
    return {labels ? (const int32_t *)c->in[i] : NULL, labels ? NULL : (const float *)c->in[i],
            c->node->attr.loss.smoothing};
}

/* Rows that count; every thread of the block calls. */
__device__ static inline float count_rows(const Target &t, int64_t rows, int classes, float *scratch) {
    float counted = 0;
    for (int64_t row = threadIdx.x; row < rows; row += THREADS) counted += t.counts(row, classes) ? 1.0f : 0.0f;
    return block_sum(counted, scratch);
}

/* losses[row] = the row's part of the loss; prob unless it is NULL */
static __global__ void cross_entropy_rows(float *losses, float *prob, const float *logits, Target t, int classes) {
    SharedMemory shared;
    float *scratch = shared.take<float>(WARP);
    const int64_t row = blockIdx.x;
    const float *x = logits + row * classes, *want = t.distribution ? t.distribution + row * classes : NULL;
    RowScale s = row_scale(x, classes, scratch);
    float log_sum = logf(s.sum), even = 0, wanted = 0; /* sums of -log prob, and of that times the distribution */
    for (int k = threadIdx.x; k < classes; k += THREADS) {
        float cost = log_sum - (x[k] - s.max);
        even += cost;
        if (want) wanted += cost * want[k];
        if (prob) prob[row * classes + k] = expf(x[k] - s.max) / s.sum;
    }
    even = block_sum(even, scratch);
    wanted = block_sum(wanted, scratch);
    if (threadIdx.x > 0) return;
    bool on = t.counts(row, classes);
    if (t.labels && on) wanted = log_sum - (x[t.labels[row]] - s.max);
    losses[row] = on ? (1.0f - t.smoothing) * wanted + t.smoothing / (float)classes * even : 0.0f;
}

static __global__ void cross_entropy_mean(float *loss, const float *losses, Target t, int64_t rows, int classes) {
    SharedMemory shared;
    float *scratch = shared.take<float>(WARP);
    float sum = 0;
    for (int64_t row = threadIdx.x; row < rows; row += THREADS) sum += losses[row];
    sum = block_sum(sum, scratch);
    float counted = count_rows(t, rows, classes, scratch);
    if (threadIdx.x == 0) *loss = counted > 0 ? sum / counted : 0.0f;
}

static size_t cross_entropy_workspace(const Graph *g, const Node *n) {
    return (size_t)shape_rows(in_shape(g, n, 0)) * sizeof(float);
}

static void cross_entropy_run(const KernelCall *c) {
    int64_t rows = shape_rows(call_in(c, 0)), classes = shape_last(call_in(c, 0));
    Target t = target_of(c, 1);
    launch(c, cross_entropy_rows, dim3((unsigned)rows), dim3(THREADS), shared_size<float>(WARP), (float *)c->work,
           (float *)c->out[1], (const float *)c->in[0], t, (int)classes);
    if (c->out[0])
        launch(c, cross_entropy_mean, dim3(1), dim3(THREADS), shared_size<float>(WARP), (float *)c->out[0],
               (const float *)c->work, t, rows, (int)classes);
}

CUDA_KERNEL(cross_entropy, .run = cross_entropy_run, .workspace = cross_entropy_workspace)

/* dlogits = dloss (prob sum(target) - target) / rows that count, 0 in rows that do not */
static __global__ void cross_entropy_bwd(float *dlogits, const float *dloss, const float *prob, Target t, int64_t rows,
                                         int classes) {
    SharedMemory shared;
    float *scratch = shared.take<float>(WARP);
    const int64_t row = blockIdx.x, at = row * classes;
    float counted = count_rows(t, rows, classes, scratch);
    float share = 1.0f - t.smoothing, even = t.smoothing / (float)classes, whole = 1;
    if (t.distribution) {
        float sum = 0;
        for (int k = threadIdx.x; k < classes; k += THREADS) sum += t.distribution[at + k];
        whole = share * block_sum(sum, scratch) + t.smoothing;
    }
    const bool on = t.counts(row, classes);
    const float scale = *dloss / counted;
    int label = t.labels ? t.labels[row] : -1;
    for (int k = threadIdx.x; k < classes; k += THREADS) {
        float want = even + share * (t.labels ? (k == label ? 1.0f : 0.0f) : t.distribution[at + k]);
        dlogits[at + k] = on ? (prob[at + k] * whole - want) * scale : 0.0f;
    }
}

static void cross_entropy_bwd_run(const KernelCall *c) {
    int64_t rows = shape_rows(call_in(c, 1)), classes = shape_last(call_in(c, 1));
    launch(c, cross_entropy_bwd, dim3((unsigned)rows), dim3(THREADS), shared_size<float>(WARP), (float *)c->out[0],
           (const float *)c->in[0], (const float *)c->in[1], target_of(c, 2), rows, (int)classes);
}

CUDA_KERNEL(cross_entropy_bwd, .run = cross_entropy_bwd_run)
