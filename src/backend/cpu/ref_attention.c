/* ref_attention.c - the definition of attention and its gradient; formulas in graph/op_attention.c. */
#include "backend/cpu/ref.h"

#include <math.h>
#include <stdlib.h>

#include "backend/rope.h"

static const double eps = 1e-6;

typedef struct {
    AttentionKind kind;
    int64_t batch, height, width, tokens, channels, heads, d;
    double scale;
} Size;

static Size size_of(const Node *n, const Shape *qkvo) {
    Size s = {.kind = n->attr.attention.kind, .batch = qkvo->dim[0], .height = qkvo->dim[1], .width = qkvo->dim[2],
              .tokens = qkvo->dim[1] * qkvo->dim[2], .channels = qkvo->dim[3] / 4, .heads = n->attr.attention.heads};
    s.d = s.channels / s.heads;
    s.scale = 1 / sqrt((double)s.d);
    return s;
}

static double *numbers(int64_t count) { return mem_zalloc((size_t)count, sizeof(double)); }

static double dot(const double *a, const double *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static double phi(double x) { return x > 0 ? x + 1 : exp(x); }
static double phi_slope(double x) { return x > 0 ? 1 : exp(x); }

/* Turns x (d), a head of a token, in place; direction -1 turns back. */
static void rotate(const Size *s, double *x, int64_t token, int direction) {
    int pairs = (int)(s->d / 4);
    for (int i = 0; i < 2 * pairs; i++) {
        int64_t position = i < pairs ? token / s->width : token % s->width;
        double angle = direction * (double)position * (double)rope_angle(i % pairs, pairs);
        double a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cos(angle) - b * sin(angle);
        x[2 * i + 1] = b * cos(angle) + a * sin(angle);
    }
}

/* One head of one image as matrices (N, d): the operands as given, and after phi (linear kinds) and rotation. */
typedef struct {
    double *q, *k, *v, *phi_q, *phi_k, *turned_q, *turned_k;
} Head;

/* out (N, d) from part 0..3 (q, k, v, o) of qkvo */
static double *gather(const Size *s, const double *x, int64_t stride, int64_t image, int64_t first_channel) {
    double *out = numbers(s->tokens * s->d);
    for (int64_t t = 0; t < s->tokens; t++)
        for (int64_t c = 0; c < s->d; c++) out[t * s->d + c] = x[(image * s->tokens + t) * stride + first_channel + c];
    return out;
}

static double *mapped(const Size *s, const double *x, bool apply_phi, bool turn) {
    double *out = numbers(s->tokens * s->d);
    for (int64_t t = 0; t < s->tokens; t++) {
        for (int64_t c = 0; c < s->d; c++) out[t * s->d + c] = apply_phi ? phi(x[t * s->d + c]) : x[t * s->d + c];
        if (turn) rotate(s, out + t * s->d, t, 1);
    }
    return out;
}

static Head head_new(const Size *s, const double *qkvo, int64_t image, int64_t head) {
    Head h;
    bool linear = s->kind != ATTN_SOFTMAX;
    h.q = gather(s, qkvo, 4 * s->channels, image, head * s->d);
    h.k = gather(s, qkvo, 4 * s->channels, image, s->channels + head * s->d);
    h.v = gather(s, qkvo, 4 * s->channels, image, 2 * s->channels + head * s->d);
    h.phi_q = mapped(s, h.q, linear, false);
    h.phi_k = mapped(s, h.k, linear, false);
    h.turned_q = mapped(s, h.q, linear, true);
    h.turned_k = mapped(s, h.k, linear, true);
    return h;
}

static void head_free(Head *h) {
    double *all[] = {h->q, h->k, h->v, h->phi_q, h->phi_k, h->turned_q, h->turned_k};
    for (size_t i = 0; i < COUNTOF(all); i++) free(all[i]);
}

/* out = factor_r(z) r + factor_v(z) mean(v), and the factors' derivatives */
typedef struct {
    double r, v, r_slope, v_slope;
} Factors;

static Factors factors(AttentionKind kind, double z) {
    double inverse = 1 / (z + eps);
    switch (kind) {
    case ATTN_MALA: return (Factors){1 + inverse, -z, -inverse * inverse, -1};
    case ATTN_LINEAR: return (Factors){inverse, 0, -inverse * inverse, 0};
    default: return (Factors){1, 1 - z, 0, -1};
    }
}

/* mean phi(k) (d), mean(v) (d), kv (d,d) */
static void linear_stats(const Size *s, const Head *h, double *stats) {
    double *kv = stats + 2 * s->d;
    for (int64_t i = 0; i < (2 + s->d) * s->d; i++) stats[i] = 0;
    for (int64_t t = 0; t < s->tokens; t++) {
        for (int64_t i = 0; i < s->d; i++) {
            stats[i] += h->phi_k[t * s->d + i] / (double)s->tokens;
            stats[s->d + i] += h->v[t * s->d + i] / (double)s->tokens;
            for (int64_t j = 0; j < s->d; j++)
                kv[i * s->d + j] += h->turned_k[t * s->d + i] * h->v[t * s->d + j] * s->scale / (double)s->tokens;
        }
    }
}

static void linear_token(const Size *s, const Head *h, const double *stats, int64_t t, double *out) {
    const double *mean_k = stats, *mean_v = stats + s->d, *kv = stats + 2 * s->d;
    Factors f = factors(s->kind, s->scale * dot(h->phi_q + t * s->d, mean_k, s->d));
    for (int64_t j = 0; j < s->d; j++) {
        double r = 0;
        for (int64_t i = 0; i < s->d; i++) r += h->turned_q[t * s->d + i] * kv[i * s->d + j];
        out[j] = f.r * r + f.v * mean_v[j];
    }
}

static double score(const Size *s, const Head *h, int64_t i, int64_t j) {
    return s->scale * dot(h->turned_q + i * s->d, h->turned_k + j * s->d, s->d);
}

static double log_sum_exp(const Size *s, const Head *h, int64_t t) {
    double largest = -INFINITY, sum = 0;
    for (int64_t j = 0; j < s->tokens; j++) largest = fmax(largest, score(s, h, t, j));
    for (int64_t j = 0; j < s->tokens; j++) sum += exp(score(s, h, t, j) - largest);
    return largest + log(sum);
}

static void softmax_token(const Size *s, const Head *h, double lse, int64_t t, double *out) {
    for (int64_t c = 0; c < s->d; c++) out[c] = 0;
    for (int64_t j = 0; j < s->tokens; j++) {
        double p = exp(score(s, h, t, j) - lse);
        for (int64_t c = 0; c < s->d; c++) out[c] += p * h->v[j * s->d + c];
    }
}

/* The 25 taps around a token that lie inside the picture: calls for each with the tap and the neighbouring token. */
#define FOR_TAPS(s, token, tap, neighbour) \
    for (int64_t tap = 0, neighbour; tap < 25; tap++) \
        if ((neighbour = neighbour_of(s, token, tap)) >= 0)

static int64_t neighbour_of(const Size *s, int64_t token, int64_t tap) {
    int64_t y = token / s->width + tap / 5 - 2, x = token % s->width + tap % 5 - 2;
    return y < 0 || y >= s->height || x < 0 || x >= s->width ? -1 : y * s->width + x;
}

REF(attention) {
    Size s = size_of(n, in_shape(g, n, 0));
    const double *qkvo = in[0], *w = in[1], *b = in[2];
    double *y = out[0], *mix = out[1];
    int64_t stats_size = shape_count(out_shape(g, n, 2)) / (s.batch * s.heads);
    for (int64_t i = 0; i < s.batch * s.heads; i++) {
        int64_t image = i / s.heads, first = i % s.heads * s.d;
        double *stats = out[2] + i * stats_size;
        Head h = head_new(&s, qkvo, image, i % s.heads);
        if (s.kind != ATTN_SOFTMAX) linear_stats(&s, &h, stats);
        for (int64_t t = 0; t < s.tokens; t++) {
            double *to = mix + (image * s.tokens + t) * s.channels + first;
            if (s.kind == ATTN_SOFTMAX)
                softmax_token(&s, &h, stats[t] = log_sum_exp(&s, &h, t), t, to);
            else
                linear_token(&s, &h, stats, t, to);
            for (int64_t c = 0; c < s.d; c++) {
                to[c] += b[first + c];
                FOR_TAPS(&s, t, tap, from) to[c] += w[(first + c) * 25 + tap] * h.v[from * s.d + c];
            }
        }
        head_free(&h);
    }
    for (int64_t t = 0; t < s.batch * s.tokens; t++)
        for (int64_t c = 0; c < s.channels; c++)
            y[t * s.channels + c] = mix[t * s.channels + c] * qkvo[(t * 4 + 3) * s.channels + c];
}

/* Gradients of one head by the rotated (softmax) or mapped and rotated q and k, and by v; all (N, d). */
typedef struct {
    double *q, *k, *v;
} HeadGrad;

static void linear_gradient(const Size *s, const Head *h, const double *g, const double *stats, HeadGrad *d) {
    const int64_t n = s->tokens, w = s->d;
    const double *mean_k = stats, *mean_v = stats + w, *kv = stats + 2 * w;
    double *dkv = numbers(w * w), *dmean_k = numbers(w), *dmean_v = numbers(w);
    for (int64_t t = 0; t < n; t++) {
        const double *gt = g + t * w, *turned_q = h->turned_q + t * w, *phi_q = h->phi_q + t * w;
        double *dq = d->q + t * w;
        Factors f = factors(s->kind, s->scale * dot(phi_q, mean_k, w));
        double g_r = 0; /* g . r */
        for (int64_t i = 0; i < w; i++) {
            double kv_g = dot(kv + i * w, gt, w);
            g_r += turned_q[i] * kv_g;
            dq[i] = f.r * kv_g;
            for (int64_t j = 0; j < w; j++) dkv[i * w + j] += turned_q[i] * f.r * gt[j];
        }
        double dz = f.r_slope * g_r + f.v_slope * dot(gt, mean_v, w);
        rotate(s, dq, t, -1);
        for (int64_t i = 0; i < w; i++) {
            dq[i] = (dq[i] + s->scale * dz * mean_k[i]) * phi_slope(h->q[t * w + i]);
            dmean_k[i] += s->scale * dz * phi_q[i];
            dmean_v[i] += f.v * gt[i];
        }
    }
    for (int64_t t = 0; t < n; t++) {
        double *dk = d->k + t * w, *dv = d->v + t * w;
        for (int64_t i = 0; i < w; i++) {
            dk[i] = s->scale / (double)n * dot(dkv + i * w, h->v + t * w, w);
            dv[i] += dmean_v[i] / (double)n;
            for (int64_t j = 0; j < w; j++) dv[i] += s->scale / (double)n * h->turned_k[t * w + j] * dkv[j * w + i];
        }
        rotate(s, dk, t, -1);
        for (int64_t i = 0; i < w; i++) dk[i] = (dk[i] + dmean_k[i] / (double)n) * phi_slope(h->k[t * w + i]);
    }
    free(dkv);
    free(dmean_k);
    free(dmean_v);
}

static void softmax_gradient(const Size *s, const Head *h, const double *g, const double *lse, HeadGrad *d) {
    const int64_t n = s->tokens, w = s->d;
    for (int64_t i = 0; i < n; i++) {
        const double *gi = g + i * w;
        double mean = 0; /* g . attention */
        for (int64_t j = 0; j < n; j++) mean += exp(score(s, h, i, j) - lse[i]) * dot(gi, h->v + j * w, w);
        for (int64_t j = 0; j < n; j++) {
            double p = exp(score(s, h, i, j) - lse[i]), ds = s->scale * p * (dot(gi, h->v + j * w, w) - mean);
            for (int64_t c = 0; c < w; c++) {
                d->q[i * w + c] += ds * h->turned_k[j * w + c];
                d->k[j * w + c] += ds * h->turned_q[i * w + c];
                d->v[j * w + c] += p * gi[c];
            }
        }
    }
    for (int64_t t = 0; t < n; t++) {
        rotate(s, d->q + t * w, t, -1);
        rotate(s, d->k + t * w, t, -1);
    }
}

/* Adds the convolution's part of dv (N, d), dw and db for the channels of one head. */
static void local_gradient(const Size *s, const Head *h, const double *g, const double *w, double *dv, double *dw,
                           double *db) {
    for (int64_t t = 0; t < s->tokens; t++) {
        for (int64_t c = 0; c < s->d; c++) {
            db[c] += g[t * s->d + c];
            FOR_TAPS(s, t, tap, from) {
                dv[from * s->d + c] += w[c * 25 + tap] * g[t * s->d + c];
                dw[c * 25 + tap] += h->v[from * s->d + c] * g[t * s->d + c];
            }
        }
    }
}

REF(attention_bwd) {
    const double *dy = in[0], *qkvo = in[1], *w = in[2], *mix = in[4];
    Size s = size_of(n, in_shape(g, n, 1));
    int64_t stats_size = shape_count(in_shape(g, n, 5)) / (s.batch * s.heads), stride = 4 * s.channels;
    double *dqkvo = out[0], *dw = out[1], *db = out[2];
    for (int64_t i = 0; i < 25 * s.channels; i++) dw[i] = 0;
    for (int64_t i = 0; i < s.channels; i++) db[i] = 0;
    for (int64_t i = 0; i < s.batch * s.heads; i++) {
        int64_t image = i / s.heads, first = i % s.heads * s.d;
        Head h = head_new(&s, qkvo, image, i % s.heads);
        double *gate = gather(&s, qkvo, stride, image, 3 * s.channels + first);
        double *upstream = gather(&s, dy, s.channels, image, first), *mixed = gather(&s, mix, s.channels, image, first);
        double *dmix = numbers(s.tokens * s.d);
        for (int64_t j = 0; j < s.tokens * s.d; j++) dmix[j] = upstream[j] * gate[j];
        HeadGrad d = {numbers(s.tokens * s.d), numbers(s.tokens * s.d), numbers(s.tokens * s.d)};
        if (s.kind == ATTN_SOFTMAX)
            softmax_gradient(&s, &h, dmix, in[5] + i * stats_size, &d);
        else
            linear_gradient(&s, &h, dmix, in[5] + i * stats_size, &d);
        local_gradient(&s, &h, dmix, w + first * 25, d.v, dw + first * 25, db + first);
        for (int64_t t = 0; t < s.tokens; t++) {
            double *to = dqkvo + (image * s.tokens + t) * stride + first;
            for (int64_t c = 0, j = t * s.d; c < s.d; c++, j++) {
                to[c] = d.q[j];
                to[s.channels + c] = d.k[j];
                to[2 * s.channels + c] = d.v[j];
                to[3 * s.channels + c] = upstream[j] * mixed[j];
            }
        }
        double *all[] = {gate, upstream, mixed, dmix, d.q, d.k, d.v};
        for (size_t j = 0; j < COUNTOF(all); j++) free(all[j]);
        head_free(&h);
    }
}
