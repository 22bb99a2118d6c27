/* attention_linear.cu - the kinds of attention whose cost grows with the number of tokens: mala, linear, inline.
 *
 * Forward: linear_sums adds up phi(k), v and R phi(k)^T v over chunks of tokens; linear_collect adds the chunks in
 * order; linear_apply turns every query into its row and ends with the local enhancement and the gate. Backward
 * likewise: linear_query_grad finishes do and dq and adds up the three sums' gradients, linear_key_grad finishes dk and
 * dv with the convolution's part. Between the two lies g = dy o, which the convolution reads with its neighbours.
 *
 * Bytes, in units of n = batch * tokens * channels features, and the floor of MAViT-T's stage 1 (n = 51.4 million, head
 * of 64) at 224, batch 256, in 16 bits at 4.3 TB/s; all are limited by memory, products being 64 multiplications a
 * feature on tensor cores:
 *     linear_sums        reads k, v                       2 n    48 us
 *     linear_apply       reads q, v, o; writes y (, mix)  4 n (5 n)  96 us (120 us); 25 multiplications of the 5x5 a
 *                        feature on ordinary cores are 45 us at their best, so instructions count here too
 *     linear_query_grad  reads dy, q, o, mix; writes do, dq, g   7 n   167 us
 *     linear_key_grad    reads k, v, g; writes dk, dv     5 n   120 us, likewise with 45 us of the 5x5
 * What is read twice comes from the second-level cache: v and g of a tile's neighbourhood (12x12 tokens for 8x8) and
 * the head's matrix, 8 kB per block. Partial sums are 17 kB per chunk of at least 128 tokens of 256 bytes. */
#include "backend/cuda/attention.cuh"

/* The sums of a head: a vector for k, one for v, and the matrix, in rows of D floats. */
enum { ROW_K, ROW_V, ROW_MATRIX };

/* Chunks are walked in steps of 32 tokens by D * 2 threads: each keeps 8 channels, 16 tokens next to each other. */
#define STEP 32

/* ---- chunks of tokens, cut by shape alone ---- */

static int chunk_tokens(const AttentionSize &s) {
    int wanted = CEIL_DIV(1024, s.batch * s.heads), chunks = MIN(wanted, CEIL_DIV(s.tokens, 128));
    return ROUND_UP(CEIL_DIV(s.tokens, chunks), STEP);
}
static int chunk_count(const AttentionSize &s) { return CEIL_DIV(s.tokens, chunk_tokens(s)); }

/* Tiles that a block of the second pass takes one after the other, with the same matrix. */
static int tile_run(const AttentionSize &s, int tiles) { return MAX(1, MIN(8, tiles * s.batch * s.heads / 1024)); }

/* ---- the head's matrix: 16-bit features take a copy into shared memory, float32 reads it where it lies ---- */

template <class T, int D> struct Matrix {
    static constexpr int STRIDE = sizeof(T) == 4 ? D : TileRow<T, D>::LENGTH;
    static constexpr size_t SHARED = sizeof(T) == 4 ? 0 : (size_t)D * STRIDE;

    /* all threads of the block, then a barrier */
    __device__ static const T *load(SharedMemory &shared, const T *matrix) {
        if constexpr (SHARED == 0) {
            return matrix;
        } else {
            T *copy = shared.take<T>(SHARED);
            for (int i = threadIdx.x; i < D * D / 8; i += blockDim.x) {
                int row = i / (D / 8), channel = i % (D / 8) * 8;
                *(Oct<T> *)(copy + row * STRIDE + channel) = *(const Oct<T> *)(matrix + row * D + channel);
            }
            return copy;
        }
    }
};

/* ---- sums over tokens ---- */

/* sums (2, D) = of 8 channels from each thread of the 16 rows of a block, to rows ROW_K, ROW_V; scratch: 32 D floats */
template <int D>
__device__ static inline void store_row_sums(float *sums, float *scratch, const float *sum_k, const float *sum_v) {
    const int channel = threadIdx.x % (D / 8) * 8, row = threadIdx.x / (D / 8);
    UNROLL for (int i = 0; i < 8; i++) {
        scratch[row * D + channel + i] = sum_k[i];
        scratch[(16 + row) * D + channel + i] = sum_v[i];
    }
    barrier();
    const float *of_one = scratch + threadIdx.x / D * 16 * D + threadIdx.x % D;
    float sum = 0;
    for (int i = 0; i < 16; i++) sum += of_one[i * D];
    sums[threadIdx.x] = sum;
}

/* parts (B * heads * chunks, 2 + D, D): sums of phi(k), of v, and of R phi(k)^T v; blocks (chunks, heads, B) */
template <class T, int D>
__global__ void __launch_bounds__(2 * D, sizeof(T) == 4 ? 1 : 256 / D)
    linear_sums(AttentionSize s, float *parts, const T *qkvo, int chunk) {
    constexpr int OCTS = D / 8, ROW = TileRow<T, D>::LENGTH;
    SharedMemory shared;
    T *turned = shared.take<T>(STEP * ROW), *values = shared.take<T>(STEP * ROW);
    const int channel = threadIdx.x % OCTS * 8, line = threadIdx.x / OCTS, warp = threadIdx.x / WARP;
    const int first = blockIdx.x * chunk, end = MIN(first + chunk, s.tokens);
    const int64_t stride = 4 * (int64_t)s.channels;
    const T *k = qkvo + blockIdx.z * s.tokens * stride + s.channels + blockIdx.y * s.d, *v = k + s.channels;
    MmaTile<T> matrix[D / 16];
    float sum_k[8] = {}, sum_v[8] = {};
    Oct<T> next_k[2], next_v[2];
    UNROLL for (int i = 0; i < D / 16; i++) matrix[i].fill(0);
    for (int at = first - STEP; at < end; at += STEP) {
        barrier();
        if (at >= first) {
            UNROLL for (int i = 0; i < 2; i++) {
                int token = at + i * 16 + line;
                float x[8] = {}, y[8] = {};
                if (token < end && channel < s.d) {
                    oct_floats(x, next_k[i]);
                    oct_floats(y, next_v[i]);
                    UNROLL for (int j = 0; j < 8; j++) {
                        x[j] = channel + j < s.d ? phi(x[j]) : 0;
                        sum_k[j] += x[j];
                        sum_v[j] += y[j];
                    }
                    turn_oct(x, s, channel, token, 1);
                }
                tile_oct(turned + (i * 16 + line) * ROW, channel, x);
                tile_oct(values + (i * 16 + line) * ROW, channel, y);
            }
        }
        barrier();
        /* the next step's loads are under way during the product */
        UNROLL for (int i = 0; i < 2; i++) {
            int64_t token = at + STEP + i * 16 + line;
            if (token >= end) continue;
            next_k[i] = load_oct(k + token * stride, channel, s.d);
            next_v[i] = load_oct(v + token * stride, channel, s.d);
        }
        if (at < first) continue;
        mma<STEP, true, false>(matrix, turned + warp * 16, ROW, values, ROW);
    }
    int64_t part = ((int64_t)blockIdx.z * s.heads + blockIdx.y) * gridDim.x + blockIdx.x;
    float *sums = parts + part * (ROW_MATRIX + D) * D;
    UNROLL for (int i = 0; i < D / 16; i++) matrix[i].store(sums + (ROW_MATRIX + warp * 16) * D + i * 16, D);
    barrier();
    store_row_sums<D>(sums, (float *)turned, sum_k, sum_v);
}

/* means (B * heads, 2, D) and matrix (B * heads, D, D) = scaled sums over the chunks of rows (2 + width, width), in
 * order; stats (B * heads, 2 + d, d) the same without padding, unless NULL. Blocks (any, heads, B) */
template <class T, int D>
__global__ void __launch_bounds__(256)
    linear_collect(AttentionSize s, float *means, T *matrix, float *stats, const float *parts, int chunks, int width,
                   float mean_scale, float matrix_scale) {
    const int i = blockIdx.x * 256 + threadIdx.x, row = i / (D / 4), channel = i % (D / 4) * 4;
    const int64_t head = (int64_t)blockIdx.z * s.heads + blockIdx.y, size = (int64_t)(ROW_MATRIX + width) * width;
    if (row >= ROW_MATRIX + D) return;
    float sum[4] = {};
    if (channel < s.d && row < ROW_MATRIX + s.d) {
        const float *part = parts + head * chunks * size + (int64_t)row * width + channel;
        for (int chunk = 0; chunk < chunks; chunk++, part += size) {
            Quad<float> v = load_quad(part);
            UNROLL for (int j = 0; j < 4; j++) sum[j] += v.x[j];
        }
        UNROLL for (int j = 0; j < 4; j++) sum[j] *= row < ROW_MATRIX ? mean_scale : matrix_scale;
        if (stats) store_quad(stats + head * (ROW_MATRIX + s.d) * s.d + (int64_t)row * s.d + channel, sum);
    }
    if (row < ROW_MATRIX)
        store_quad(means + (head * 2 + row) * D + channel, sum);
    else
        store_quad(matrix + (head * D + row - ROW_MATRIX) * D + channel, sum);
}

/* ---- forward, second pass ---- */

#define APPLY_THREADS 128

/* How the four warps share a tile's product: strips of 16 tokens, and N times 16 columns each. */
template <class T, int D> struct WarpShare {
    static constexpr int STRIPS = Rectangle<T, D>::TOKENS / 16, N = D / 16 * STRIPS / (APPLY_THREADS / WARP);
    int token, column;
    __device__ WarpShare() : token(threadIdx.x / WARP % STRIPS * 16), column(threadIdx.x / WARP / STRIPS * N * 16) {}
};

/* Blocks of linear_apply on a multiprocessor: four leave float32 too few registers, and float16 on some GPUs. */
template <class T> constexpr int APPLY_BLOCKS = sizeof(T) == 4 ? 3 : 0; /* 0: the compiler aims at four by itself */
template <> constexpr int APPLY_BLOCKS<bf16> = 4;

/* blocks (runs of tiles, heads, B) */
template <class T, int D>
__global__ void __launch_bounds__(APPLY_THREADS, APPLY_BLOCKS<T>)
    linear_apply(AttentionSize s, T *y, T *mix, const T *qkvo, const float *w, const float *b, const float *means,
                 const T *matrix, int tiles, int run) {
    constexpr int OCTS = D / 8, ROW = TileRow<T, D>::LENGTH, TOKENS = Rectangle<T, D>::TOKENS;
    SharedMemory shared;
    float *tile = shared.take<float>(TOKENS * (D + 4)); /* R phi(q), later the attention */
    T *turned = (T *)tile;
    const int64_t head = (int64_t)blockIdx.z * s.heads + blockIdx.y, stride = 4 * (int64_t)s.channels;
    const T *kv = Matrix<T, D>::load(shared, matrix + head * D * D);
    float *taps = shared.take<float>(25 * D), *z_part = shared.take<float>(TOKENS * OCTS);
    float *r_factor = shared.take<float>(TOKENS), *v_factor = shared.take<float>(TOKENS);
    const float *mean_k = means + head * 2 * D, *mean_v = mean_k + D;
    const WarpShare<T, D> mine;
    const int64_t image = (int64_t)blockIdx.z * s.tokens;
    qkvo += image * stride + blockIdx.y * s.d;
    if (y) y += image * s.channels + blockIdx.y * s.d;
    if (mix) mix += image * s.channels + blockIdx.y * s.d;
    load_taps<D>(taps, s, w, blockIdx.y, false);
    for (int i = blockIdx.x * run; i < MIN((int)(blockIdx.x + 1) * run, tiles); i++) {
        const TileAt at = tile_at<T, D>(s, i);
        barrier();
        for (int j = threadIdx.x; j < TOKENS * OCTS; j += APPLY_THREADS) {
            int channel = j % OCTS * 8, token = tile_token(s, at, j / OCTS);
            float x[8] = {}, z = 0;
            if (token >= 0 && channel < s.d) {
                oct_floats(x, load_oct(qkvo + token * stride, channel, s.d));
                UNROLL for (int c = 0; c < 8; c++) {
                    x[c] = phi(x[c]);
                    z += x[c] * mean_k[channel + c];
                }
                turn_oct(x, s, channel, token, 1);
            }
            tile_oct(turned + j / OCTS * ROW, channel, x);
            z_part[j] = z;
        }
        barrier();
        if (threadIdx.x < TOKENS) {
            float z = 0;
            for (int j = 0; j < OCTS; j++) z += z_part[threadIdx.x * OCTS + j];
            Factors f = factors(s.kind, s.scale * z);
            r_factor[threadIdx.x] = f.r;
            v_factor[threadIdx.x] = f.v;
        }
        MmaTile<T> r[WarpShare<T, D>::N];
        UNROLL for (int n = 0; n < WarpShare<T, D>::N; n++) r[n].fill(0);
        mma<D, false, false>(r, turned + mine.token * ROW, ROW, kv + mine.column, Matrix<T, D>::STRIDE);
        barrier();
        MmaTile<T> of_r, of_v, mean;
        of_r.rows(r_factor + mine.token);
        of_v.rows(v_factor + mine.token);
        UNROLL for (int n = 0; n < WarpShare<T, D>::N; n++) {
            mean.columns(mean_v + mine.column + n * 16);
            UNROLL for (int e = 0; e < r[n].N; e++) r[n].x(e) = r[n].x(e) * of_r.x(e) + of_v.x(e) * mean.x(e);
            r[n].store(tile + mine.token * (D + 4) + mine.column + n * 16, D + 4);
        }
        barrier();
        finish_tile<T, D>(s, at, tile, taps, b + blockIdx.y * s.d, qkvo, y, mix);
    }
}

/* ---- backward, first pass ---- */

/* do and dq; g (B,N,C) = dy o; parts as linear_sums': sums of dz s phi(q), of v_factor g, and of r_factor R phi(q)^T g.
 * The factor of r goes with R phi(q), which is small where it is large. Blocks (chunks, heads, B) */
template <class T, int D>
__global__ void __launch_bounds__(2 * D, 1)
    linear_query_grad(AttentionSize s, T *dqkvo, T *g, float *parts, const T *dy, const T *qkvo, const T *mix,
                      const float *means, const T *matrix, int chunk) {
    constexpr int OCTS = D / 8, ROW = TileRow<T, D>::LENGTH;
    SharedMemory shared;
    T *turned = shared.take<T>(STEP * ROW), *upstream = shared.take<T>(STEP * ROW);
    float *kv_g = shared.take<float>(STEP * (D + 4)), *part = shared.take<float>(STEP * OCTS);
    const int channel = threadIdx.x % OCTS * 8, line = threadIdx.x / OCTS, warp = threadIdx.x / WARP;
    const int first = blockIdx.x * chunk, end = MIN(first + chunk, s.tokens);
    const int64_t head = (int64_t)blockIdx.z * s.heads + blockIdx.y, stride = 4 * (int64_t)s.channels;
    const int64_t image = (int64_t)blockIdx.z * s.tokens, of_head = blockIdx.y * s.d;
    const T *kv = Matrix<T, D>::load(shared, matrix + head * D * D);
    const float *mean_k = means + head * 2 * D, *mean_v = mean_k + D;
    MmaTile<T> dmatrix[D / 16];
    float sum_k[8] = {}, sum_v[8] = {};
    UNROLL for (int i = 0; i < D / 16; i++) dmatrix[i].fill(0);
    for (int at = first; at < end; at += STEP) {
        float x[2][8], by_v[2], r_factor[2], r_slope[2];
        barrier();
        UNROLL for (int i = 0; i < 2; i++) {
            int64_t token = image + at + i * 16 + line;
            float gate[8] = {}, z = 0;
            UNROLL for (int j = 0; j < 8; j++) x[i][j] = 0;
            if (at + i * 16 + line < end && channel < s.d) {
                float up[8], old[8];
                oct_floats(x[i], load_oct(qkvo + token * stride + of_head, channel, s.d));
                oct_floats(gate, load_oct(qkvo + token * stride + 3 * s.channels + of_head, channel, s.d));
                oct_floats(up, load_oct(dy + token * s.channels + of_head, channel, s.d));
                oct_floats(old, load_oct(mix + token * s.channels + of_head, channel, s.d));
                UNROLL for (int j = 0; j < 8; j++) {
                    x[i][j] = channel + j < s.d ? phi(x[i][j]) : 0;
                    z += x[i][j] * mean_k[channel + j];
                    gate[j] *= up[j];
                    old[j] *= up[j];
                }
                if (dqkvo) store_oct(dqkvo + token * stride + 3 * s.channels + of_head, channel, s.d, old);
                store_oct(g + token * s.channels + of_head, channel, s.d, gate);
            }
            tile_oct(upstream + (i * 16 + line) * ROW, channel, gate);
            part[(i * 16 + line) * OCTS + channel / 8] = z;
        }
        barrier();
        UNROLL for (int i = 0; i < 2; i++) {
            const int row = i * 16 + line;
            float z = 0, up[8], scaled[8];
            for (int j = 0; j < OCTS; j++) z += part[row * OCTS + j];
            Factors f = factors(s.kind, s.scale * z);
            oct_floats(up, *(const Oct<T> *)(upstream + row * ROW + channel));
            by_v[i] = 0;
            UNROLL for (int j = 0; j < 8; j++) {
                sum_v[j] += f.v * up[j];
                by_v[i] += f.v_slope * up[j] * mean_v[channel + j];
                scaled[j] = f.r * x[i][j];
            }
            r_factor[i] = f.r;
            r_slope[i] = f.r_slope;
            if (at + row < end) turn_oct(scaled, s, channel, at + row, 1);
            tile_oct(turned + row * ROW, channel, scaled);
        }
        barrier();
        UNROLL for (int i = 0; i < STEP; i += 16) {
            MmaTile<T> product[1];
            product[0].fill(0);
            mma<D, false, true>(product, upstream + i * ROW, ROW, kv + warp * 16 * Matrix<T, D>::STRIDE,
                                Matrix<T, D>::STRIDE);
            product[0].store(kv_g + i * (D + 4) + warp * 16, D + 4);
        }
        mma<STEP, true, false>(dmatrix, turned + warp * 16, ROW, upstream, ROW);
        barrier();
        UNROLL for (int i = 0; i < 2; i++) {
            const int row = i * 16 + line;
            float back[8], slope = by_v[i];
            UNROLL for (int j = 0; j < 8; j++) back[j] = kv_g[row * (D + 4) + channel + j];
            if (at + row < end) turn_oct(back, s, channel, at + row, -1);
            UNROLL for (int j = 0; j < 8; j++) slope += r_slope[i] * x[i][j] * back[j];
            part[row * OCTS + channel / 8] = slope;
        }
        barrier();
        UNROLL for (int i = 0; i < 2; i++) {
            const int row = i * 16 + line;
            float dz = 0, dq[8];
            for (int j = 0; j < OCTS; j++) dz += part[row * OCTS + j];
            dz *= s.scale;
            UNROLL for (int j = 0; j < 8; j++) {
                dq[j] = kv_g[row * (D + 4) + channel + j];
                sum_k[j] += dz * x[i][j];
            }
            if (!dqkvo || at + row >= end) continue;
            turn_oct(dq, s, channel, at + row, -1);
            UNROLL for (int j = 0; j < 8; j++) {
                float dx = r_factor[i] * dq[j] + dz * mean_k[channel + j];
                dq[j] = dx * phi_slope(x[i][j]);
            }
            store_oct(dqkvo + (image + at + row) * stride + of_head, channel, s.d, dq);
        }
    }
    float *sums = parts + (head * gridDim.x + blockIdx.x) * (ROW_MATRIX + D) * D;
    UNROLL for (int i = 0; i < D / 16; i++) dmatrix[i].store(sums + (ROW_MATRIX + warp * 16) * D + i * 16, D);
    /* whoever is late reads part and kv_g, no tile of upstream or turned */
    store_row_sums<D>(sums, (float *)turned, sum_k, sum_v);
}

/* ---- backward, second pass ---- */

/* dk and dv; means and matrix are the gradients of forward's, over N. Blocks (runs of tiles, heads, B) */
template <class T, int D>
__global__ void __launch_bounds__(APPLY_THREADS, 1)
    linear_key_grad(AttentionSize s, T *dqkvo, const T *qkvo, const T *g, const float *w, const float *means,
                    const T *matrix, int tiles, int run) {
    constexpr int OCTS = D / 8, ROW = TileRow<T, D>::LENGTH, TOKENS = Rectangle<T, D>::TOKENS, N = WarpShare<T, D>::N;
    SharedMemory shared;
    T *turned = shared.take<T>(2 * TOKENS * ROW), *values = turned + TOKENS * ROW;
    float *tile = (float *)turned; /* one product at a time, when both tiles have been used */
    const int64_t head = (int64_t)blockIdx.z * s.heads + blockIdx.y, stride = 4 * (int64_t)s.channels;
    const T *dkv = Matrix<T, D>::load(shared, matrix + head * D * D);
    float *taps = shared.take<float>(25 * D);
    const float *dmean_k = means + head * 2 * D, *dmean_v = dmean_k + D;
    const WarpShare<T, D> mine;
    const T *k = qkvo + blockIdx.z * s.tokens * stride + s.channels + blockIdx.y * s.d;
    T *dk = dqkvo + blockIdx.z * s.tokens * stride + s.channels + blockIdx.y * s.d;
    g += (int64_t)blockIdx.z * s.tokens * s.channels + blockIdx.y * s.d;
    load_taps<D>(taps, s, w, blockIdx.y, true);
    for (int i = blockIdx.x * run; i < MIN((int)(blockIdx.x + 1) * run, tiles); i++) {
        const TileAt at = tile_at<T, D>(s, i);
        barrier();
        for (int j = threadIdx.x; j < TOKENS * OCTS; j += APPLY_THREADS) {
            int channel = j % OCTS * 8, token = tile_token(s, at, j / OCTS);
            float x[8] = {}, v[8] = {};
            if (token >= 0 && channel < s.d) {
                oct_floats(x, load_oct(k + token * stride, channel, s.d));
                oct_floats(v, load_oct(k + token * stride + s.channels, channel, s.d));
                UNROLL for (int c = 0; c < 8; c++) x[c] = channel + c < s.d ? phi(x[c]) : 0;
                turn_oct(x, s, channel, token, 1);
            }
            tile_oct(turned + j / OCTS * ROW, channel, x);
            tile_oct(values + j / OCTS * ROW, channel, v);
        }
        barrier();
        MmaTile<T> from_v[N], from_k[N];
        UNROLL for (int n = 0; n < N; n++) {
            from_v[n].fill(0);
            from_k[n].fill(0);
        }
        const int width = Matrix<T, D>::STRIDE;
        mma<D, false, true>(from_v, values + mine.token * ROW, ROW, dkv + mine.column * width, width);
        mma<D, false, false>(from_k, turned + mine.token * ROW, ROW, dkv + mine.column, width);
        barrier();
        UNROLL for (int n = 0; n < N; n++) from_v[n].store(tile + mine.token * (D + 4) + mine.column + n * 16, D + 4);
        barrier();
        for (int j = threadIdx.x; j < TOKENS * OCTS; j += APPLY_THREADS) {
            int channel = j % OCTS * 8, token = tile_token(s, at, j / OCTS);
            if (token < 0 || channel >= s.d) continue;
            float x[8], dx[8];
            oct_floats(x, load_oct(k + token * stride, channel, s.d));
            UNROLL for (int c = 0; c < 8; c++) dx[c] = tile[j / OCTS * (D + 4) + channel + c];
            turn_oct(dx, s, channel, token, -1);
            UNROLL for (int c = 0; c < 8; c++) dx[c] = (dx[c] + dmean_k[channel + c]) * phi_slope(phi(x[c]));
            store_oct(dk + token * stride, channel, s.d, dx);
        }
        barrier();
        UNROLL for (int n = 0; n < N; n++) from_k[n].store(tile + mine.token * (D + 4) + mine.column + n * 16, D + 4);
        barrier();
        finish_dv<T, D>(s, at, tile, taps, dmean_v, g, dk + s.channels);
    }
}

/* ---- workspace, shared memory ---- */

template <class T, int D> static size_t apply_shared() {
    constexpr size_t TOKENS = Rectangle<T, D>::TOKENS;
    return shared_size<float>(TOKENS * (D + 4)) + shared_size<T>(Matrix<T, D>::SHARED) + shared_size<float>(25 * D) +
           shared_size<float>(TOKENS * (D / 8)) + 2 * shared_size<float>(TOKENS);
}
template <class T, int D> static size_t query_grad_shared() {
    return 2 * shared_size<T>(STEP * TileRow<T, D>::LENGTH) + shared_size<float>(STEP * (D + 4)) +
           shared_size<float>(STEP * (D / 8)) + shared_size<T>(Matrix<T, D>::SHARED);
}
template <class T, int D> static size_t key_grad_shared() {
    return shared_size<T>(2 * Rectangle<T, D>::TOKENS * TileRow<T, D>::LENGTH) + shared_size<T>(Matrix<T, D>::SHARED) +
           shared_size<float>(25 * D);
}

struct LinearWork {
    size_t parts, means, matrix, gradient_means, gradient_matrix, g, taps, size;
    LinearWork(const AttentionSize &s, size_t element, bool backward) : size(0) {
        const size_t heads = (size_t)s.batch * s.heads, d = ROUND_UP((size_t)s.d, (size_t)32);
        means = take_bytes(&size, heads * 2 * d * sizeof(float));
        matrix = take_bytes(&size, heads * d * d * element);
        parts = take_bytes(&size, heads * chunk_count(s) * (ROW_MATRIX + d) * d * sizeof(float));
        if (!backward) return;
        gradient_means = take_bytes(&size, heads * 2 * d * sizeof(float));
        gradient_matrix = take_bytes(&size, heads * d * d * element);
        g = take_bytes(&size, (size_t)s.batch * s.tokens * s.channels * element);
        taps = take_bytes(&size, attention_taps_work(s));
    }
};

size_t attention_linear_work(const AttentionSize &s, size_t element, bool backward) {
    return LinearWork(s, element, backward).size;
}

template <class T, int D>
static void collect(const Attention &a, float *means, T *matrix, float *stats, const float *parts, int chunks,
                    int width, float mean_scale, float matrix_scale) {
    const AttentionSize &s = a.size;
    dim3 grid(CEIL_DIV((ROW_MATRIX + D) * D / 4, 256), s.heads, s.batch);
    launch(a.call, linear_collect<T, D>, grid, dim3(256), 0, s, means, matrix, stats, parts, chunks, width, mean_scale,
           matrix_scale);
}

template <class T, int D> static void forward(const Attention &a) {
    const AttentionSize &s = a.size;
    char *work = (char *)a.call->work;
    LinearWork at(s, sizeof(T), false);
    float *means = (float *)(work + at.means), *parts = (float *)(work + at.parts);
    T *matrix = (T *)(work + at.matrix);
    const int chunks = chunk_count(s), tiles = tile_count<T, D>(s), run = tile_run(s, tiles);
    launch(a.call, linear_sums<T, D>, dim3(chunks, s.heads, s.batch), dim3(2 * D),
           2 * shared_size<T>(STEP * TileRow<T, D>::LENGTH), s, parts, (const T *)a.qkvo, chunk_tokens(s));
    collect<T, D>(a, means, matrix, a.stats, parts, chunks, D, 1 / (float)s.tokens, s.scale / (float)s.tokens);
    if (a.y || a.mix)
        launch(a.call, linear_apply<T, D>, dim3(CEIL_DIV(tiles, run), s.heads, s.batch), dim3(APPLY_THREADS),
               apply_shared<T, D>(), s, (T *)a.y, (T *)a.mix, (const T *)a.qkvo, a.w, a.b, means, matrix, tiles, run);
}

template <class T, int D> static void backward(const Attention &a) {
    const AttentionSize &s = a.size;
    char *work = (char *)a.call->work;
    LinearWork at(s, sizeof(T), true);
    float *means = (float *)(work + at.means), *parts = (float *)(work + at.parts);
    float *dmeans = (float *)(work + at.gradient_means);
    T *matrix = (T *)(work + at.matrix), *dmatrix = (T *)(work + at.gradient_matrix), *g = (T *)(work + at.g);
    const int chunks = chunk_count(s), tiles = tile_count<T, D>(s), run = tile_run(s, tiles);
    collect<T, D>(a, means, matrix, NULL, a.old_stats, 1, s.d, 1, 1);
    launch(a.call, linear_query_grad<T, D>, dim3(chunks, s.heads, s.batch), dim3(2 * D), query_grad_shared<T, D>(), s,
           (T *)a.dqkvo, g, parts, (const T *)a.dy, (const T *)a.qkvo, (const T *)a.old_mix, means, matrix,
           chunk_tokens(s));
    if (a.dqkvo) {
        collect<T, D>(a, dmeans, dmatrix, NULL, parts, chunks, D, 1 / (float)s.tokens, s.scale / (float)s.tokens);
        launch(a.call, linear_key_grad<T, D>, dim3(CEIL_DIV(tiles, run), s.heads, s.batch), dim3(APPLY_THREADS),
               key_grad_shared<T, D>(), s, (T *)a.dqkvo, (const T *)a.qkvo, g, a.w, dmeans, dmatrix, tiles, run);
    }
    attention_taps_gradient<T>(a, g, (float *)(work + at.taps));
}

template <class T> void attention_linear_forward(const Attention &a) { WITH_HEAD(a.size.d, D, forward<T, D>(a)); }
template <class T> void attention_linear_backward(const Attention &a) { WITH_HEAD(a.size.d, D, backward<T, D>(a)); }

template void attention_linear_forward<float>(const Attention &a);
template void attention_linear_forward<bf16>(const Attention &a);
template void attention_linear_forward<f16>(const Attention &a);
template void attention_linear_backward<float>(const Attention &a);
template void attention_linear_backward<bf16>(const Attention &a);
template void attention_linear_backward<f16>(const Attention &a);
