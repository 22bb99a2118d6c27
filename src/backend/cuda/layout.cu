/* layout.cu - weights turned once, ahead of every run, into the order that products want: 8 bytes an element. */
#include "backend/cuda/kernel.cuh"

#define TILE 32
#define TILE_ROWS 8 /* rows of a tile at a time */

/* to (cols,rows) = from (rows,cols), each row times its scale if there is one, through a tile of shared memory whose
 * rows are padded against bank conflicts */
static __global__ void transpose(float *to, const float *from, const float *scale, int64_t rows, int64_t cols) {
    SharedMemory shared;
    float *tile = shared.take<float>(TILE * (TILE + 1));
    int lane = threadIdx.x % TILE, first = threadIdx.x / TILE;
    int64_t row = (int64_t)blockIdx.y * TILE, col = (int64_t)blockIdx.x * TILE;
    for (int i = first; i < TILE && row + i < rows; i += TILE_ROWS)
        if (col + lane < cols) tile[i * (TILE + 1) + lane] = from[(row + i) * cols + col + lane];
    barrier();
    for (int i = first; i < TILE && col + i < cols; i += TILE_ROWS)
        if (row + lane < rows)
            to[(col + i) * rows + row + lane] = tile[lane * (TILE + 1) + i] * (scale ? scale[row + lane] : 1.0f);
}

static void transpose_run(const KernelCall *c) {
    int64_t rows = call_in(c, 0)->dim[0], cols = call_in(c, 0)->dim[1];
    dim3 grid((unsigned)CEIL_DIV(cols, (int64_t)TILE), (unsigned)CEIL_DIV(rows, (int64_t)TILE));
    launch(c, transpose, grid, dim3(TILE * TILE_ROWS), shared_size<float>(TILE * (TILE + 1)), (float *)c->out[0],
           (const float *)c->in[0], (const float *)(c->node->n_in > 1 ? c->in[1] : NULL), rows, cols);
}

CUDA_KERNEL(transpose, .run = transpose_run)

#define THREADS 256

/* to (O,taps,I) = from (O,I,taps); writes lie side by side */
static __global__ void pack_conv(float *to, const float *from, int64_t count, int64_t ins, int64_t taps) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= count) return;
    int64_t out = i / (ins * taps), tap = i / ins % taps;
    to[i] = from[(out * ins + i % ins) * taps + tap];
}

static void pack_conv_run(const KernelCall *c) {
    const Shape *w = call_in(c, 0);
    int64_t count = shape_count(w);
    launch(c, pack_conv, dim3((unsigned)CEIL_DIV(count, (int64_t)THREADS)), dim3(THREADS), 0, (float *)c->out[0],
           (const float *)c->in[0], count, w->dim[1], w->dim[2] * w->dim[3]);
}

CUDA_KERNEL(pack_conv, .run = pack_conv_run)
