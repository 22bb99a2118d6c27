/* ref_optim.c - the definition of stochastic depth's draws and the optimizer. */
#include "backend/cpu/ref.h"

#include <math.h>

#include "base/rng.h"

REF(drop_path) {
    (void)g;
    int32_t batch = n->attr.drop_path.batch, streams = n->attr.drop_path.streams;
    for (int32_t s = 0; s < streams; s++) {
        double rate = n->attr.drop_path.rate * (float)(s / 2 + 1) / (float)(streams / 2);
        Rng r = rng_make((uint64_t)in[0][0], RNG_DROP_PATH, (uint64_t)in[0][1], (uint32_t)s);
        for (int32_t b = 0; b < batch; b++) out[0][s * batch + b] = rng_uniform(&r) >= rate ? 1 / (1 - rate) : 0;
    }
}

REF(grad_norm) {
    double sum = 0;
    for (int64_t i = 0; i < shape_count(in_shape(g, n, 0)); i++) sum += in[0][i] * in[0][i];
    out[0][0] = in[1][HYPER_INV_SCALE] * sqrt(sum);
}

REF(adamw) {
    double *w = in[0], *m = in[2], *v = in[3];
    const double *grad = in[1], *hyper = in[5];
    double norm = in[4][0], b1 = hyper[HYPER_BETA1], b2 = hyper[HYPER_BETA2], lr = hyper[HYPER_LR];
    double decay = n->attr.adamw.decay ? hyper[HYPER_WEIGHT_DECAY] : 0, clip = hyper[HYPER_CLIP];
    (void)out;
    if (!isfinite(norm)) return;
    for (int64_t i = 0; i < shape_count(in_shape(g, n, 0)); i++) {
        double d = hyper[HYPER_INV_SCALE] * grad[i] * (clip > 0 ? fmin(1, clip / (norm + 1e-6)) : 1);
        m[i] = b1 * m[i] + (1 - b1) * d;
        v[i] = b2 * v[i] + (1 - b2) * d * d;
        w[i] -= lr * decay * w[i];
        w[i] -= lr / hyper[HYPER_CORRECTION1] * m[i] / (sqrt(v[i] / hyper[HYPER_CORRECTION2]) + hyper[HYPER_EPS]);
    }
}

REF(ema) {
    const double *w = in[0], decay = in[3][HYPER_EMA_DECAY];
    double *average = in[1];
    (void)out;
    if (!isfinite(in[2][0])) return;
    for (int64_t i = 0; i < shape_count(in_shape(g, n, 0)); i++) average[i] = decay * average[i] + (1 - decay) * w[i];
}
