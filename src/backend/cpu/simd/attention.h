/* attention.h - what the files of the attention kernels share: sizes, the rotary table, the walk over tokens, and the
 * local enhancement. Formulas are in graph/op_attention.c.
 *
 * Operands are read where they lie, a head being d of a token's 4C channels. Products work on copies of tiles whose
 * rows are padded to whole vectors with zeros, so that only the copying knows about odd sizes (and about strides that
 * are a power of two, which caches dislike). */
#ifndef MALA_SIMD_ATTENTION_H
#define MALA_SIMD_ATTENTION_H

#include "backend/cpu/simd/dwconv.h"
#include "backend/cpu/simd/microgemm.h"
#include "backend/cpu/simd/shuffle.h"

enum {
    MAX_HEAD = ATTENTION_MAX_HEAD,
    TILE_FLOATS = 4096, /* scratch memory of a task's tile, on its stack: 16 kB, half of a first-level cache */
    MAX_TILE_TOKENS = 64,
};

typedef struct {
    AttentionKind kind;
    int batch, height, width, tokens, channels, heads, dim;
    int pad;           /* dim in whole vectors */
    int tile;          /* tokens per tile: tile * pad <= TILE_FLOATS */
    int group;         /* images taken at a time; batch is that or less in the passes over a group */
    int chunks;        /* bands of rows per image: the tasks of most passes, and partial sums over the tokens */
    float scale;       /* dim^-1/2 */
    const float *rope; /* (height + width, 2, pad), see Rope */
} AttentionSize;

/* A call, or its share of some images. What is a gradient is NULL in a forward call; so is what nobody wants. */
typedef struct {
    AttentionSize size;
    const float *qkvo;   /* (B,N,4C) */
    const float *taps;   /* (25,C): w transposed */
    const float *turned; /* the same, by half a turn */
    const float *bias;   /* (C) */
    float *y, *mix;      /* (B,N,C) */
    float *stats;
    const float *dy, *old_mix; /* (B,N,C) */
    const float *old_stats;
    float *dqkvo;
    float *tap_parts; /* (B * chunks, 26, C): partial dw and db */
    float *work;
} Attention;

/* body(s, ...) with the heads of MAViT's sizes as constants, so that loops over a head's vectors unroll and sums stay
 * in registers; and in any case with a copy of the sizes that no store can be suspected to change. */
#define FOR_HEAD(size, body, ...) \
    do { \
        AttentionSize fixed = (size); \
        if (fixed.dim == 32) { \
            fixed.dim = fixed.pad = 32; \
            body(&fixed, __VA_ARGS__); \
        } else if (fixed.dim == 64) { \
            fixed.dim = fixed.pad = 64; \
            body(&fixed, __VA_ARGS__); \
        } else if (fixed.dim == 96) { \
            fixed.dim = fixed.pad = 96; \
            body(&fixed, __VA_ARGS__); \
        } else { \
            body(&fixed, __VA_ARGS__); \
        } \
    } while (0)

#define attention_linear_forward ISA_NAME(attention_linear_forward)
#define attention_linear_backward ISA_NAME(attention_linear_backward)
#define attention_linear_work ISA_NAME(attention_linear_work)
#define attention_softmax_forward ISA_NAME(attention_softmax_forward)
#define attention_softmax_backward ISA_NAME(attention_softmax_backward)
#define attention_softmax_work ISA_NAME(attention_softmax_work)

void attention_linear_forward(const Attention *a);
void attention_linear_backward(const Attention *a);
void attention_softmax_forward(const Attention *a);
void attention_softmax_backward(const Attention *a);
/* floats of a->work */
size_t attention_linear_work(const AttentionSize *s, bool backward);
size_t attention_softmax_work(const AttentionSize *s, bool backward);

/* Takes room for `floats` out of a workspace under construction, on a line of its own. */
static inline size_t take(size_t *used, size_t floats) {
    size_t at = *used;
    *used += ROUND_UP(floats, (size_t)16);
    return at;
}

/* ---- parts of an image ---- */

/* Rows [y0, y1) of one head of an image. */
typedef struct {
    int64_t head; /* of the batch */
    int y0, y1;
    int64_t token;   /* of the batch: the first of the rows */
    int64_t channel; /* the head's first */
} Place;

/* Task `index` of (batch, heads, pieces). */
static inline Place place_of(const AttentionSize *s, int index, int pieces) {
    Place p = {.head = index / pieces, .channel = index / pieces % s->heads * s->dim};
    int64_t piece = index % pieces;
    p.y0 = (int)(s->height * piece / pieces);
    p.y1 = (int)(s->height * (piece + 1) / pieces);
    p.token = p.head / s->heads * s->tokens + (int64_t)p.y0 * s->width;
    return p;
}

/* A row of a matrix (B * heads, N, pad): of a head of the batch, a token of its image. */
static inline float *head_row(const AttentionSize *s, float *x, int64_t head, int64_t token) {
    return x + (head * s->tokens + token) * s->pad;
}

/* Where the walk over tokens is. */
typedef struct {
    int token, row, column;
} Cursor;

static inline Cursor cursor_at(const AttentionSize *s, int token) {
    return (Cursor){token, token / s->width, token % s->width};
}
static inline void cursor_step(const AttentionSize *s, Cursor *c) {
    c->token++;
    if (++c->column == s->width) {
        c->column = 0;
        c->row++;
    }
}

/* ---- vectors of a head's channels j .. j + VL, of which those from dim on are zeros or left alone ---- */

static inline vf load_lanes(const AttentionSize *s, const float *x, int j) {
    return j + VL <= s->dim ? vf_load(x + j) : vf_load_part(x + j, s->dim - j);
}
static inline void store_lanes(const AttentionSize *s, float *x, int j, vf v) {
    if (j + VL <= s->dim)
        vf_store(x + j, v);
    else
        vf_store_part(x + j, v, s->dim - j);
}

/* ---- functions ---- */

/* 2^x for x <= 100, relative error below 2e-7; 2^-125 for what is less; NaN stays. */
static inline vf vf_exp2(vf x) {
    x = vf_max(vf_set(-125), x);
    vf t = x + 12582912.0f; /* round to nearest by the 1.5 * 2^23 trick: the integer is in the low bits of t */
    vf r = x - (t - 12582912.0f);
    vf p = vf_set(1.3276472e-3f); /* minimax fit of 2^r on [-1/2, 1/2] */
    p = p * r + 9.67554133e-3f;
    p = p * r + 5.55071327e-2f;
    p = p * r + 2.40221197e-1f;
    p = p * r + 6.93146967e-1f;
    p = p * r + 1.00000007f;
    return (vf)((vu)p + ((vu)t << 23));
}

#define LOG2E 1.44269504f
#define LN2 0.693147181f

/* phi = elu + 1 = e^min(x, 0) + max(x, 0), split by the sign bit; its derivative is the lesser of phi and 1 */
static inline vf phi(vf x) {
    vi bits = (vi)x, negative = bits >> 31;
    return vf_exp2((vf)(bits & negative) * LOG2E) + (vf)(bits & ~negative);
}
static inline vf phi_slope(vf value) { return vf_min(value, vf_set(1)); }

/* Factors of the rotation at a token: x cos + swap_pairs(x) sin. The table is separable: rows' entries are zero in the
 * second half of the head, columns' in the first, and both beyond its end. */
typedef struct {
    const float *row, *column;
    int half, pad;
} Rope;

static inline Rope rope_at(const AttentionSize *s, const Cursor *c) {
    return (Rope){.row = s->rope + (int64_t)c->row * 2 * s->pad,
                  .column = s->rope + (int64_t)(s->height + c->column) * 2 * s->pad, .half = s->dim / 2, .pad = s->pad};
}
static inline vf rope_factor(const Rope *r, int j, int offset) {
    if (j + VL <= r->half) return vf_load(r->row + offset + j);
    if (j >= r->half) return vf_load(r->column + offset + j);
    return vf_load(r->row + offset + j) + vf_load(r->column + offset + j);
}
static inline vf rope_turn(const Rope *r, int j, vf x) {
    return x * rope_factor(r, j, 0) + swap_pairs(x) * rope_factor(r, j, r->pad);
}
static inline vf rope_turn_back(const Rope *r, int j, vf x) {
    return x * rope_factor(r, j, 0) - swap_pairs(x) * rope_factor(r, j, r->pad);
}

/* to (pad) = d channels at x */
static inline void pack_row(const AttentionSize *s, float *to, const float *x) {
    for (int j = 0; j < s->pad; j += VL) vf_store(to + j, load_lanes(s, x, j));
}

/* Tokens of qkvo lie too far apart for the hardware to foresee the next one's lines. */
enum { TOKENS_AHEAD = 8 };
static inline void prefetch(const AttentionSize *s, const float *x) {
    __builtin_prefetch(x + TOKENS_AHEAD * 4 * (int64_t)s->channels);
}
static inline void prefetch_write(const AttentionSize *s, const float *x) {
    __builtin_prefetch(x + TOKENS_AHEAD * 4 * (int64_t)s->channels, 1);
}

/* ---- the convolution, on copies (B * heads, N, pad) of v and of g, the gradient of mix ---- */

/* y = dwconv5(v) + b; y is the place's first token and channel, its pixels y_stride floats apart */
static inline void local_rows(const Attention *a, float *y, int64_t y_stride, float *v, const Place *p) {
    const AttentionSize *s = &a->size;
    DwconvRows d = {.x = head_row(s, v, p->head, 0), .x_stride = s->pad, .y = y, .y_stride = y_stride,
                    .wt = a->taps + p->channel, .bias = a->bias + p->channel, .kernel = 5, .height = s->height,
                    .width = s->width, .channels = s->channels};
    dwconv_rows(&d, p->y0, p->y1, 0, s->dim);
}

/* dv of dqkvo = the convolution's part of it */
static inline void local_rows_gradient(const Attention *a, float *g, const Place *p) {
    const AttentionSize *s = &a->size;
    DwconvRows d = {.x = head_row(s, g, p->head, 0), .x_stride = s->pad,
                    .y = a->dqkvo + (p->token * 4 + 2) * s->channels + p->channel, .y_stride = 4 * s->channels,
                    .wt = a->turned + p->channel, .kernel = 5, .height = s->height, .width = s->width,
                    .channels = s->channels};
    dwconv_rows(&d, p->y0, p->y1, 0, s->dim);
}

/* The partial gradient of weights and bias that chunk of the image makes, for the channels of the head. */
static inline void local_taps_gradient(const Attention *a, float *v, float *g, const Place *p, int chunk) {
    const AttentionSize *s = &a->size;
    float *part = a->tap_parts + (p->head / s->heads * s->chunks + chunk) * 26 * s->channels + p->channel;
    for (int tap = 0; tap < 26; tap++) memset(part + tap * s->channels, 0, (size_t)s->dim * sizeof(float));
    DwconvDwRows d = {.dy = head_row(s, g, p->head, (int64_t)p->y0 * s->width), .dy_stride = s->pad,
                      .x = head_row(s, v, p->head, 0), .x_stride = s->pad, .dw = part, .db = part + 25 * s->channels,
                      .kernel = 5, .height = s->height, .width = s->width, .channels = s->channels};
    dwconv_dw_rows(&d, p->y0, p->y1, 0, s->dim);
}

#endif
