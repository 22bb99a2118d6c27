/* attention.cuh - what the files of the attention kernels share: sizes, the rotary table, loads and stores of a head's
 * channels, and the local enhancement. Formulas are in graph/op_attention.c.
 *
 * A head's d channels are padded with zeros to D = 32, 64 or 96 in shared memory, so that only loads and stores know
 * about odd sizes. Whatever is not a feature (z, sums over tokens, statistics, all accumulators) is float32. */
#ifndef MALA_CUDA_ATTENTION_CUH
#define MALA_CUDA_ATTENTION_CUH

#include <string.h>

#include "backend/cuda/mma.cuh"

#define MAX_HEAD 96

/* Runs the statements with D standing for the head's channels, padded. */
#define WITH_HEAD(d, D, ...) \
    do { \
        if ((d) <= 32) { \
            constexpr int D = 32; \
            __VA_ARGS__; \
        } else if ((d) <= 64) { \
            constexpr int D = 64; \
            __VA_ARGS__; \
        } else { \
            constexpr int D = 96; \
            __VA_ARGS__; \
        } \
    } while (0)

/* cosine and sine of position * rope_angle(pair) */
struct alignas(8) Turn {
    float cosine, sine;
};

struct AttentionSize {
    AttentionKind kind;
    int batch, height, width, tokens, channels, heads, d;
    float scale;       /* d^-1/2 */
    const Turn *turns; /* (max(height, width), d / 4) */
};

/* A call of either op; what it does not have or nobody wants is NULL. Features are T: qkvo, y, mix, dy, dqkvo. */
struct Attention {
    const KernelCall *call;
    AttentionSize size;
    const void *qkvo;
    const float *w, *b; /* (C,1,5,5), (C) */
    void *y, *mix;
    float *stats;
    const void *dy, *old_mix;
    const float *old_stats;
    void *dqkvo;
    float *dw, *db;
};

template <class T> void attention_linear_forward(const Attention &a);
template <class T> void attention_linear_backward(const Attention &a);
template <class T> void attention_softmax_forward(const Attention &a);
template <class T> void attention_softmax_backward(const Attention &a);
/* bytes of call->work, element being the size of T */
size_t attention_linear_work(const AttentionSize &s, size_t element, bool backward);
size_t attention_softmax_work(const AttentionSize &s, size_t element, bool backward);

/* dw, db of the local enhancement from v in qkvo and g (B,N,C), the gradient of mix. parts takes attention_taps_work */
template <class T> void attention_taps_gradient(const Attention &a, const T *g, float *parts);
size_t attention_taps_work(const AttentionSize &s);

/* Takes room for `bytes` out of a workspace under construction, on 256 bytes. */
static inline size_t take_bytes(size_t *used, size_t bytes) {
    size_t at = *used;
    *used += ROUND_UP(bytes, (size_t)256);
    return at;
}

/* ---- channels of a head: four or eight at once. d is a multiple of 4, so that four never straddle its end ---- */

template <class T> struct alignas(4 * sizeof(T)) Quad { T x[4]; };
template <class T> struct alignas(16) Oct { T x[8]; };

/* Stores are of one number, 8 or 16 bytes: of a struct, where much is in registers, the compiler stores the parts one
 * by one. word(x): as many features as make up 8 bytes. */
template <class T> __device__ inline uint64_t word(const float *x) {
    uint64_t bits = 0;
    UNROLL for (int i = 0; i < 8 / (int)sizeof(T); i++) {
        T feature = from_float<T>(x[i]);
        if constexpr (sizeof(T) == 2) {
            uint16_t part;
            memcpy(&part, &feature, sizeof part);
            bits |= (uint64_t)part << 16 * i;
        } else {
            uint32_t part;
            memcpy(&part, &feature, sizeof part);
            bits |= (uint64_t)part << 32 * i;
        }
    }
    return bits;
}
template <class T> __device__ inline void store_16(T *p, const float *x) {
    *(unsigned __int128 *)p = (unsigned __int128)word<T>(x + 8 / sizeof(T)) << 64 | word<T>(x);
}

template <class T> __device__ inline Quad<T> load_quad(const T *p) { return *(const Quad<T> *)p; }
template <class T> __device__ inline void store_quad(T *p, const float *x) {
    if constexpr (sizeof(T) == 2)
        *(uint64_t *)p = word<T>(x);
    else
        store_16(p, x);
}

/* channel .. channel + 8 of a token's head; zeros from d on. 16-bit heads lie on 16 bytes if 8 divides d. */
template <class T> __device__ inline Oct<T> load_oct(const T *head, int channel, int d) {
    Oct<T> v;
    if (sizeof(T) == 4 || d % 8) {
        UNROLL for (int i = 0; i < 8; i += 4) {
            Quad<T> half = {};
            if (channel + i < d) half = load_quad(head + channel + i);
            UNROLL for (int j = 0; j < 4; j++) v.x[i + j] = half.x[j];
        }
    } else {
        v = channel < d ? *(const Oct<T> *)(head + channel) : Oct<T>{};
    }
    return v;
}

template <class T> __device__ inline void store_oct(T *head, int channel, int d, const float *x) {
    if (sizeof(T) == 4 || d % 8) {
        UNROLL for (int i = 0; i < 8; i += 4) if (channel + i < d) store_quad(head + channel + i, x + i);
    } else if (channel < d) {
        store_16(head + channel, x);
    }
}

template <class T> __device__ inline void oct_floats(float *x, const Oct<T> &v) {
    UNROLL for (int i = 0; i < 8; i++) x[i] = to_float(v.x[i]);
}

/* Rows of shared tiles are 16 bytes longer than D: neighbours start in other banks. */
template <class T, int D> struct TileRow { static constexpr int LENGTH = D + 16 / (int)sizeof(T); };

/* eight values to a tile's row, which has them all */
template <class T> __device__ inline void tile_oct(T *row, int channel, const float *x) {
    store_oct(row, channel, 1 << 20, x);
}

/* ---- functions ---- */

__device__ inline float phi(float x) { return x > 0 ? x + 1 : expf(x); }
__device__ inline float phi_slope(float value) { return fminf(value, 1.0f); }

/* out = r_factor(z) r + v_factor(z) mean(v), and the slopes of both factors */
struct Factors {
    float r, v, r_slope, v_slope;
};

__device__ inline Factors factors(AttentionKind kind, float z) {
    float inverse = 1 / (z + 1e-6f);
    if (kind == ATTN_MALA) return {1 + inverse, -z, -inverse * inverse, -1};
    if (kind == ATTN_LINEAR) return {inverse, 0, -inverse * inverse, 0};
    return {1, 1 - z, 0, -1};
}

/* Turns eight channels of a token in place; direction -1 turns back. */
__device__ inline void turn_oct(float *x, const AttentionSize &s, int channel, int token, float direction) {
    const int pairs = s.d / 4, row = token / s.width, column = token % s.width;
    UNROLL for (int i = 0; i < 4; i++) {
        int pair = channel / 2 + i;
        if (pair >= 2 * pairs) continue;
        Turn t = s.turns[pair < pairs ? row * pairs + pair : column * pairs + pair - pairs];
        float a = x[2 * i], b = x[2 * i + 1], sine = direction * t.sine;
        x[2 * i] = a * t.cosine - b * sine;
        x[2 * i + 1] = b * t.cosine + a * sine;
    }
}

/* ---- tiles of the picture ---- */

/* A block that ends with the local enhancement takes a rectangle of tokens: 8x8 where SHARED_LIMIT allows, a compromise
 * between what is read twice at its edges and the blocks that a small picture makes. */
#define TILE_COLUMNS 8
template <class T, int D> struct Rectangle {
    static constexpr int ROWS = sizeof(T) == 4 || D > 64 ? 4 : 8, TOKENS = ROWS * TILE_COLUMNS;
};

struct TileAt {
    int row, column; /* of its first token */
};
template <class T, int D> __device__ inline TileAt tile_at(const AttentionSize &s, int tile) {
    int across = CEIL_DIV(s.width, TILE_COLUMNS);
    return {tile / across * Rectangle<T, D>::ROWS, tile % across * TILE_COLUMNS};
}
template <class T, int D> static inline int tile_count(const AttentionSize &s) {
    constexpr int ROWS = Rectangle<T, D>::ROWS;
    return CEIL_DIV(s.width, TILE_COLUMNS) * CEIL_DIV(s.height, ROWS);
}
/* token i of a tile, or -1 beyond the picture's edge */
__device__ inline int tile_token(const AttentionSize &s, TileAt at, int i) {
    int row = at.row + i / TILE_COLUMNS, column = at.column + i % TILE_COLUMNS;
    return row < s.height && column < s.width ? row * s.width + column : -1;
}

/* ---- the local enhancement ---- */

/* taps (25, D) in shared memory = a head's of w (C,25), by half a turn if `turned`; zeros from d on */
template <int D>
__device__ inline void load_taps(float *taps, const AttentionSize &s, const float *w, int head, bool turned) {
    const float *of_head = w + (int64_t)head * s.d * 25;
    for (int i = threadIdx.x; i < 25 * D; i += blockDim.x) {
        int channel = i / 25, tap = i % 25;
        taps[(turned ? 24 - tap : tap) * D + channel] = channel < s.d ? of_head[i] : 0;
    }
}

/* out[i][c] += the convolution at column + i of the row, for 4 channels. x: those of the image's first token, tokens
 * `stride` features apart; taps: those channels of (25, D). Memory is read once per row of taps, from the caches; per
 * channel and column that makes 25 multiplications and 15/4 loads. */
template <class T, int D>
__device__ inline void local_strip(float (&out)[TILE_COLUMNS][4], const AttentionSize &s, const T *x, int stride,
                                   const float *taps, int row, int column) {
    UNROLL_BY(1) for (int ky = 0; ky < 5; ky++) {
        int y = row + ky - 2;
        if (y < 0 || y >= s.height) continue;
        const T *at = x + (y * s.width + column - 2) * (int64_t)stride; /* steps: no address is computed anew */
        float in[TILE_COLUMNS + 4][4];
        UNROLL for (int i = 0; i < TILE_COLUMNS + 4; i++, at += stride)
            load_floats(in[i], at, (unsigned)(column + i - 2) < (unsigned)s.width);
        UNROLL for (int kx = 0; kx < 5; kx++) {
            Quad<float> w = load_quad(taps + (ky * 5 + kx) * D);
            UNROLL for (int i = 0; i < TILE_COLUMNS; i++) {
                UNROLL for (int c = 0; c < 4; c++) out[i][c] += w.x[c] * in[i + kx][c];
            }
        }
    }
}

/* The strips of a tile: strip i is a row of the tile and four channels. */
template <class T, int D> struct Strips {
    static constexpr int ACROSS = D / 4, COUNT = Rectangle<T, D>::ROWS * ACROSS;
};

/* mix = attention + dwconv5(v) + b and y = mix o for a tile whose attention (tokens, D + 4) lies in shared memory.
 * qkvo, y and mix are at the head's first channel of the image. */
template <class T, int D>
__device__ inline void finish_tile(const AttentionSize &s, TileAt at, const float *attention, const float *taps,
                                   const float *bias, const T *qkvo, T *y, T *mix) {
    const int64_t stride = 4 * (int64_t)s.channels;
    for (int i = threadIdx.x; i < Strips<T, D>::COUNT; i += blockDim.x) {
        int channel = i % Strips<T, D>::ACROSS * 4, line = i / Strips<T, D>::ACROSS, row = at.row + line;
        if (channel >= s.d || row >= s.height) continue;
        float out[TILE_COLUMNS][4];
        Quad<float> b = load_quad(bias + channel);
        UNROLL for (int j = 0; j < TILE_COLUMNS; j++) {
            UNROLL for (int c = 0; c < 4; c++) out[j][c] = b.x[c];
        }
        local_strip<T, D>(out, s, qkvo + 2 * s.channels + channel, stride, taps + channel, row, at.column);
        UNROLL for (int j = 0; j < TILE_COLUMNS; j++) {
            int column = at.column + j;
            if (column >= s.width) continue;
            int64_t token = (int64_t)row * s.width + column;
            Quad<float> r = load_quad(attention + (line * TILE_COLUMNS + j) * (D + 4) + channel);
            Quad<T> gate = load_quad(qkvo + token * stride + 3 * s.channels + channel);
            UNROLL for (int c = 0; c < 4; c++) out[j][c] += r.x[c];
            if (mix) store_quad(mix + token * s.channels + channel, out[j]);
            UNROLL for (int c = 0; c < 4; c++) out[j][c] *= to_float(gate.x[c]);
            if (y) store_quad(y + token * s.channels + channel, out[j]);
        }
    }
}

/* dv = what lies in the tile + its mean + the convolution's part, from g with taps by half a turn, in the same tiles. g
 * and dv are at the head's first channel of the image. */
template <class T, int D>
__device__ inline void finish_dv(const AttentionSize &s, TileAt at, const float *tile, const float *taps,
                                 const float *mean, const T *g, T *dv) {
    for (int i = threadIdx.x; i < Strips<T, D>::COUNT; i += blockDim.x) {
        int channel = i % Strips<T, D>::ACROSS * 4, line = i / Strips<T, D>::ACROSS, row = at.row + line;
        if (channel >= s.d || row >= s.height) continue;
        float out[TILE_COLUMNS][4];
        UNROLL for (int j = 0; j < TILE_COLUMNS; j++) {
            Quad<float> r = load_quad(tile + (line * TILE_COLUMNS + j) * (D + 4) + channel);
            UNROLL for (int c = 0; c < 4; c++) out[j][c] = r.x[c] + (mean ? mean[channel + c] : 0);
        }
        local_strip<T, D>(out, s, g + channel, s.channels, taps + channel, row, at.column);
        UNROLL for (int j = 0; j < TILE_COLUMNS; j++) {
            int column = at.column + j;
            if (column < s.width) store_quad(dv + ((int64_t)row * s.width + column) * 4 * s.channels + channel, out[j]);
        }
    }
}

#endif
