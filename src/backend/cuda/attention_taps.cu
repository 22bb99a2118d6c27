/* attention_taps.cu - the gradients of the local enhancement's weights and bias: sums over all tokens of products of g,
 * the gradient of mix, with v under each tap.
 *
 * A block takes a band of rows of an image and 64 channels, a warp of it one row of taps, a lane two channels; the five
 * sums of a lane's taps stay in registers. Bands' sums are then added in order. Reads v and g once from memory and five
 * times from the caches, n features each: for MAViT-T's stage 1 at 224, batch 256, in 16 bits (n = 51.4 million) 48 us
 * at 4.3 TB/s; 25 multiplications a feature are 45 us of ordinary cores at their best, and nearly as much goes to
 * loads and conversions. */
#include "backend/cuda/attention.cuh"

#define LANES 2   /* channels of a lane: a quad's half, so that a warp reads 128 bytes of 16-bit features */
#define COLUMNS 8 /* tokens of a row taken at a time: their loads are under way together */

static int bands_of(const AttentionSize &s) {
    return MIN(s.height, CEIL_DIV(2048, s.batch * CEIL_DIV(s.channels, WARP * LANES)));
}

size_t attention_taps_work(const AttentionSize &s) {
    return (size_t)s.batch * bands_of(s) * 26 * s.channels * sizeof(float);
}

/* parts (B * bands, 26, C): sums for 25 taps and the bias. Blocks (channels / 64, bands, B) of 5 warps */
template <class T>
__global__ void __launch_bounds__(5 * WARP) taps_sums(AttentionSize s, float *parts, const T *qkvo, const T *g) {
    const int ky = threadIdx.x / WARP, channel = (blockIdx.x * WARP + threadIdx.x % WARP) * LANES;
    if (channel >= s.channels) return;
    const int64_t stride = 4 * (int64_t)s.channels, image = (int64_t)blockIdx.z * s.tokens;
    const T *v = qkvo + image * stride + 2 * s.channels + channel;
    g += image * s.channels + channel;
    float sum[5][LANES] = {}, bias[LANES] = {};
    const int last = (int)((int64_t)s.height * (blockIdx.y + 1) / gridDim.y);
    for (int y = (int)((int64_t)s.height * blockIdx.y / gridDim.y); y < last; y++) {
        const int row = y + ky - 2;
        if (row < 0 || row >= s.height) continue;
        const T *v_row = v + (int64_t)row * s.width * stride, *g_row = g + (int64_t)y * s.width * s.channels;
        for (int x = 0; x < s.width; x += COLUMNS) {
            float under[COLUMNS + 4][LANES], up[COLUMNS][LANES];
            const T *v_at = v_row + (x - 2) * stride, *g_at = g_row + (int64_t)x * s.channels;
            UNROLL for (int i = 0; i < COLUMNS + 4; i++, v_at += stride)
                load_floats(under[i], v_at, (unsigned)(x + i - 2) < (unsigned)s.width);
            UNROLL for (int i = 0; i < COLUMNS; i++, g_at += s.channels) load_floats(up[i], g_at, x + i < s.width);
            UNROLL for (int i = 0; i < COLUMNS; i++) {
                UNROLL for (int c = 0; c < LANES; c++) {
                    UNROLL for (int kx = 0; kx < 5; kx++) sum[kx][c] += up[i][c] * under[i + kx][c];
                    bias[c] += up[i][c];
                }
            }
        }
    }
    float *part = parts + ((int64_t)blockIdx.z * gridDim.y + blockIdx.y) * 26 * s.channels + channel;
    UNROLL for (int c = 0; c < LANES; c++) {
        UNROLL for (int kx = 0; kx < 5; kx++) part[(ky * 5 + kx) * s.channels + c] = sum[kx][c];
        if (ky == 2) part[25 * s.channels + c] = bias[c];
    }
}

#define ADD_ROWS 8

/* dw (C,25) and db (C), each unless NULL, from parts (count, 26 C): a block adds 32 columns, every eighth part by one
 * of its warps, and then the warps' sums */
static __global__ void __launch_bounds__(ADD_ROWS *WARP)
    taps_add(float *dw, float *db, const float *parts, int count, int channels) {
    SharedMemory shared;
    float *sums = shared.take<float>(ADD_ROWS * WARP);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, column = blockIdx.x * WARP + lane;
    float sum = 0;
    for (int i = warp; column < 26 * channels && i < count; i += ADD_ROWS)
        sum += parts[(int64_t)i * 26 * channels + column];
    sums[threadIdx.x] = sum;
    barrier();
    if (warp > 0 || column >= 26 * channels) return;
    for (int i = 1; i < ADD_ROWS; i++) sum += sums[i * WARP + lane];
    const int tap = column / channels, channel = column % channels;
    if (tap < 25 && dw) dw[channel * 25 + tap] = sum;
    if (tap == 25 && db) db[channel] = sum;
}

template <class T> void attention_taps_gradient(const Attention &a, const T *g, float *parts) {
    const AttentionSize &s = a.size;
    if (!a.dw && !a.db) return;
    const int bands = bands_of(s);
    launch(a.call, taps_sums<T>, dim3(CEIL_DIV(s.channels, WARP * LANES), bands, s.batch), dim3(5 * WARP), 0, s, parts,
           (const T *)a.qkvo, g);
    launch(a.call, taps_add, dim3(CEIL_DIV(26 * s.channels, WARP)), dim3(ADD_ROWS * WARP),
           shared_size<float>(ADD_ROWS * WARP), a.dw, a.db, parts, s.batch * bands, s.channels);
}

template void attention_taps_gradient<float>(const Attention &a, const float *g, float *parts);
template void attention_taps_gradient<bf16>(const Attention &a, const bf16 *g, float *parts);
template void attention_taps_gradient<f16>(const Attention &a, const f16 *g, float *parts);
