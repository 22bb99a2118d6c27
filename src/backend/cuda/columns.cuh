/* columns.cuh - matrices (rows, channels) worked on by columns: a thread keeps V neighbouring channels and walks down
 * rows, so that what belongs to a channel stays in registers and a block reads whole rows. Sums of columns are made of
 * one part per share of the rows, added by a second launch. Everything is cut by shape alone. */
#ifndef MALA_CUDA_COLUMNS_CUH
#define MALA_CUDA_COLUMNS_CUH

#include "backend/cuda/kernel.cuh"

#define COLUMN_THREADS 256

/* Blocks (shares, groups): a share is share_rows rows, a group `across` times V channels; `down` rows at a time. */
struct Columns {
    int64_t rows, share_rows;
    int channels, across, down, groups, shares;
};

/* The V of features of a type */
static inline int columns_width(DType type, int64_t channels) {
    int pack = (int)(16 / dtype_size(type));
    return channels % pack == 0 ? pack : 1;
}

/* At least `each` rows for a thread, and no more than max_blocks blocks. */
static inline Columns columns_of(int64_t rows, int64_t channels, int width, int64_t each, int64_t max_blocks) {
    Columns s = {};
    int64_t packs = CEIL_DIV(channels, (int64_t)width);
    s.rows = rows;
    s.channels = (int)channels;
    s.groups = (int)CEIL_DIV(packs, (int64_t)COLUMN_THREADS);
    s.across = (int)CEIL_DIV(packs, (int64_t)s.groups);
    s.down = COLUMN_THREADS / s.across;
    int64_t shares = MAX(1, max_blocks / s.groups);
    s.share_rows = MAX(s.down * each, ROUND_UP(CEIL_DIV(rows, shares), (int64_t)s.down));
    s.shares = (int)CEIL_DIV(rows, s.share_rows);
    return s;
}

/* For maps: a few rows for a thread. For sums: some hundred blocks keep a GPU busy, and their parts are few bytes
 * beside the matrix. */
static inline Columns columns_to_map(int64_t rows, int64_t channels, int width) {
    return columns_of(rows, channels, width, 4, INT32_MAX);
}
static inline Columns columns_to_sum(int64_t rows, int64_t channels, int width) {
    return columns_of(rows, channels, width, 16, 1024);
}

static inline dim3 columns_grid(const Columns &s) { return dim3((unsigned)s.shares, (unsigned)s.groups); }

/* What a thread works on: V channels from `channel` on, rows row, row + s.down ... below end. Threads that are left
 * over have no rows. */
struct ColumnsAt {
    int column, first_channel, channel; /* column: within the block */
    int64_t row, end;
};

__device__ inline ColumnsAt columns_at(const Columns &s, int width) {
    ColumnsAt t;
    int down = threadIdx.x / s.across;
    t.column = (threadIdx.x % s.across) * width;
    t.first_channel = blockIdx.y * s.across * width;
    t.channel = t.first_channel + t.column;
    t.row = (int64_t)blockIdx.x * s.share_rows + down;
    t.end = down < s.down && t.channel < s.channels ? MIN(s.rows, ((int64_t)blockIdx.x + 1) * s.share_rows) : 0;
    return t;
}

/* Adds up over a block's rows what its threads hold: out[0], out[1] ... get the sums of the block's channels. scratch:
 * COLUMN_THREADS * V floats of shared memory. Every thread calls. */
template <int V>
__device__ inline void columns_block_sum(float *out, const Vec<float, V> &v, const Columns &s, const ColumnsAt &t,
                                         float *scratch) {
    int wide = s.across * V, down = threadIdx.x / s.across;
    barrier();
    if (down < s.down) vec_store(scratch + down * wide + t.column, v);
    barrier();
    for (int c = threadIdx.x; c < wide && t.first_channel + c < s.channels; c += COLUMN_THREADS) {
        float sum = 0;
        for (int i = 0; i < s.down; i++) sum += scratch[i * wide + c];
        out[c] = sum;
    }
}

/* ---- the second launch: a[i] = sum of parts[share][i], b[i] = sum of parts[share][na + i]; either may be NULL ---- */

#define PART_LANES 32 /* threads that share the parts of a number */

static __global__ void __launch_bounds__(PART_LANES *WARP)
    add_parts(float *a, int64_t na, float *b, int64_t nb, const float *parts, int shares) {
    SharedMemory shared;
    float *sums = shared.take<float>(PART_LANES * WARP);
    int lane = threadIdx.x % WARP, first = threadIdx.x / WARP;
    int64_t i = (int64_t)blockIdx.x * WARP + lane, count = na + nb;
    float sum = 0;
    for (int p = first; i < count && p < shares; p += PART_LANES) sum += parts[p * count + i];
    sums[threadIdx.x] = sum;
    barrier();
    if (first > 0 || i >= count) return;
    for (int p = 1; p < PART_LANES; p++) sum += sums[p * WARP + lane];
    if (i < na) {
        if (a) a[i] = sum;
    } else if (b) {
        b[i - na] = sum;
    }
}

static inline void run_add_parts(const KernelCall *call, void *a, int64_t na, void *b, int64_t nb, const float *parts,
                                 int shares) {
    launch(call, add_parts, dim3((unsigned)CEIL_DIV(na + nb, (int64_t)WARP)), dim3(PART_LANES * WARP),
           shared_size<float>(PART_LANES * WARP), (float *)a, na, (float *)b, nb, parts, shares);
}

/* ---- sums of columns, the gradient of a bias: one pass over x ---- */

static inline size_t column_sum_workspace(DType type, int64_t rows, int64_t channels) {
    Columns s = columns_to_sum(rows, channels, columns_width(type, channels));
    return (size_t)s.shares * (size_t)channels * sizeof(float);
}

template <class T, int V> __global__ void column_partial(float *parts, const T *x, Columns s) {
    SharedMemory shared;
    float *scratch = shared.take<float>(COLUMN_THREADS * V);
    ColumnsAt t = columns_at(s, V);
    Vec<float, V> sum = {};
    for (int64_t row = t.row; row < t.end; row += 4 * s.down) {
        Vec<T, V> v[4] = {};
        UNROLL for (int r = 0; r < 4; r++)
            if (row + r * s.down < t.end) v[r] = vec_load<V>(x + (row + r * s.down) * s.channels + t.channel);
        UNROLL for (int r = 0; r < 4; r++)
            UNROLL for (int k = 0; k < V; k++) sum.x[k] += to_float(v[r].x[k]);
    }
    columns_block_sum(parts + (int64_t)blockIdx.x * s.channels + t.first_channel, sum, s, t, scratch);
}

/* Takes column_sum_workspace bytes of call->work. */
static inline void column_sum(const KernelCall *call, float *out, const void *x, DType type, int64_t rows,
                              int64_t channels) {
    WITH_PACKS(type, channels, T, V, {
        Columns s = columns_to_sum(rows, channels, V);
        launch(call, column_partial<T, V>, columns_grid(s), dim3(COLUMN_THREADS),
               shared_size<float>(COLUMN_THREADS * V), (float *)call->work, (const T *)x, s);
        run_add_parts(call, out, channels, NULL, 0, (const float *)call->work, s.shares);
    });
}

#endif
