/* dwconv.cu - depthwise convolution and its gradients. Features moved an element: forward and dx 2, dw with db 2, all
 * gradients with a GELU 3 (dy, x, dx), and the halo of a tile once more from the second-level cache (31 % of a 14 x 14
 * tile under a 3 x 3 kernel). Memory is the limit for 3 x 3; 5 x 5 with 16-bit features comes near the arithmetic's, 25
 * multiply-adds for 4 bytes.
 *
 * A block brings a tile of pixels with its halo, at most 128 bytes of channels wide, into shared memory, all loads in
 * flight at once. A thread then has two channels and a strip of two columns and walks down the tile: every input is
 * read from shared memory once a strip and feeds the outputs around it, which wait in registers. Lanes are neighbouring
 * channels, so shared memory has no bank conflicts and global accesses are whole segments.
 *
 * A GELU before the convolution is taken forward where a tile enters shared memory, rounded like the feature that it
 * stands for; in the gradient where a thread reads x, once an element.
 *
 * Kernels other than 3 and 5 take plain loops. */
#include <string.h>

#include "backend/cuda/columns.cuh"
#include "backend/cuda/gelu.cuh"

#define PIXEL_BYTES 128 /* channels of a tile */
#define STRIP 2         /* columns of a thread */
#define SIDE 14         /* of a tile, at most: then a 5 x 5 kernel's fits shared memory */
#define DW_HEIGHT 8     /* of a tile of the gradient, where two pictures are in shared memory */
#define BATCH 4         /* loads of a thread in flight */

/* ---- tiles ---- */

struct Tiles {
    int height, width, channels;
    int tile_height, tile_width, down, across; /* tiles of a picture */
    int group, groups;                         /* channels of a block: even, and whole packs if rows of them are */
    int strips, threads;
    int count; /* tiles in all: blocks, of which a grid has fewer than 2^31 */
};

static Tiles tiles_of(const Shape *x, DType type, int most_height) {
    Tiles t = {};
    t.height = (int)x->dim[1], t.width = (int)x->dim[2], t.channels = (int)x->dim[3];
    t.down = CEIL_DIV(t.height, most_height), t.across = CEIL_DIV(t.width, SIDE);
    t.tile_height = CEIL_DIV(t.height, t.down), t.tile_width = CEIL_DIV(t.width, t.across);
    t.groups = CEIL_DIV(t.channels, PIXEL_BYTES / (int)dtype_size(type));
    const int width = columns_width(type, t.channels);
    t.group = (int)ROUND_UP(CEIL_DIV(t.channels, t.groups), MAX(2, width));
    t.groups = CEIL_DIV(t.channels, t.group);
    t.strips = CEIL_DIV(t.tile_width, STRIP);
    t.threads = ROUND_UP(MAX(t.strips * t.group / 2, t.group / width), WARP); /* to stage a pixel, and to compute */
    t.count = (int)x->dim[0] * t.down * t.across;
    return t;
}

static int strip_columns(const Tiles &t) { return t.strips * STRIP; }

/* Where a tile lies: the picture's number, and its first row and column. */
struct TileAt {
    int64_t picture;
    int y, x;
    __device__ TileAt(const Tiles &t, int tile)
        : picture(tile / (t.down * t.across)), y(tile / t.across % t.down * t.tile_height),
          x(tile % t.across * t.tile_width) {}
};

/* V features as one number to be copied: the compiler takes structs apart, and stores their parts one by one. */
template <class T, int V> struct Raw { typedef unsigned __int128 Type; };
template <> struct Raw<float, 1> { typedef uint32_t Type; };
template <> struct Raw<bf16, 1> { typedef uint16_t Type; };
template <> struct Raw<f16, 1> { typedef uint16_t Type; };

/* of V features copied as one number: taken apart by shifts, as an array in between would lie in local memory */
template <class T, int V> __device__ static inline typename Raw<T, V>::Type gelu_of(typename Raw<T, V>::Type word) {
    typedef typename Raw<T, V>::Type Word;
    typename Raw<T, 1>::Type bits;
    Word result = 0;
    UNROLL for (int i = 0; i < V; i++) {
        T x;
        bits = (typename Raw<T, 1>::Type)(word >> (8 * sizeof(T) * i));
        memcpy(&x, &bits, sizeof x);
        x = from_float<T>(gelu(to_float(x)));
        memcpy(&bits, &x, sizeof bits);
        result = (Word)(result | (Word)((Word)bits << (8 * sizeof(T) * i)));
    }
    return result;
}

/* Copies rows x columns pixels from (y0, x0) on into shared memory (rows, columns, t.group), channels from `first` on;
 * zeros outside of the limits, which are the picture's or a tile's; of their GELU, if so. V as in WITH_PACKS. */
template <class T, int V, bool GELU = false>
__device__ static inline void stage(T *to, const T *picture, const Tiles &t, int y0, int x0, int rows, int columns,
                                    int first, int end_y, int end_x) {
    typedef typename Raw<T, V>::Type Word;
    const int packs = t.group / V, slots = t.threads / packs, pack = threadIdx.x % packs;
    const int inverse = 65536 / columns + 1; /* pixel * inverse >> 16 is pixel / columns: pixels are few hundred */
    const int channel = first + pack * V;
    if ((int)threadIdx.x >= slots * packs) return;
    for (int pixel = threadIdx.x / packs; pixel < rows * columns; pixel += BATCH * slots) {
        Word v[BATCH] = {};
        UNROLL for (int i = 0; i < BATCH; i++) {
            int p = pixel + i * slots, row = p * inverse >> 16, y = y0 + row, x = x0 + p - row * columns;
            if (p < rows * columns && y >= 0 && y < end_y && x >= 0 && x < end_x && channel < t.channels)
                v[i] = *(const Word *)(picture + ((int64_t)y * t.width + x) * t.channels + channel);
        }
        UNROLL for (int i = 0; i < BATCH; i++)
            if (pixel + i * slots < rows * columns)
                *(Word *)(to + (pixel + i * slots) * t.group + pack * V) = GELU ? gelu_of<T, V>(v[i]) : v[i];
    }
}

/* weights (taps, group) in shared memory, turned by half a turn if flip */
__device__ static inline void stage_weights(float *to, const float *w, const Tiles &t, int first, int taps, bool flip) {
    for (int i = threadIdx.x; i < taps * t.group; i += t.threads) {
        int c = i / taps, tap = i % taps;
        float x = first + c < t.channels ? w[(int64_t)(first + c) * taps + tap] : 0.0f;
        to[(flip ? taps - 1 - tap : tap) * t.group + c] = x;
    }
}

template <class T> __device__ static inline Vec<float, 2> pair_load(const T *p) {
    Vec<T, 2> v = vec_load<2>(p);
    return {to_float(v.x[0]), to_float(v.x[1])};
}

/* Two channels, of which the second may not exist; where channels are odd pairs do not start on even addresses. */
template <class T> __device__ static inline void pair_store(T *p, const Vec<float, 2> &v, int channel, int channels) {
    Vec<T, 2> w = {from_float<T>(v.x[0]), from_float<T>(v.x[1])};
    if (channels % 2 == 0) {
        if (channel < channels) vec_store(p, w);
    } else {
        if (channel < channels) p[0] = w.x[0];
        if (channel + 1 < channels) p[1] = w.x[1];
    }
}

__device__ static inline void add_product(Vec<float, 2> &sum, const Vec<float, 2> &a, const Vec<float, 2> &b) {
    sum.x[0] += a.x[0] * b.x[0];
    sum.x[1] += a.x[1] * b.x[1];
}

/* ---- forward; dx is forward on dy with the kernel turned, without bias. blocks: groups fastest, then tiles ---- */

template <class T, int V, int K, bool GELU>
__global__ void __launch_bounds__(256)
    dwconv(T *y, const T *x, const float *w, const float *bias, bool residual, bool flip, Tiles t) {
    constexpr int PAD = K / 2, IN = STRIP + K - 1;
    const int columns = t.strips * STRIP + K - 1, rows = t.tile_height + K - 1;
    SharedMemory shared;
    T *tile = shared.take<T>(rows * columns * t.group);
    float *weights = shared.take<float>(K * K * t.group);
    const int first = (int)(blockIdx.x % t.groups) * t.group;
    const TileAt at(t, (int)blockIdx.x / t.groups);
    const int64_t picture = at.picture * t.height * t.width * t.channels;
    stage_weights(weights, w, t, first, K * K, flip);
    stage<T, V, GELU>(tile, x + picture, t, at.y - PAD, at.x - PAD, rows, columns, first, t.height, t.width);
    barrier();

    const int pairs = t.group / 2, strip = threadIdx.x / pairs, c = threadIdx.x % pairs * 2;
    if (strip >= t.strips || first + c >= t.channels) return;
    Vec<float, 2> k[K * K], sum[K][STRIP], b = {};
    UNROLL for (int i = 0; i < K * K; i++) k[i] = vec_load<2>(weights + i * t.group + c);
    if (residual) k[K * K / 2].x[0] += 1.0f, k[K * K / 2].x[1] += 1.0f; /* x + conv(x) */
    if (bias) b = {bias[first + c], first + c + 1 < t.channels ? bias[first + c + 1] : 0.0f};
    UNROLL for (int r = 0; r < K; r++)
        UNROLL for (int j = 0; j < STRIP; j++) sum[r][j] = b;
    const T *from = tile + strip * STRIP * t.group + c;
    T *to = y + picture + ((int64_t)at.y * t.width + at.x + strip * STRIP) * t.channels + first + c;
    const int height = MIN(t.tile_height, t.height - at.y), width = MIN(t.tile_width, t.width - at.x) - strip * STRIP;
    for (int row = 0; row < height + K - 1; row++) {
        /* sum[r] is row row - (K - 1) + r of the outputs */
        UNROLL for (int i = 0; i < IN; i++) {
            Vec<float, 2> v = pair_load(from + (row * columns + i) * t.group);
            UNROLL for (int r = 0; r < K; r++)
                UNROLL for (int j = 0; j < STRIP; j++)
                    if (i >= j && i - j < K) add_product(sum[r][j], v, k[(K - 1 - r) * K + i - j]);
        }
        if (row >= K - 1) {
            UNROLL for (int j = 0; j < STRIP; j++)
                if (j < width)
                    pair_store(to + ((int64_t)(row - (K - 1)) * t.width + j) * t.channels, sum[0][j], first + c,
                               t.channels);
        }
        UNROLL for (int j = 0; j < STRIP; j++) {
            UNROLL for (int r = 0; r < K - 1; r++) sum[r][j] = sum[r + 1][j];
            sum[K - 1][j] = b;
        }
    }
}

/* what the convolution is of */
template <class T> __device__ static inline float taken(T x, bool of_gelu) {
    return of_gelu ? gelu(to_float(x)) : to_float(x);
}

/* an element a thread, any kernel; of gelu(x), or, with `before`, times gelu' of that */
template <class T>
__global__ void dwconv_plain(T *y, const T *x, const float *w, const float *bias, bool residual, bool flip,
                             bool of_gelu, const T *before, int64_t count, int height, int width, int channels, int k) {
    int64_t at = (int64_t)blockIdx.x * COLUMN_THREADS + threadIdx.x, pixel = at / channels;
    if (at >= count) return;
    int c = (int)(at % channels), py = (int)(pixel / width % height), px = (int)(pixel % width), pad = k / 2;
    float sum = (bias ? bias[c] : 0.0f) + (residual ? taken(x[at], of_gelu) : 0.0f);
    for (int tap = 0; tap < k * k; tap++) {
        int dy = tap / k - pad, dx = tap % k - pad;
        if (py + dy < 0 || py + dy >= height || px + dx < 0 || px + dx >= width) continue;
        float weight = w[(int64_t)c * k * k + (flip ? k * k - 1 - tap : tap)];
        sum += taken(x[at + ((int64_t)dy * width + dx) * channels], of_gelu) * weight;
    }
    y[at] = from_float<T>(before ? sum * gelu_pair(to_float(before[at])).slope : sum);
}

template <class T, int V, int K> static void launch_tiles(const KernelCall *c, const float *bias, bool flip) {
    const Shape *x = call_in(c, 0);
    Tiles t = tiles_of(x, in_type(c, 0), SIDE);
    size_t bytes = shared_size<T>((t.tile_height + K - 1) * (strip_columns(t) + K - 1) * t.group) +
                   shared_size<float>(K * K * t.group);
    auto kernel = c->node->attr.dwconv.gelu ? dwconv<T, V, K, true> : dwconv<T, V, K, false>;
    launch(c, kernel, dim3((unsigned)(t.count * t.groups)), dim3((unsigned)t.threads), bytes, (T *)c->out[0],
           (const T *)c->in[0], (const float *)c->in[1], bias, c->node->attr.dwconv.residual, flip, t);
}

/* before: as dwconv_plain takes it */
template <class T>
static void launch_plain(const KernelCall *c, const void *w, const float *bias, bool flip, const void *before) {
    const Shape *x = call_in(c, 0);
    launch(c, dwconv_plain<T>, dim3((unsigned)CEIL_DIV(shape_count(x), (int64_t)COLUMN_THREADS)), dim3(COLUMN_THREADS),
           0, (T *)c->out[0], (const T *)c->in[0], (const float *)w, bias, c->node->attr.dwconv.residual, flip,
           c->node->attr.dwconv.gelu && !before, (const T *)before, shape_count(x), (int)x->dim[1], (int)x->dim[2],
           (int)x->dim[3], c->node->attr.dwconv.kernel);
}

static void run_forward(const KernelCall *c, const float *bias, bool flip) {
    const Shape *x = call_in(c, 0);
    const int kernel = c->node->attr.dwconv.kernel;
    WITH_PACKS(in_type(c, 0), x->dim[3], T, V, {
        if (kernel == 3) launch_tiles<T, V, 3>(c, bias, flip);
        if (kernel == 5) launch_tiles<T, V, 5>(c, bias, flip);
        if (kernel == 3 || kernel == 5) return;
        launch_plain<T>(c, c->in[1], bias, flip, NULL);
    });
}

static void dwconv_run(const KernelCall *c) { run_forward(c, (const float *)c->in[2], false); }
static void dwconv_dx_run(const KernelCall *c) { run_forward(c, NULL, true); }

CUDA_KERNEL(dwconv, .run = dwconv_run, .types = FEATURE_TYPES)
CUDA_KERNEL(dwconv_dx, .run = dwconv_dx_run, .types = FEATURE_TYPES)

/* ---- dw and db: parts[share] = dw | db over the share's tiles; with GELU dx too. dy comes with its halo, x without:
 * so each x belongs to one tile, and dw[r][s] += x[q] dy[q - (r, s) + pad]. Walking down, a thread has the last K rows
 * of x and all taps in registers, and reads each dy once. dx, which is forward on dy, comes out of the same walk, K - 1
 * rows behind; the slopes of the GELU, made along with its values, wait for it in registers too ---- */

/* Without GELU: w, dx, residual are not looked at. dx may be NULL. */
template <class T, int V, int K, bool GELU>
__global__ void __launch_bounds__(256)
    dwconv_dw(float *parts, T *dx, const T *dy, const T *x, const float *w, bool residual, int share, Tiles t) {
    constexpr int PAD = K / 2, IN = STRIP + K - 1;
    const int inner = t.strips * STRIP, columns = inner + K - 1, rows = t.tile_height + K - 1;
    SharedMemory shared;
    T *outer = shared.take<T>(rows * columns * t.group), *tile = shared.take<T>(t.tile_height * inner * t.group);
    [[maybe_unused]] float *weights = shared.take<float>(GELU ? K * K * t.group : 0);
    const int first = (int)(blockIdx.x % t.groups) * t.group;
    const int part = (int)blockIdx.x / t.groups, end = MIN(t.count, (part + 1) * share);
    const int pairs = t.group / 2, strip = threadIdx.x / pairs, c = threadIdx.x % pairs * 2;
    Vec<float, 2> dw[K * K] = {}, db = {};
    [[maybe_unused]] Vec<float, 2> k[GELU ? K * K : 1] = {};
    if constexpr (GELU) {
        stage_weights(weights, w, t, first, K * K, true);
        barrier();
        if (strip < t.strips) {
            UNROLL for (int j = 0; j < K * K; j++) k[j] = vec_load<2>(weights + j * t.group + c);
            if (residual) k[K * K / 2].x[0] += 1.0f, k[K * K / 2].x[1] += 1.0f;
        }
    }
    for (int i = part * share; i < end; i++) {
        const TileAt at(t, i);
        const int64_t picture = at.picture * t.height * t.width * t.channels;
        const int end_y = MIN(t.height, at.y + t.tile_height), end_x = MIN(t.width, at.x + t.tile_width);
        barrier();
        stage<T, V>(outer, dy + picture, t, at.y - PAD, at.x - PAD, rows, columns, first, t.height, t.width);
        stage<T, V>(tile, x + picture, t, at.y, at.x, t.tile_height, inner, first, end_y, end_x);
        barrier();
        if (strip >= t.strips) continue;
        const T *from = outer + strip * STRIP * t.group + c, *row_x = tile + strip * STRIP * t.group + c;
        const int height = end_y - at.y, width = end_x - at.x - strip * STRIP;
        [[maybe_unused]] const int64_t to =
            picture + ((int64_t)at.y * t.width + at.x + strip * STRIP) * t.channels + first + c;
        /* [r] is row row - (K - 1) + r: of x, or of gelu(x), its slope and the sums of dx */
        Vec<float, 2> h[K][STRIP] = {};
        [[maybe_unused]] Vec<float, 2> slope[GELU ? K : 1][STRIP] = {}, sum[GELU ? K : 1][STRIP] = {};
        for (int row = 0; row < height + K - 1; row++) {
            UNROLL for (int j = 0; j < STRIP; j++) {
                UNROLL for (int r = 0; r < K - 1; r++) h[r][j] = h[r + 1][j];
                h[K - 1][j] = {};
                if (row < height) h[K - 1][j] = pair_load(row_x + (row * inner + j) * t.group);
                if constexpr (GELU) {
                    UNROLL for (int r = 0; r < K - 1; r++) slope[r][j] = slope[r + 1][j], sum[r][j] = sum[r + 1][j];
                    UNROLL for (int e = 0; e < 2; e++) {
                        GeluPair g = gelu_pair(h[K - 1][j].x[e]);
                        h[K - 1][j].x[e] = g.value, slope[K - 1][j].x[e] = g.slope;
                    }
                    sum[K - 1][j] = {};
                }
            }
            const bool counts = row >= PAD && row < height + PAD;
            UNROLL for (int i2 = 0; i2 < IN; i2++) {
                Vec<float, 2> d = pair_load(from + (row * columns + i2) * t.group);
                if (counts && i2 >= PAD && i2 - PAD < STRIP && i2 - PAD < width) db.x[0] += d.x[0], db.x[1] += d.x[1];
                UNROLL for (int r = 0; r < K; r++)
                    UNROLL for (int j = 0; j < STRIP; j++)
                        if (i2 >= j && i2 - j < K) {
                            add_product(dw[r * K + K - 1 - (i2 - j)], d, h[r][j]);
                            if constexpr (GELU) add_product(sum[r][j], d, k[(K - 1 - r) * K + i2 - j]);
                        }
            }
            if constexpr (GELU) {
                UNROLL for (int j = 0; j < STRIP; j++) {
                    sum[0][j].x[0] *= slope[0][j].x[0], sum[0][j].x[1] *= slope[0][j].x[1];
                    if (dx && row >= K - 1 && j < width)
                        pair_store(dx + to + ((int64_t)(row - (K - 1)) * t.width + j) * t.channels, sum[0][j],
                                   first + c, t.channels);
                }
            }
        }
    }
    /* over the strips, a row of taps at a time; db comes last */
    float *scratch = (float *)shared_memory(), *out = parts + (int64_t)part * (K * K + 1) * t.channels;
    UNROLL for (int r = 0; r <= K; r++) {
        const int taps = r < K ? K : 1;
        barrier();
        UNROLL for (int s = 0; s < K; s++)
            if (strip < t.strips && s < taps)
                vec_store(scratch + (s * t.strips + strip) * t.group + c, r < K ? dw[MIN(r, K - 1) * K + s] : db);
        barrier();
        for (int i = threadIdx.x; i < taps * t.group; i += t.threads) {
            int s = i / t.group, channel = i % t.group;
            float sum = 0;
            for (int j = 0; j < t.strips; j++) sum += scratch[(s * t.strips + j) * t.group + channel];
            if (first + channel >= t.channels) continue;
            if (r < K)
                out[(int64_t)(first + channel) * K * K + r * K + s] = sum;
            else
                out[(int64_t)t.channels * K * K + first + channel] = sum;
        }
    }
}

/* a warp for a tap of a channel, any kernel; tap k k is db */
template <class T>
__global__ void dwconv_dw_plain(float *dw, float *db, const T *dy, const T *x, bool of_gelu, int64_t pixels, int height,
                                int width, int channels, int k) {
    const int taps = k * k + 1, lane = threadIdx.x % WARP, pad = k / 2;
    int64_t job = (int64_t)blockIdx.x * (COLUMN_THREADS / WARP) + threadIdx.x / WARP;
    int c = (int)(job / taps), tap = (int)(job % taps), up = tap / k - pad, right = tap % k - pad;
    float sum = 0;
    for (int64_t p = lane; c < channels && p < pixels; p += WARP) {
        int py = (int)(p / width % height) + up, px = (int)(p % width) + right;
        if (tap == k * k)
            sum += to_float(dy[p * channels + c]);
        else if (py >= 0 && py < height && px >= 0 && px < width)
            sum += to_float(dy[p * channels + c]) * taken(x[(p + (int64_t)up * width + right) * channels + c], of_gelu);
    }
    sum = warp_sum(sum);
    if (lane > 0 || c >= channels) return;
    if (tap < k * k && dw) dw[(int64_t)c * k * k + tap] = sum;
    if (tap == k * k && db) db[c] = sum;
}

/* Tiles of a block: some two thousand blocks keep a GPU busy to the end. */
static int dw_share(const Tiles &t) { return CEIL_DIV(t.count, MAX(1, MIN(t.count, 2048 / t.groups))); }

static size_t dwconv_dw_workspace(const Graph *g, const Node *n) {
    const int kernel = n->attr.dwconv.kernel;
    Tiles t = tiles_of(in_shape(g, n, 0), node_compute_type(g, n), DW_HEIGHT);
    if (kernel != 3 && kernel != 5) return 0;
    return (size_t)CEIL_DIV(t.count, dw_share(t)) * (size_t)((kernel * kernel + 1) * t.channels) * sizeof(float);
}

/* dw, db: outputs. GELU: dx and w are the op's too. */
template <class T, int V, int K, bool GELU> static void launch_dw(const KernelCall *c, void *dw, void *db) {
    Tiles t = tiles_of(call_in(c, 0), in_type(c, 0), DW_HEIGHT);
    const int share = dw_share(t), shares = CEIL_DIV(t.count, share);
    size_t tiles = shared_size<T>((t.tile_height + K - 1) * (strip_columns(t) + K - 1) * t.group) +
                   shared_size<T>(t.tile_height * strip_columns(t) * t.group) +
                   shared_size<float>(GELU ? K * K * t.group : 0);
    float *parts = (float *)c->work;
    launch(c, dwconv_dw<T, V, K, GELU>, dim3((unsigned)(shares * t.groups)), dim3((unsigned)t.threads),
           MAX(tiles, shared_size<float>(K * t.strips * t.group)), parts, GELU ? (T *)c->out[0] : (T *)NULL,
           (const T *)c->in[0], (const T *)c->in[1], GELU ? (const float *)c->in[2] : (const float *)NULL,
           c->node->attr.dwconv.residual, share, t);
    run_add_parts(c, dw, (int64_t)K * K * t.channels, db, t.channels, parts, shares);
}

template <class T> static void launch_dw_plain(const KernelCall *c, void *dw, void *db) {
    const Shape *x = call_in(c, 1);
    const int kernel = c->node->attr.dwconv.kernel;
    const int64_t jobs = x->dim[3] * (kernel * kernel + 1);
    launch(c, dwconv_dw_plain<T>, dim3((unsigned)CEIL_DIV(jobs, (int64_t)(COLUMN_THREADS / WARP))),
           dim3(COLUMN_THREADS), 0, (float *)dw, (float *)db, (const T *)c->in[0], (const T *)c->in[1],
           c->node->attr.dwconv.gelu, shape_rows(x), (int)x->dim[1], (int)x->dim[2], (int)x->dim[3], kernel);
}

static void dwconv_dw_run(const KernelCall *c) {
    const int kernel = c->node->attr.dwconv.kernel;
    WITH_PACKS(in_type(c, 0), call_in(c, 1)->dim[3], T, V, {
        if (kernel == 3) launch_dw<T, V, 3, false>(c, c->out[0], c->out[1]);
        if (kernel == 5) launch_dw<T, V, 5, false>(c, c->out[0], c->out[1]);
        if (kernel != 3 && kernel != 5) launch_dw_plain<T>(c, c->out[0], c->out[1]);
    });
}

static void dwconv_gelu_bwd_run(const KernelCall *c) {
    const int kernel = c->node->attr.dwconv.kernel;
    WITH_PACKS(in_type(c, 0), call_in(c, 1)->dim[3], T, V, {
        if (kernel == 3) launch_dw<T, V, 3, true>(c, c->out[1], c->out[2]);
        if (kernel == 5) launch_dw<T, V, 5, true>(c, c->out[1], c->out[2]);
        if (kernel == 3 || kernel == 5) return;
        launch_dw_plain<T>(c, c->out[1], c->out[2]);
        if (c->out[0]) launch_plain<T>(c, c->in[2], NULL, true, c->in[1]);
    });
}

CUDA_KERNEL(dwconv_dw, .run = dwconv_dw_run, .types = FEATURE_TYPES, .workspace = dwconv_dw_workspace)
CUDA_KERNEL(dwconv_gelu_bwd, .run = dwconv_gelu_bwd_run, .types = FEATURE_TYPES, .workspace = dwconv_dw_workspace)
