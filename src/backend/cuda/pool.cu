/* pool.cu - the mean over a map and its gradient. Memory is the limit: one feature an element, read or written. */
#include "backend/cuda/columns.cuh"

/* y (B,C): the mean of x (B,pixels,C) over pixels; a block is a group of channels of a sample */
template <class T, int V> __global__ void mean_pool(T *y, const T *x, Columns s) {
    SharedMemory shared;
    float *scratch = shared.take<float>(COLUMN_THREADS * V), *means = shared.take<float>(s.across * V);
    ColumnsAt t = columns_at(s, V);
    const T *sample = x + (int64_t)blockIdx.z * s.rows * s.channels;
    Vec<float, V> sum = {};
    for (int64_t row = t.row; row < t.end; row += 4 * s.down) {
        Vec<T, V> v[4] = {};
        UNROLL for (int r = 0; r < 4; r++)
            if (row + r * s.down < t.end) v[r] = vec_load<V>(sample + (row + r * s.down) * s.channels + t.channel);
        UNROLL for (int r = 0; r < 4; r++)
            UNROLL for (int k = 0; k < V; k++) sum.x[k] += to_float(v[r].x[k]);
    }
    columns_block_sum(means, sum, s, t, scratch); /* gives each thread those that it divides */
    for (int c = threadIdx.x; c < s.across * V && t.first_channel + c < s.channels; c += COLUMN_THREADS)
        y[(int64_t)blockIdx.z * s.channels + t.first_channel + c] = from_float<T>(means[c] / (float)s.rows);
}

static void mean_pool_run(const KernelCall *c) {
    const Shape *x = call_in(c, 0);
    WITH_PACKS(in_type(c, 0), x->dim[3], T, V, {
        Columns s = columns_of(x->dim[1] * x->dim[2], x->dim[3], V, 1, 1); /* one share: a sample's whole map */
        dim3 grid(1, (unsigned)s.groups, (unsigned)x->dim[0]);
        launch(c, mean_pool<T, V>, grid, dim3(COLUMN_THREADS),
               shared_size<float>(COLUMN_THREADS * V) + shared_size<float>(s.across * V), (T *)c->out[0],
               (const T *)c->in[0], s);
    });
}

CUDA_KERNEL(mean_pool, .run = mean_pool_run, .types = FEATURE_TYPES)

/* dx (B,pixels,C) = dy (B,C) / pixels */
template <class T, int V> __global__ void mean_pool_bwd(T *dx, const T *dy, int64_t pixels, Columns s) {
    ColumnsAt t = columns_at(s, V);
    for (int64_t row = t.row; row < t.end; row += s.down) {
        Vec<T, V> v = vec_load<V>(dy + row / pixels * s.channels + t.channel);
        UNROLL for (int k = 0; k < V; k++) v.x[k] = from_float<T>(to_float(v.x[k]) / (float)pixels);
        vec_store(dx + row * s.channels + t.channel, v);
    }
}

static void mean_pool_bwd_run(const KernelCall *c) {
    const Shape *dx = call_out(c, 0);
    WITH_PACKS(in_type(c, 0), dx->dim[3], T, V, {
        Columns s = columns_to_map(shape_rows(dx), dx->dim[3], V);
        launch(c, mean_pool_bwd<T, V>, columns_grid(s), dim3(COLUMN_THREADS), 0, (T *)c->out[0], (const T *)c->in[0],
               dx->dim[1] * dx->dim[2], s);
    });
}

CUDA_KERNEL(mean_pool_bwd, .run = mean_pool_bwd_run, .types = FEATURE_TYPES)
