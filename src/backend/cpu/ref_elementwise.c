/* ref_elementwise.c - the definition of the element-wise ops. */
#include "backend/cpu/ref.h"

#include <math.h>

#define PI 3.14159265358979323846

static double normal_cdf(double x) { return 0.5 * erfc(-x / sqrt(2)); }
static double normal_pdf(double x) { return exp(-x * x / 2) / sqrt(2 * PI); }
double ref_gelu_of(double x) { return x * normal_cdf(x); }
double ref_gelu_slope(double x) { return normal_cdf(x) + x * normal_pdf(x); }
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

REF(normalize) {
    const float *mean = n->attr.normalize.mean, *std = n->attr.normalize.std;
    int64_t count = shape_count(out_shape(g, n, 0));
    for (int64_t i = 0; i < count; i++) out[0][i] = (in[0][i] / 255 - mean[i % 3]) / std[i % 3];
}

double ref_round(double x, DType dtype) {
    if (dtype != DT_BF16 && dtype != DT_F16) return x;
    int precision = dtype == DT_BF16 ? 8 : 11, lowest = dtype == DT_BF16 ? -126 : -14, exponent;
    double largest = dtype == DT_BF16 ? 0x1.fep127 : 65504;
    if (!isfinite(x) || x == 0) return x;
    frexp(x, &exponent); /* |x| in [2^(exponent - 1), 2^exponent) */
    double unit = ldexp(1, (exponent - 1 < lowest ? lowest : exponent - 1) - precision + 1);
    double rounded = nearbyint(x / unit) * unit;
    return fabs(rounded) > largest ? copysign(INFINITY, x) : rounded;
}

REF(cast) {
    int64_t count = shape_count(out_shape(g, n, 0));
    for (int64_t i = 0; i < count; i++) out[0][i] = ref_round(in[0][i], n->attr.cast.dtype);
}

REF(gelu) {
    int64_t count = shape_count(out_shape(g, n, 0));
    for (int64_t i = 0; i < count; i++) out[0][i] = ref_gelu_of(in[0][i]);
}

REF(gelu_bwd) {
    const double *dy = in[0], *x = in[1];
    int64_t count = shape_count(out_shape(g, n, 0));
    for (int64_t i = 0; i < count; i++) out[0][i] = dy[i] * ref_gelu_slope(x[i]);
}

REF(silu) {
    int64_t count = shape_count(out_shape(g, n, 0));
    for (int64_t i = 0; i < count; i++) out[0][i] = in[0][i] * sigmoid(in[0][i]);
}

REF(silu_bwd) {
    const double *dy = in[0], *x = in[1];
    int64_t count = shape_count(out_shape(g, n, 0));
    for (int64_t i = 0; i < count; i++) {
        double s = sigmoid(x[i]);
        out[0][i] = dy[i] * s * (1 + x[i] * (1 - s));
    }
}

REF(add) {
    int64_t count = shape_count(out_shape(g, n, 0));
    for (int64_t i = 0; i < count; i++) out[0][i] = in[0][i] + in[1][i];
}

REF(multiply) {
    int64_t count = shape_count(out_shape(g, n, 0));
    for (int64_t i = 0; i < count; i++) out[0][i] = in[0][i] * in[1][i];
}

/* 1, or what stochastic depth multiplies the branch of element i with */
static double keep_of(const Graph *g, const Node *n, double *const *in, int64_t i) {
    const Shape *u = in_shape(g, n, 1);
    int64_t sample = i / (shape_count(u) / u->dim[0]);
    return n->n_in > 3 && in[3] ? in[3][n->attr.residual.stream * u->dim[0] + sample] : 1;
}

REF(residual) {
    const double *x = in[0], *u = in[1], *gamma = in[2];
    int64_t count = shape_count(out_shape(g, n, 0)), channels = shape_last(out_shape(g, n, 0));
    for (int64_t i = 0; i < count; i++) out[0][i] = x[i] + keep_of(g, n, in, i) * gamma[i % channels] * u[i];
}

REF(residual_bwd) {
    const double *dy = in[0], *u = in[1], *gamma = in[2];
    double *du = out[0], *dgamma = out[1];
    int64_t count = shape_count(out_shape(g, n, 0)), channels = shape_last(out_shape(g, n, 0));
    for (int64_t c = 0; c < channels; c++) dgamma[c] = 0;
    for (int64_t i = 0; i < count; i++) {
        double keep = keep_of(g, n, in, i);
        du[i] = dy[i] * keep * gamma[i % channels];
        dgamma[i % channels] += dy[i] * keep * u[i];
    }
}

REF(mean_pool) {
    const Shape *x = in_shape(g, n, 0);
    int64_t pixels = x->dim[1] * x->dim[2], channels = x->dim[3];
    for (int64_t b = 0; b < x->dim[0]; b++) {
        for (int64_t c = 0; c < channels; c++) {
            double sum = 0;
            for (int64_t p = 0; p < pixels; p++) sum += in[0][(b * pixels + p) * channels + c];
            out[0][b * channels + c] = sum / (double)pixels;
        }
    }
}

REF(mean_pool_bwd) {
    const Shape *dx = out_shape(g, n, 0);
    int64_t pixels = dx->dim[1] * dx->dim[2], channels = dx->dim[3];
    for (int64_t i = 0; i < shape_count(dx); i++) {
        int64_t b = i / (pixels * channels), c = i % channels;
        out[0][i] = in[0][b * channels + c] / (double)pixels;
    }
}

REF(zeros) {
    (void)in;
    for (int64_t i = 0; i < shape_count(out_shape(g, n, 0)); i++) out[0][i] = 0;
}
