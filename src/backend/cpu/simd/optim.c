/* optim.c - stochastic depth's draws and the optimizer: single passes over flat buffers, at the memory's speed. */
#include "backend/cpu/simd/simd.h"
#include "base/rng.h"

/* elements per tile: large, since a step walks through megabytes */
enum { TILE = 65536 };

static int tile_count(const Shape *s) { return (int)CEIL_DIV(shape_count(s), TILE); }
static int64_t tile_end(const Shape *s, int tile) { return MIN(shape_count(s), ((int64_t)tile + 1) * TILE); }

RUN(drop_path) {
    const uint64_t *counter = call->in[0];
    float *keep = call->out[0], most = call->node->attr.drop_path.rate;
    int32_t batch = call->node->attr.drop_path.batch, streams = call->node->attr.drop_path.streams;
    for (int32_t s = 0; keep && s < streams; s++) {
        float rate = most * (float)(s / 2 + 1) / (float)(streams / 2);
        Rng r = rng_make(counter[0], RNG_DROP_PATH, counter[1], (uint32_t)s);
        for (int32_t b = 0; b < batch; b++) keep[s * batch + b] = rng_uniform(&r) >= rate ? 1 / (1 - rate) : 0;
    }
}
KERNEL(drop_path);

/* ---- norm ---- */

typedef double Doubles __attribute__((vector_size(VL * 4)));
typedef float Half __attribute__((vector_size(VL * 2)));

/* Squares are taken in double: nothing overflows that a float can hold, and the sum is exact to a float's last bit. */
static void grad_norm_tile(void *arg, int tile, int thread) {
    const KernelCall *call = arg;
    const Shape *shape = call_in(call, 0);
    const float *x = call->in[0];
    int64_t i = (int64_t)tile * TILE, end = tile_end(shape, tile);
    Doubles sum[4] = {{0}};
    (void)thread;
    for (; i + 2 * VL <= end; i += 2 * VL) {
        for (int k = 0; k < 4; k++) {
            Half h;
            memcpy(&h, x + i + k * (VL / 2), sizeof h);
            Doubles d = __builtin_convertvector(h, Doubles);
            sum[k] += d * d;
        }
    }
    double total = 0;
    for (; i < end; i++) total += (double)x[i] * x[i];
    sum[0] += sum[1] + sum[2] + sum[3];
    for (int l = 0; l < VL / 2; l++) total += sum[0][l];
    ((double *)call->work)[tile] = total;
}

static size_t grad_norm_workspace(const Graph *g, const Node *n) {
    return (size_t)tile_count(in_shape(g, n, 0)) * sizeof(double);
}

RUN(grad_norm) {
    int tiles = tile_count(call_in(call, 0));
    if (!call->out[0]) return;
    parallel_for(tiles, grad_norm_tile, (void *)call);
    double sum = 0;
    for (int tile = 0; tile < tiles; tile++) sum += ((const double *)call->work)[tile];
    *(float *)call->out[0] = (float)(sqrt(sum) * (double)((const float *)call->in[1])[HYPER_INV_SCALE]);
}
KERNEL(grad_norm, .workspace = grad_norm_workspace);

/* ---- AdamW ---- */

typedef struct {
    const KernelCall *call;
    float factor;      /* what the gradient is multiplied with */
    float keep_weight; /* 1 - lr wd */
    float beta1, rest1, beta2, rest2;
    float rate;        /* lr / (1 - beta1^t) */
    float root;        /* 1 / sqrt(1 - beta2^t) */
    float eps;
} AdamW;

/* A plain loop, for GCC to vectorise: the vector extension has no square root. */
static void adamw_update(const AdamW a, float *restrict w, const float *restrict g, float *restrict m,
                         float *restrict v, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        float d = g[i] * a.factor;
        m[i] = a.beta1 * m[i] + a.rest1 * d;
        v[i] = a.beta2 * v[i] + a.rest2 * (d * d);
        w[i] = a.keep_weight * w[i] - a.rate * m[i] / (sqrtf(v[i]) * a.root + a.eps);
    }
}

static void adamw_tile(void *arg, int tile, int thread) {
    const AdamW *a = arg;
    void *const *in = a->call->in;
    int64_t begin = (int64_t)tile * TILE, end = tile_end(call_in(a->call, 0), tile);
    (void)thread;
    adamw_update(*a, (float *)in[0] + begin, (const float *)in[1] + begin, (float *)in[2] + begin,
                 (float *)in[3] + begin, end - begin);
}

RUN(adamw) {
    const float norm = *(const float *)call->in[4], *hyper = call->in[5];
    if (!isfinite(norm)) return;
    double lr = hyper[HYPER_LR], b1 = hyper[HYPER_BETA1], b2 = hyper[HYPER_BETA2], clip = hyper[HYPER_CLIP];
    double decay = call->node->attr.adamw.decay ? hyper[HYPER_WEIGHT_DECAY] : 0;
    AdamW a = {.call = call,
               .factor = (float)(hyper[HYPER_INV_SCALE] * (clip > 0 ? MIN(1.0, clip / ((double)norm + 1e-6)) : 1.0)),
               .keep_weight = (float)(1 - lr * decay),
               .beta1 = (float)b1,
               .rest1 = (float)(1 - b1),
               .beta2 = (float)b2,
               .rest2 = (float)(1 - b2),
               .rate = (float)(lr / hyper[HYPER_CORRECTION1]),
               .root = (float)(1 / sqrt(hyper[HYPER_CORRECTION2])),
               .eps = hyper[HYPER_EPS]};
    parallel_for(tile_count(call_in(call, 0)), adamw_tile, &a);
}
KERNEL(adamw);

/* ---- moving average ---- */

static void ema_tile(void *arg, int tile, int thread) {
    const KernelCall *call = arg;
    const float *w = call->in[0], decay = ((const float *)call->in[3])[HYPER_EMA_DECAY], rest = 1 - decay;
    float *average = call->in[1];
    int64_t i = (int64_t)tile * TILE, end = tile_end(call_in(call, 0), tile);
    (void)thread;
    for (; i + VL <= end; i += VL) vf_store(average + i, decay * vf_load(average + i) + rest * vf_load(w + i));
    for (; i < end; i++) average[i] = decay * average[i] + rest * w[i];
}

RUN(ema) {
    if (isfinite(*(const float *)call->in[2])) parallel_for(tile_count(call_in(call, 0)), ema_tile, (void *)call);
}
KERNEL(ema);
