/* columns.cuh - sums of the columns of a matrix (rows, channels), the gradient of a bias: each block adds its share of
 * the rows, then one launch adds the blocks' sums in order. Reads the matrix once; memory is the limit. */
#ifndef MALA_CUDA_COLUMNS_CUH
#define MALA_CUDA_COLUMNS_CUH

#include "backend/cuda/kernel.cuh"

#define COLUMN_LANES 32 /* columns of a block */
#define COLUMN_ROWS 8   /* rows that a block reads at a time */

/* Shares that the rows are dealt into: some hundred blocks in all, and at least 64 rows each. */
static inline int64_t column_shares(int64_t rows, int64_t channels) {
    int64_t wide = CEIL_DIV(channels, (int64_t)COLUMN_LANES);
    return MAX(1, MIN(CEIL_DIV(rows, (int64_t)64), 1024 / MIN(wide, 1024)));
}

static inline size_t column_sum_workspace(int64_t rows, int64_t channels) {
    return (size_t)(column_shares(rows, channels) * channels) * sizeof(float);
}

/* sums[share][channel] of the rows share, share + shares ... taken COLUMN_ROWS at a time; blocks (columns, shares) */
template <class T> __global__ void column_partial(float *sums, const T *x, int64_t rows, int channels) {
    SharedMemory shared;
    float *sum_of = shared.take<float>(COLUMN_ROWS * COLUMN_LANES);
    int lane = threadIdx.x % COLUMN_LANES, row = threadIdx.x / COLUMN_LANES;
    int channel = blockIdx.x * COLUMN_LANES + lane;
    float sum = 0;
    if (channel < channels)
        for (int64_t r = (int64_t)blockIdx.y * COLUMN_ROWS + row; r < rows; r += (int64_t)gridDim.y * COLUMN_ROWS)
            sum += to_float(x[r * channels + channel]);
    sum_of[threadIdx.x] = sum;
    barrier();
    if (row > 0 || channel >= channels) return;
    for (int i = 1; i < COLUMN_ROWS; i++) sum += sum_of[i * COLUMN_LANES + lane];
    sums[(int64_t)blockIdx.y * channels + channel] = sum;
}

/* out[channel] = sums[0][channel] + sums[1][channel] + ...: a warp for each channel, lanes take every 32nd share */
static __global__ void column_finish(float *out, const float *sums, int shares, int channels) {
    int channel = (blockIdx.x * blockDim.x + threadIdx.x) / WARP, lane = threadIdx.x % WARP;
    float sum = 0;
    for (int i = lane; channel < channels && i < shares; i += WARP) sum += sums[(int64_t)i * channels + channel];
    sum = warp_sum(sum);
    if (lane == 0 && channel < channels) out[channel] = sum;
}

/* Takes column_sum_workspace bytes of call->work. */
static inline void column_sum(const KernelCall *call, float *out, const void *x, DType type, int64_t rows,
                              int64_t channels) {
    unsigned shares = (unsigned)column_shares(rows, channels), wide = (unsigned)CEIL_DIV(channels, COLUMN_LANES);
    const int threads = COLUMN_ROWS * COLUMN_LANES;
    WITH_FEATURE(type, T, launch(call, column_partial<T>, dim3(wide, shares), dim3(threads), shared_size<float>(threads),
                                 (float *)call->work, (const T *)x, rows, (int)channels));
    launch(call, column_finish, dim3((unsigned)CEIL_DIV(channels * WARP, 256)), dim3(256), 0, out, (const float *)call->work,
           (int)shares, (int)channels);
}

#endif
