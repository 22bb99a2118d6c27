/* ref_norm.c - the definition of LayerNorm, BatchNorm and their gradients. */
#include "backend/cpu/ref.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
    double mean, var; /* of the population */
} Moments;

/* Of n numbers, `step` apart. */
static Moments moments(const double *x, int64_t n, int64_t step) {
    Moments m = {0};
    for (int64_t i = 0; i < n; i++) m.mean += x[i * step] / (double)n;
    for (int64_t i = 0; i < n; i++) m.var += (x[i * step] - m.mean) * (x[i * step] - m.mean) / (double)n;
    return m;
}

/* dx of y = h, h = (x - mean) rstd, for n numbers `step` apart: rstd (dh - mean(dh) - h mean(dh h)) */
static void normalized_dx(double *dx, const double *dh, const double *h, double rstd, int64_t n, int64_t step) {
    double mean_dh = 0, mean_dhh = 0;
    for (int64_t i = 0; i < n; i++) mean_dh += dh[i * step] / (double)n;
    for (int64_t i = 0; i < n; i++) mean_dhh += dh[i * step] * h[i * step] / (double)n;
    for (int64_t i = 0; i < n; i++) dx[i * step] = rstd * (dh[i * step] - mean_dh - h[i * step] * mean_dhh);
}

REF(layer_norm) {
    const double *x = in[0], *gain = in[1], *bias = in[2];
    double *y = out[0], *mean = out[1], *rstd = out[2];
    int64_t rows = shape_rows(in_shape(g, n, 0)), channels = shape_last(in_shape(g, n, 0));
    for (int64_t r = 0; r < rows; r++) {
        Moments m = moments(x + r * channels, channels, 1);
        mean[r] = m.mean;
        rstd[r] = 1 / sqrt(m.var + (double)n->attr.norm.eps);
        for (int64_t c = 0; c < channels; c++)
            y[r * channels + c] = (x[r * channels + c] - mean[r]) * rstd[r] * gain[c] + bias[c];
    }
}

REF(layer_norm_bwd) {
    const double *dy = in[0], *x = in[1], *gain = in[2], *mean = in[3], *rstd = in[4];
    double *dx = out[0], *dg = out[1], *db = out[2];
    int64_t rows = shape_rows(in_shape(g, n, 1)), channels = shape_last(in_shape(g, n, 1));
    double *h = mem_zalloc((size_t)channels, sizeof *h), *dh = mem_zalloc((size_t)channels, sizeof *dh);
    for (int64_t c = 0; c < channels; c++) dg[c] = db[c] = 0;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < channels; c++) {
            double d = dy[r * channels + c];
            h[c] = (x[r * channels + c] - mean[r]) * rstd[r];
            dh[c] = d * gain[c];
            dg[c] += d * h[c];
            db[c] += d;
        }
        normalized_dx(dx + r * channels, dh, h, rstd[r], channels, 1);
    }
    free(h);
    free(dh);
}

REF(batch_norm) {
    const double *x = in[0], *gain = in[1], *bias = in[2];
    double *running_mean = in[3], *running_var = in[4], *y = out[0], *mean = out[1], *rstd = out[2];
    int64_t rows = shape_rows(in_shape(g, n, 0)), channels = shape_last(in_shape(g, n, 0));
    double momentum = n->attr.norm.momentum;
    for (int64_t c = 0; c < channels; c++) {
        Moments m = moments(x + c, rows, channels);
        double unbiased = rows > 1 ? m.var * (double)rows / (double)(rows - 1) : 0;
        mean[c] = m.mean;
        rstd[c] = 1 / sqrt(m.var + (double)n->attr.norm.eps);
        for (int64_t i = c; i < rows * channels; i += channels) {
            y[i] = (x[i] - mean[c]) * rstd[c] * gain[c] + bias[c];
            if (n->attr.norm.gelu) y[i] = ref_gelu_of(y[i]);
        }
        if (!isfinite(m.var)) continue;
        running_mean[c] = (1 - momentum) * running_mean[c] + momentum * m.mean;
        running_var[c] = (1 - momentum) * running_var[c] + momentum * unbiased;
    }
}

REF(batch_norm_bwd) {
    const double *dy = in[0], *x = in[1], *gain = in[2], *mean = in[3], *rstd = in[4], *bias = in[5];
    double *dx = out[0], *dg = out[1], *db = out[2];
    int64_t count = shape_count(in_shape(g, n, 1)), channels = shape_last(in_shape(g, n, 1));
    double *h = mem_zalloc((size_t)count, sizeof *h), *dh = mem_zalloc((size_t)count, sizeof *dh);
    for (int64_t c = 0; c < channels; c++) {
        dg[c] = db[c] = 0;
        for (int64_t i = c; i < count; i += channels) {
            h[i] = (x[i] - mean[c]) * rstd[c];
            double d = n->attr.norm.gelu ? dy[i] * ref_gelu_slope(h[i] * gain[c] + bias[c]) : dy[i];
            dh[i] = d * gain[c];
            dg[c] += d * h[i];
            db[c] += d;
        }
        normalized_dx(dx + c, dh + c, h + c, rstd[c], count / channels, channels);
    }
    free(h);
    free(dh);
}

REF(batch_norm_eval) {
    const double *x = in[0], *gain = in[1], *bias = in[2], *running_mean = in[3], *running_var = in[4];
    int64_t count = shape_count(in_shape(g, n, 0)), channels = shape_last(in_shape(g, n, 0));
    for (int64_t i = 0; i < count; i++) {
        int64_t c = i % channels;
        out[0][i] = (x[i] - running_mean[c]) / sqrt(running_var[c] + (double)n->attr.norm.eps) * gain[c] + bias[c];
    }
}

REF(fold_batch_norm) {
    const double *w = in[0], *b = in[1], *gain = in[2], *beta = in[3], *running_mean = in[4], *running_var = in[5];
    int64_t outs = in_shape(g, n, 0)->dim[0], each = shape_count(in_shape(g, n, 0)) / outs;
    for (int64_t o = 0; o < outs; o++) {
        double scale = gain[o] / sqrt(running_var[o] + (double)n->attr.norm.eps);
        for (int64_t i = 0; i < each; i++) out[0][o * each + i] = w[o * each + i] * scale;
        out[1][o] = (b[o] - running_mean[o]) * scale + beta[o];
    }
}
