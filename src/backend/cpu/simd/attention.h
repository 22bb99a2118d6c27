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

enum {
    MAX_HEAD = 512,     /* channels of a head: as the op's row grants */
    TILE_FLOATS = 4096, /* scratch memory of a task's tile, on its stack: 16 kB, half of a first-level cache */
    MAX_TILE_TOKENS = 64,
};

typedef struct {
    AttentionKind kind;
    int batch, height, width, tokens, channels, heads, dim;
    int pad;           /* dim in whole vectors */
    int tile;          /* tokens per tile: tile * pad <= TILE_FLOATS */
    float scale;       /* dim^-1/2 */
    const float *rope; /* (height + width, 2, pad), see rope_make */
} AttentionSize;

/* One call. What is a gradient is NULL in a forward call; what nobody wants is NULL. */
typedef struct {
    AttentionSize size;
    const float *qkvo;     /* (B,N,4C) */
    const float *taps;     /* (25,C): w transposed */
    const float *turned;   /* the same turned by half a turn: a backward call's */
    const float *bias;     /* (C) */
    float *y, *mix, *stats;
    const float *dy;       /* (B,N,C) */
    const float *old_mix, *old_stats;
    float *dqkvo, *dw, *db;
    float *work;
} Attention;

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

/* ---- parts of a picture ---- */

/* Bands of whole rows of nearly `tokens` tokens. */
static inline int band_rows(const AttentionSize *s, int tokens) {
    return MIN(MAX(1, tokens / s->width), s->height);
}

/* Takes room for `floats` out of a workspace under construction, on a line of its own. */
static inline size_t take(size_t *used, size_t floats) {
    size_t at = *used;
    *used += ROUND_UP(floats, (size_t)16);
    return at;
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
    return (vf)((vi)p + ((vi)t << 23));
}

#define LOG2E 1.44269504f
#define LN2 0.693147181f

/* phi = elu + 1; its derivative is the lesser of phi and 1 */
static inline vf phi(vf x) { return vf_select(x <= 0, vf_exp2(x * LOG2E), x + 1); }
static inline vf phi_slope(vf value) { return vf_min(value, vf_set(1)); }

/* (a, b, c, d ...) -> (b, a, d, c ...) */
static inline vf swap_pairs(vf x) {
#if VL == 16
    return __builtin_shuffle(x, (vi){1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14});
#elif VL == 8
    return __builtin_shuffle(x, (vi){1, 0, 3, 2, 5, 4, 7, 6});
#else
    return __builtin_shuffle(x, (vi){1, 0, 3, 2});
#endif
}

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

/* ---- the convolution: rows [y0, y1) and channels [c0, c1) of an image ---- */

/* y = dwconv5(v) + b, its pixels y_stride floats apart; y is the first channel of pixel (y0,0) */
static inline void local_rows(const Attention *a, float *y, int64_t y_stride, int image, int y0, int y1) {
    const AttentionSize *s = &a->size;
    DwconvRows d = {.x = a->qkvo + ((int64_t)image * s->tokens * 4 + 2) * s->channels, .x_stride = 4 * s->channels,
                    .y = y, .y_stride = y_stride, .wt = a->taps, .bias = a->bias, .kernel = 5, .height = s->height,
                    .width = s->width, .channels = s->channels};
    dwconv_rows(&d, y0, y1, 0, s->channels);
}

/* The part of dv that comes from the convolution, from g (B,N,C), the gradient of mix. */
static inline void local_rows_gradient(const Attention *a, const float *g, int image, int y0, int y1, int c0, int c1) {
    const AttentionSize *s = &a->size;
    const int64_t first = (int64_t)image * s->tokens, stride = 4 * s->channels;
    DwconvRows d = {.x = g + first * s->channels, .x_stride = s->channels,
                    .y = a->dqkvo + (first + (int64_t)y0 * s->width) * stride + 2 * s->channels, .y_stride = stride,
                    .wt = a->turned, .kernel = 5, .height = s->height, .width = s->width, .channels = s->channels};
    dwconv_rows(&d, y0, y1, c0, c1);
}

/* What those rows of g contribute to dw and db: part (26, C), of which channels [c0, c1) are written. */
static inline void local_taps_gradient(const Attention *a, float *part, const float *g, int image, int y0, int y1, int c0,
                                       int c1) {
    const AttentionSize *s = &a->size;
    const int64_t first = (int64_t)image * s->tokens;
    for (int tap = 0; tap < 26; tap++) memset(part + tap * s->channels + c0, 0, (size_t)(c1 - c0) * sizeof(float));
    DwconvDwRows d = {.dy = g + (first + (int64_t)y0 * s->width) * s->channels, .dy_stride = s->channels,
                      .x = a->qkvo + (first * 4 + 2) * s->channels, .x_stride = 4 * s->channels, .dw = part,
                      .db = part + 25 * s->channels, .kernel = 5, .height = s->height, .width = s->width,
                      .channels = s->channels};
    dwconv_dw_rows(&d, y0, y1, c0, c1);
}

#endif
