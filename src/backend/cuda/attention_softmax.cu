/* attention_softmax.cu - softmax attention without its N x N matrix: scores live for one tile of queries and keys.
 *
 * Forward: a block takes a rectangle of queries and walks over all keys, with running maxima and sums; it ends with the
 * local enhancement and the gate, so that attention itself never goes to memory. Backward: softmax_gate makes g = dy o,
 * do and u; then scores are made twice, by softmax_query_grad for a rectangle of queries and by softmax_key_grad for
 * one of keys, so that nothing is added up across blocks.
 *
 * Bytes, in units of n = batch * tokens * channels features of 2 bytes, with the floor of one layer of MAViT-T's stage
 * 3 (14x14, 4 heads of 64, n = 12.8 million) at 224, batch 256, at 4.3 TB/s:
 *   - softmax_apply reads q, k, v, o and writes y (and mix): 5 n (6 n), 30 us (36 us)
 *   - softmax_gate reads dy, o, mix, v and writes do, g: 6 n, 36 us
 *   - softmax_query_grad reads q, k, v, g and writes dq: 5 n, 30 us
 *   - softmax_key_grad reads q, k, v, g and writes dk, dv: 6 n, 36 us
 * Other rectangles' keys come from the second-level cache: of the 14x14 tokens of a head, four times. Products: 2 N
 * multiplications a feature forward, 3 N and 4 N backward; at 14x14 memory is the limit, from about 32x32 on the tensor
 * cores. */
#include "backend/cuda/attention.cuh"

#define LOG2E 1.44269504f
#define LN2 0.693147181f

/* Sizes of a block: a warp for 16 tokens of its rectangle, and the tokens of the other side taken at a time: of wide
 * heads fewer, since softmax_key_grad's sums take 96 registers of a thread. */
template <class T, int D> struct Tiling {
    static constexpr int TOKENS = Rectangle<T, D>::TOKENS, THREADS = TOKENS / 16 * WARP,
                         OTHER = sizeof(T) == 4 || D > 64 ? 16 : 32;
    static constexpr int ROW = TileRow<T, D>::LENGTH, PAIR_ROW = TileRow<T, OTHER>::LENGTH, SUM_ROW = D + 4;
    static constexpr int SCRATCH = sizeof(T) == 4 ? 0 : TOKENS / 16 * 16 * 20;
    /* bytes of what a block ends with: a product (TOKENS, D) and the convolution's weights */
    static constexpr size_t END = shared_size<float>(TOKENS * SUM_ROW) + shared_size<float>(25 * D);
};

/* Channels of tokens as rows of a tile, turned if `turn` and times factor; zeros beyond the picture. token_of(i) */
template <class T, int D, class F>
__device__ static inline void load_tile(T *tile, int rows, const AttentionSize &s, const T *x, int64_t stride,
                                        bool turn, float factor, F token_of) {
    for (int i = threadIdx.x; i < rows * (D / 8); i += blockDim.x) {
        int channel = i % (D / 8) * 8, token = token_of(i / (D / 8));
        float v[8] = {};
        if (token >= 0 && channel < s.d) {
            oct_floats(v, load_oct(x + token * stride, channel, s.d));
            if (turn) {
                UNROLL for (int c = 0; c < 8; c++) v[c] *= factor;
                turn_oct(v, s, channel, token, 1);
            }
        }
        tile_oct(tile + i / (D / 8) * TileRow<T, D>::LENGTH, channel, v);
    }
}

/* token i of those from `first` on, or -1 */
struct From {
    int first, end;
    __device__ int operator()(int i) const { return first + i < end ? first + i : -1; }
};
struct InTile {
    const AttentionSize *s;
    TileAt at;
    __device__ int operator()(int i) const { return tile_token(*s, at, i); }
};

/* ---- forward ---- */

/* Rows of 16 queries' scores, a pair of lanes for each, become probabilities up to a factor. */
template <class T, int KEYS> struct RunningSoftmax {
    float top = -INFINITY, total = 0; /* of the lane's row; scores in powers of two */

    /* p (16, KEYS) from scores (16, KEYS + 4) of which `valid` keys count; returns what earlier sums fade by */
    __device__ float step(T *p, int p_row, const float *scores, int valid) {
        const int lane = threadIdx.x % WARP, first = lane % 2 * (KEYS / 2);
        const float *row = scores + lane / 2 * (KEYS + 4) + first;
        float x[KEYS / 2], old = top, sum = 0;
        UNROLL for (int i = 0; i < KEYS / 2; i++) {
            x[i] = first + i < valid ? row[i] : -INFINITY;
            top = fmaxf(top, x[i]);
        }
        top = fmaxf(top, warp_xor(top, 1));
        UNROLL for (int i = 0; i < KEYS / 2; i++) {
            x[i] = exp2f(x[i] - top);
            sum += x[i];
        }
        UNROLL for (int i = 0; i < KEYS / 2; i += 8) tile_oct(p + lane / 2 * p_row, first + i, x + i);
        float fade = exp2f(old - top);
        total = total * fade + sum + warp_xor(sum, 1);
        return fade;
    }
};

/* blocks (rectangles, heads, B); lse (B, heads, N) */
template <class T, int D>
__global__ void __launch_bounds__(Tiling<T, D>::THREADS, 1)
    softmax_apply(AttentionSize s, T *y, T *mix, float *lse, const T *qkvo, const float *w, const float *b) {
    using Size = Tiling<T, D>;
    constexpr int ROW = Size::ROW, KEYS = Size::OTHER;
    SharedMemory shared;
    float *tile = (float *)shared.at, *taps = tile + Size::TOKENS * Size::SUM_ROW; /* what the block ends with */
    T *q = shared.take<T>(Size::TOKENS * ROW), *k = shared.take<T>(KEYS * ROW), *v = shared.take<T>(KEYS * ROW);
    float *scores = shared.take<float>(Size::TOKENS * (KEYS + 4));
    T *p = shared.take<T>(Size::TOKENS * Size::PAIR_ROW);
    float *factor = shared.take<float>(Size::TOKENS);
    const int lane = threadIdx.x % WARP, first = threadIdx.x / WARP * 16; /* the warp's first query */
    const int64_t stride = 4 * (int64_t)s.channels, image = (int64_t)blockIdx.z * s.tokens;
    const TileAt at = tile_at<T, D>(s, blockIdx.x);
    qkvo += image * stride + blockIdx.y * s.d;
    if (y) y += image * s.channels + blockIdx.y * s.d;
    if (mix) mix += image * s.channels + blockIdx.y * s.d;
    load_tile<T, D>(q, Size::TOKENS, s, qkvo, stride, true, s.scale * LOG2E, InTile{&s, at});
    MmaTile<T> sum[D / 16];
    RunningSoftmax<T, KEYS> softmax;
    UNROLL for (int n = 0; n < D / 16; n++) sum[n].fill(0);
    for (int key = 0; key < s.tokens; key += KEYS) {
        barrier();
        load_tile<T, D>(k, KEYS, s, qkvo + s.channels, stride, true, 1, From{key, s.tokens});
        load_tile<T, D>(v, KEYS, s, qkvo + 2 * s.channels, stride, false, 1, From{key, s.tokens});
        barrier();
        MmaTile<T> score[KEYS / 16], fade;
        UNROLL for (int n = 0; n < KEYS / 16; n++) score[n].fill(0);
        mma<D, false, true>(score, q + first * ROW, ROW, k, ROW);
        UNROLL for (int n = 0; n < KEYS / 16; n++) score[n].store(scores + first * (KEYS + 4) + n * 16, KEYS + 4);
        warp_barrier();
        float faded =
            softmax.step(p + first * Size::PAIR_ROW, Size::PAIR_ROW, scores + first * (KEYS + 4), s.tokens - key);
        if (lane % 2 == 0) factor[first + lane / 2] = faded;
        warp_barrier();
        fade.rows(factor + first);
        UNROLL for (int n = 0; n < D / 16; n++) {
            UNROLL for (int e = 0; e < fade.N; e++) sum[n].x(e) *= fade.x(e);
        }
        mma<KEYS, false, false>(sum, p + first * Size::PAIR_ROW, Size::PAIR_ROW, v, ROW);
    }
    barrier();
    if (lane % 2 == 0) factor[first + lane / 2] = 1 / softmax.total;
    const int token = tile_token(s, at, first + lane / 2);
    if (lse && lane % 2 == 0 && token >= 0)
        lse[((int64_t)blockIdx.z * s.heads + blockIdx.y) * s.tokens + token] = LN2 * softmax.top + logf(softmax.total);
    warp_barrier();
    MmaTile<T> share;
    share.rows(factor + first);
    barrier(); /* before the tile overwrites the factors */
    UNROLL for (int n = 0; n < D / 16; n++) {
        UNROLL for (int e = 0; e < share.N; e++) sum[n].x(e) *= share.x(e);
        sum[n].store(tile + first * Size::SUM_ROW + n * 16, Size::SUM_ROW);
    }
    load_taps<D>(taps, s, w, blockIdx.y, false);
    barrier();
    finish_tile<T, D>(s, at, tile, taps, b + blockIdx.y * s.d, qkvo, y, mix);
}

/* ---- backward ---- */

/* g (B,N,C) = dy o, do = dy mix, and u (B, heads, N) = g . attention, which is mix without the local enhancement;
 * blocks (rectangles, heads, B) */
template <class T, int D>
__global__ void __launch_bounds__(Tiling<T, D>::THREADS)
    softmax_gate(AttentionSize s, T *dqkvo, T *g, float *u, const T *dy, const T *qkvo, const T *mix, const float *w,
                 const float *b) {
    using Strip = Strips<T, D>;
    SharedMemory shared;
    float *taps = shared.take<float>(25 * D), *part = shared.take<float>(Tiling<T, D>::TOKENS * Strip::ACROSS);
    const int64_t stride = 4 * (int64_t)s.channels, image = (int64_t)blockIdx.z * s.tokens, of_head = blockIdx.y * s.d;
    const TileAt at = tile_at<T, D>(s, blockIdx.x);
    qkvo += image * stride + of_head;
    load_taps<D>(taps, s, w, blockIdx.y, false);
    barrier();
    for (int i = threadIdx.x; i < Strip::COUNT; i += blockDim.x) {
        const int channel = i % Strip::ACROSS * 4, line = i / Strip::ACROSS, row = at.row + line;
        const bool inside = channel < s.d && row < s.height;
        float local[TILE_COLUMNS][4];
        UNROLL for (int j = 0; j < TILE_COLUMNS; j++) {
            UNROLL for (int c = 0; c < 4; c++) local[j][c] = inside ? b[of_head + channel + c] : 0;
        }
        if (inside)
            local_strip<T, D>(local, s, qkvo + 2 * s.channels + channel, stride, taps + channel, row, at.column);
        UNROLL for (int j = 0; j < TILE_COLUMNS; j++) {
            float product = 0;
            if (inside && at.column + j < s.width) {
                const int64_t token = (int64_t)row * s.width + at.column + j;
                const int64_t x = (image + token) * s.channels + of_head + channel,
                              gate = token * stride + 3 * s.channels + channel;
                Quad<T> up = load_quad(dy + x), old = load_quad(mix + x), open = load_quad(qkvo + gate);
                float by_mix[4], by_gate[4];
                UNROLL for (int c = 0; c < 4; c++) {
                    by_mix[c] = to_float(up.x[c]) * to_float(old.x[c]);
                    by_gate[c] = to_float(up.x[c]) * to_float(open.x[c]);
                    product += by_gate[c] * (to_float(old.x[c]) - local[j][c]);
                }
                if (dqkvo) store_quad(dqkvo + image * stride + of_head + gate, by_mix);
                store_quad(g + x, by_gate);
            }
            part[(line * TILE_COLUMNS + j) * Strip::ACROSS + channel / 4] = product;
        }
    }
    barrier();
    const int token = threadIdx.x < Tiling<T, D>::TOKENS ? tile_token(s, at, threadIdx.x) : -1;
    if (token < 0) return;
    float sum = 0;
    for (int j = 0; j < Strip::ACROSS; j++) sum += part[threadIdx.x * Strip::ACROSS + j];
    u[((int64_t)blockIdx.z * s.heads + blockIdx.y) * s.tokens + token] = sum;
}

/* to (16, 16) = a product, as features; scratch: 16 rows of 20 floats of the warp's own, unless T is float */
template <class T> __device__ static inline void store_features(T *to, int row, MmaTile<T> &product, float *scratch) {
    if constexpr (sizeof(T) == 4) {
        product.store(to, row);
    } else {
        const int lane = threadIdx.x % WARP, channel = lane % 2 * 8;
        product.store(scratch, 20);
        warp_barrier();
        tile_oct(to + lane / 2 * row, channel, scratch + lane / 2 * 20 + channel);
        warp_barrier();
    }
}

/* probability and the gradient of the score, over its scale, in place of score and g . v; lse in powers of two */
template <class Tile> __device__ static inline void score_gradient(Tile &score, Tile &product, Tile &lse, Tile &u) {
    UNROLL for (int e = 0; e < score.N; e++) {
        float power = score.x(e) - lse.x(e);
        score.x(e) = exp2f(power > 0 ? 0 : power); /* keys that do not exist shall not overflow, NaN stays */
        product.x(e) = score.x(e) * (product.x(e) - u.x(e));
    }
}

/* Turns back what a block has summed up for its rectangle, times factor, and stores it. */
template <class T, int D>
__device__ static inline void store_turned(T *to, const AttentionSize &s, TileAt at, const float *tile, float factor) {
    for (int i = threadIdx.x; i < Rectangle<T, D>::TOKENS * (D / 8); i += blockDim.x) {
        int channel = i % (D / 8) * 8, token = tile_token(s, at, i / (D / 8));
        if (token < 0 || channel >= s.d) continue;
        float x[8];
        UNROLL for (int c = 0; c < 8; c++) x[c] = tile[i / (D / 8) * (D + 4) + channel + c] * factor;
        turn_oct(x, s, channel, token, -1);
        store_oct(to + token * 4 * (int64_t)s.channels, channel, s.d, x);
    }
}

/* dq; blocks (rectangles of queries, heads, B) */
template <class T, int D>
__global__ void __launch_bounds__(Tiling<T, D>::THREADS)
    softmax_query_grad(AttentionSize s, T *dqkvo, const T *qkvo, const T *g, const float *lse, const float *u) {
    using Size = Tiling<T, D>;
    constexpr int ROW = Size::ROW, KEYS = Size::OTHER;
    SharedMemory shared;
    float *tile = (float *)shared.at; /* what the block ends with */
    T *q = shared.take<T>(Size::TOKENS * ROW), *up = shared.take<T>(Size::TOKENS * ROW);
    T *k = shared.take<T>(KEYS * ROW), *v = shared.take<T>(KEYS * ROW),
      *ds = shared.take<T>(Size::TOKENS * Size::PAIR_ROW);
    float *scratch = shared.take<float>(Size::SCRATCH) + threadIdx.x / WARP * 16 * 20;
    float *row_lse = shared.take<float>(Size::TOKENS), *row_u = shared.take<float>(Size::TOKENS);
    const int first = threadIdx.x / WARP * 16;
    const int64_t stride = 4 * (int64_t)s.channels, image = (int64_t)blockIdx.z * s.tokens;
    const int64_t head = (int64_t)blockIdx.z * s.heads + blockIdx.y;
    const TileAt at = tile_at<T, D>(s, blockIdx.x);
    qkvo += image * stride + blockIdx.y * s.d;
    g += image * s.channels + blockIdx.y * s.d;
    load_tile<T, D>(q, Size::TOKENS, s, qkvo, stride, true, s.scale * LOG2E, InTile{&s, at});
    load_tile<T, D>(up, Size::TOKENS, s, g, s.channels, false, 1, InTile{&s, at});
    if (threadIdx.x < Size::TOKENS) {
        int token = tile_token(s, at, threadIdx.x);
        row_lse[threadIdx.x] = token < 0 ? 0 : LOG2E * lse[head * s.tokens + token];
        row_u[threadIdx.x] = token < 0 ? 0 : u[head * s.tokens + token];
    }
    barrier();
    MmaTile<T> sum[D / 16], lse_of, u_of;
    lse_of.rows(row_lse + first);
    u_of.rows(row_u + first);
    UNROLL for (int n = 0; n < D / 16; n++) sum[n].fill(0);
    for (int key = 0; key < s.tokens; key += KEYS) {
        barrier();
        load_tile<T, D>(k, KEYS, s, qkvo + s.channels, stride, true, 1, From{key, s.tokens});
        load_tile<T, D>(v, KEYS, s, qkvo + 2 * s.channels, stride, false, 1, From{key, s.tokens});
        barrier();
        MmaTile<T> score[KEYS / 16], product[KEYS / 16];
        UNROLL for (int n = 0; n < KEYS / 16; n++) {
            score[n].fill(0);
            product[n].fill(0);
        }
        mma<D, false, true>(score, q + first * ROW, ROW, k, ROW);
        mma<D, false, true>(product, up + first * ROW, ROW, v, ROW);
        UNROLL for (int n = 0; n < KEYS / 16; n++) {
            score_gradient(score[n], product[n], lse_of, u_of);
            store_features(ds + first * Size::PAIR_ROW + n * 16, Size::PAIR_ROW, product[n], scratch);
        }
        warp_barrier();
        mma<KEYS, false, false>(sum, ds + first * Size::PAIR_ROW, Size::PAIR_ROW, k, ROW);
    }
    barrier();
    UNROLL for (int n = 0; n < D / 16; n++) sum[n].store(tile + first * Size::SUM_ROW + n * 16, Size::SUM_ROW);
    barrier();
    store_turned<T, D>(dqkvo + image * stride + blockIdx.y * s.d, s, at, tile, s.scale);
}

/* dk and dv; blocks (rectangles of keys, heads, B) */
template <class T, int D>
__global__ void __launch_bounds__(Tiling<T, D>::THREADS, 1) /* two sums: registers before blocks */
    softmax_key_grad(AttentionSize s, T *dqkvo, const T *qkvo, const T *g, const float *lse, const float *u,
                     const float *w) {
    using Size = Tiling<T, D>;
    constexpr int ROW = Size::ROW, QUERIES = Size::OTHER;
    SharedMemory shared;
    float *tile = (float *)shared.at, *taps = tile + Size::TOKENS * Size::SUM_ROW; /* what the block ends with */
    T *k = shared.take<T>(Size::TOKENS * ROW), *v = shared.take<T>(Size::TOKENS * ROW);
    T *q = shared.take<T>(QUERIES * ROW), *up = shared.take<T>(QUERIES * ROW);
    T *p = shared.take<T>(Size::TOKENS * Size::PAIR_ROW), *ds = shared.take<T>(Size::TOKENS * Size::PAIR_ROW);
    float *scratch = shared.take<float>(Size::SCRATCH) + threadIdx.x / WARP * 16 * 20;
    float *row_lse = shared.take<float>(QUERIES), *row_u = shared.take<float>(QUERIES);
    const int first = threadIdx.x / WARP * 16;
    const int64_t stride = 4 * (int64_t)s.channels, image = (int64_t)blockIdx.z * s.tokens;
    const int64_t head = (int64_t)blockIdx.z * s.heads + blockIdx.y;
    const TileAt at = tile_at<T, D>(s, blockIdx.x);
    qkvo += image * stride + blockIdx.y * s.d;
    g += image * s.channels + blockIdx.y * s.d;
    load_tile<T, D>(k, Size::TOKENS, s, qkvo + s.channels, stride, true, 1, InTile{&s, at});
    load_tile<T, D>(v, Size::TOKENS, s, qkvo + 2 * s.channels, stride, false, 1, InTile{&s, at});
    MmaTile<T> sum_k[D / 16], sum_v[D / 16];
    UNROLL for (int n = 0; n < D / 16; n++) {
        sum_k[n].fill(0);
        sum_v[n].fill(0);
    }
    for (int query = 0; query < s.tokens; query += QUERIES) {
        barrier();
        load_tile<T, D>(q, QUERIES, s, qkvo, stride, true, s.scale * LOG2E, From{query, s.tokens});
        load_tile<T, D>(up, QUERIES, s, g, s.channels, false, 1, From{query, s.tokens});
        if (threadIdx.x < QUERIES) {
            bool there = query + (int)threadIdx.x < s.tokens;
            row_lse[threadIdx.x] = there ? LOG2E * lse[head * s.tokens + query + threadIdx.x] : INFINITY;
            row_u[threadIdx.x] = there ? u[head * s.tokens + query + threadIdx.x] : 0;
        }
        barrier();
        MmaTile<T> score[QUERIES / 16], product[QUERIES / 16];
        UNROLL for (int n = 0; n < QUERIES / 16; n++) {
            score[n].fill(0);
            product[n].fill(0);
        }
        mma<D, false, true>(score, k + first * ROW, ROW, q, ROW);
        mma<D, false, true>(product, v + first * ROW, ROW, up, ROW);
        UNROLL for (int n = 0; n < QUERIES / 16; n++) {
            MmaTile<T> lse_of, u_of;
            lse_of.columns(row_lse + n * 16);
            u_of.columns(row_u + n * 16);
            score_gradient(score[n], product[n], lse_of, u_of);
            store_features(p + first * Size::PAIR_ROW + n * 16, Size::PAIR_ROW, score[n], scratch);
            store_features(ds + first * Size::PAIR_ROW + n * 16, Size::PAIR_ROW, product[n], scratch);
        }
        warp_barrier();
        mma<QUERIES, false, false>(sum_v, p + first * Size::PAIR_ROW, Size::PAIR_ROW, up, ROW);
        mma<QUERIES, false, false>(sum_k, ds + first * Size::PAIR_ROW, Size::PAIR_ROW, q, ROW);
    }
    T *dk = dqkvo + image * stride + s.channels + blockIdx.y * s.d;
    barrier();
    UNROLL for (int n = 0; n < D / 16; n++) sum_k[n].store(tile + first * Size::SUM_ROW + n * 16, Size::SUM_ROW);
    load_taps<D>(taps, s, w, blockIdx.y, true);
    barrier();
    store_turned<T, D>(dk, s, at, tile, LN2); /* q carries scale / ln 2 */
    barrier();
    UNROLL for (int n = 0; n < D / 16; n++) sum_v[n].store(tile + first * Size::SUM_ROW + n * 16, Size::SUM_ROW);
    barrier();
    finish_dv<T, D>(s, at, tile, taps, NULL, g, dk + s.channels);
}

/* ---- shared memory, workspace, launches ---- */

template <class T, int D> static size_t apply_shared() {
    using Size = Tiling<T, D>;
    return MAX(Size::END, shared_size<T>(Size::TOKENS * Size::ROW) + 2 * shared_size<T>(Size::OTHER * Size::ROW) +
                              shared_size<float>(Size::TOKENS * (Size::OTHER + 4)) +
                              shared_size<T>(Size::TOKENS * Size::PAIR_ROW) + shared_size<float>(Size::TOKENS));
}
template <class T, int D> static size_t gate_shared() {
    return shared_size<float>(25 * D) + shared_size<float>(Tiling<T, D>::TOKENS * Strips<T, D>::ACROSS);
}
/* pairs: tiles of a feature for each pair of tokens; rows: two floats for each of so many tokens */
template <class T, int D> static size_t grad_shared(int pairs, int rows) {
    using Size = Tiling<T, D>;
    return MAX(Size::END, 2 * shared_size<T>(Size::TOKENS * Size::ROW) + 2 * shared_size<T>(Size::OTHER * Size::ROW) +
                              pairs * shared_size<T>(Size::TOKENS * Size::PAIR_ROW) +
                              shared_size<float>(Size::SCRATCH) + 2 * shared_size<float>(rows));
}

struct SoftmaxWork {
    size_t g, u, taps, size;
    SoftmaxWork(const AttentionSize &s, size_t element, bool backward) : size(0) {
        if (!backward) return;
        g = take_bytes(&size, (size_t)s.batch * s.tokens * s.channels * element);
        u = take_bytes(&size, (size_t)s.batch * s.heads * s.tokens * sizeof(float));
        taps = take_bytes(&size, attention_taps_work(s));
    }
};

size_t attention_softmax_work(const AttentionSize &s, size_t element, bool backward) {
    return SoftmaxWork(s, element, backward).size;
}

template <class T, int D> static void forward(const Attention &a) {
    const AttentionSize &s = a.size;
    launch(a.call, softmax_apply<T, D>, dim3(tile_count<T, D>(s), s.heads, s.batch), dim3(Tiling<T, D>::THREADS),
           apply_shared<T, D>(), s, (T *)a.y, (T *)a.mix, a.stats, (const T *)a.qkvo, a.w, a.b);
}

template <class T, int D> static void backward(const Attention &a) {
    using Size = Tiling<T, D>;
    const AttentionSize &s = a.size;
    char *work = (char *)a.call->work;
    SoftmaxWork at(s, sizeof(T), true);
    T *g = (T *)(work + at.g), *dqkvo = (T *)a.dqkvo;
    const T *qkvo = (const T *)a.qkvo;
    float *u = (float *)(work + at.u);
    dim3 grid(tile_count<T, D>(s), s.heads, s.batch), block(Size::THREADS);
    launch(a.call, softmax_gate<T, D>, grid, block, gate_shared<T, D>(), s, dqkvo, g, u, (const T *)a.dy, qkvo,
           (const T *)a.old_mix, a.w, a.b);
    if (dqkvo) {
        launch(a.call, softmax_query_grad<T, D>, grid, block, grad_shared<T, D>(1, Size::TOKENS), s, dqkvo, qkvo, g,
               a.old_stats, u);
        launch(a.call, softmax_key_grad<T, D>, grid, block, grad_shared<T, D>(2, Size::OTHER), s, dqkvo, qkvo, g,
               a.old_stats, u, a.w);
    }
    attention_taps_gradient<T>(a, g, (float *)(work + at.taps));
}

template <class T> void attention_softmax_forward(const Attention &a) { WITH_HEAD(a.size.d, D, forward<T, D>(a)); }
template <class T> void attention_softmax_backward(const Attention &a) { WITH_HEAD(a.size.d, D, backward<T, D>(a)); }

template void attention_softmax_forward<float>(const Attention &a);
template void attention_softmax_forward<bf16>(const Attention &a);
template void attention_softmax_forward<f16>(const Attention &a);
template void attention_softmax_backward<float>(const Attention &a);
template void attention_softmax_backward<bf16>(const Attention &a);
template void attention_softmax_backward<f16>(const Attention &a);
