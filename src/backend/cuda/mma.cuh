/* mma.cuh - products of 16x16 tiles by a warp: float32 sums in registers, operands of a feature type in memory. Tensor
 * cores where the GPU has them for the type (f16 from sm_75, bf16 from sm_80 on), else, and for float32,
 * multiplications by every lane. Tensor cores are asked by PTX's ldmatrix and mma.sync, whose division of a tile
 * among lanes is written down, and which tests/emulate/ follows word for word. (nvcuda::wmma hides it, so that a
 * vector spread over a tile must go through memory; and of bf16 it makes 32-bit loads from no particular memory.)
 *
 * Every lane of the warp calls every function with the same arguments. 16-bit operands lie in shared memory; operands'
 * rows start on 16 bytes, rows of sums on 8. rows() and columns() spread a vector over the tile as the sums are, and
 * what works element by element may then be done on x(i). */
#ifndef MALA_CUDA_MMA_CUH
#define MALA_CUDA_MMA_CUH

#include "backend/cuda/kernel.cuh"

template <class T> struct Tensor { static constexpr bool CORES = false; };
#if defined(MALA_EMULATE) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 750)
template <> struct Tensor<f16> { static constexpr bool CORES = true; };
#endif
#if defined(MALA_EMULATE) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800)
template <> struct Tensor<bf16> { static constexpr bool CORES = true; };
#endif

/* ---- what tensor cores do; emulate.h has the same for the host ---- */

#ifndef MALA_EMULATE
/* Four tiles of 8x8 features of 16 bits from shared memory. Lane i says where row i % 8 of tile i / 8 lies; of each
 * tile a lane gets the elements lane % 4 * 2 and the next one of row lane / 4, or, TURNED, of column lane / 4. */
template <bool TURNED> __device__ inline void warp_load_tiles(uint32_t (&to)[4], const void *row) {
    const unsigned at = (unsigned)__cvta_generic_to_shared(row);
    if constexpr (TURNED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(at));
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(at));
}

/* c (16, 8) += a (16, 16) b (16, 8) in features T. a: the 8x8 tiles above left, below left, above right, below right;
 * b: the tiles above and below, turned; as warp_load_tiles deals them. A lane has of c, in rows lane / 4 and
 * lane / 4 + 8, columns lane % 4 * 2 and the next one. */
template <class T> __device__ inline void warp_mma(float *c, const uint32_t (&a)[4], uint32_t above, uint32_t below);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
template <>
__device__ inline void warp_mma<bf16>(float *c, const uint32_t (&a)[4], uint32_t above, uint32_t below) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(above), "r"(below));
}
template <>
__device__ inline void warp_mma<f16>(float *c, const uint32_t (&a)[4], uint32_t above, uint32_t below) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(above), "r"(below));
}
#else
template <>
__device__ inline void warp_mma<f16>(float *c, const uint32_t (&a)[4], uint32_t above, uint32_t below) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(above));
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[2]), "r"(a[3]), "r"(below));
}
#endif
#endif

/* ---- a lane's part of 16x16 sums ---- */

template <class T, bool CORES = Tensor<T>::CORES> struct MmaTile {
    static constexpr int N = 8;
    float value[N];

    /* where the tile's element is that a lane has as its i-th; i + 1 is right of every even i */
    __device__ static int row(int i) {
        const int lane = threadIdx.x % WARP;
        return CORES ? lane / 4 + i / 2 % 2 * 8 : lane / 2;
    }
    __device__ static int column(int i) {
        const int lane = threadIdx.x % WARP;
        return CORES ? lane % 4 * 2 + i / 4 * 8 + i % 2 : lane % 2 * 8 + i;
    }

    __device__ float &x(int i) { return value[i]; }
    __device__ void fill(float v) { UNROLL for (int i = 0; i < N; i++) value[i] = v; }
    /* element (r, c) = v[r], or v[c] */
    __device__ void rows(const float *v) { UNROLL for (int i = 0; i < N; i++) value[i] = v[row(i)]; }
    __device__ void columns(const float *v) { UNROLL for (int i = 0; i < N; i++) value[i] = v[column(i)]; }
    __device__ void store(float *to, int stride) const {
        UNROLL for (int i = 0; i < N; i += 2)
            vec_store(to + row(i) * stride + column(i), Vec<float, 2>{value[i], value[i + 1]});
    }
};

/* ---- sums[i] += A B_i. A (16 rows, K) lies row by row, or, transposed, column by column; so does B (K, N * 16), of
 * which B_i are columns i * 16 and on. K is a multiple of 16 ---- */

template <int K, bool A_TRANSPOSED, bool B_TRANSPOSED, int N, class T>
__device__ inline void mma(MmaTile<T, false> (&sums)[N], const T *a, int a_stride, const T *b, int b_stride) {
    const int row = MmaTile<T, false>::row(0), column = MmaTile<T, false>::column(0);
    UNROLL_BY(2) for (int k = 0; k < K; k++) {
        float left = to_float(A_TRANSPOSED ? a[k * a_stride + row] : a[row * a_stride + k]);
        UNROLL for (int i = 0; i < N; i++) {
            UNROLL for (int j = 0; j < 8; j++) {
                int c = i * 16 + column + j;
                sums[i].value[j] += left * to_float(B_TRANSPOSED ? b[c * b_stride + k] : b[k * b_stride + c]);
            }
        }
    }
}

template <int K, bool A_TRANSPOSED, bool B_TRANSPOSED, int N, class T>
__device__ inline void mma(MmaTile<T, true> (&sums)[N], const T *a, int a_stride, const T *b, int b_stride) {
    /* the row this lane shows the tensor cores of an 8x8 tile, and which of the four: `near` changes with every tile,
     * `far` with every second one */
    const int lane = threadIdx.x % WARP, row = lane % 8, near = lane / 8 % 2 * 8, far = lane / 16 * 8;
    a += A_TRANSPOSED ? (far + row) * a_stride + near : (near + row) * a_stride + far;
    b += B_TRANSPOSED ? (far + row) * b_stride + near : (near + row) * b_stride + far;
    UNROLL for (int k = 0; k < K; k += 16) {
        uint32_t left[4], right[4];
        warp_load_tiles<A_TRANSPOSED>(left, a + k * (A_TRANSPOSED ? a_stride : 1));
        UNROLL for (int i = 0; i < N; i++) {
            warp_load_tiles<!B_TRANSPOSED>(right, b + (B_TRANSPOSED ? i * 16 * b_stride + k : k * b_stride + i * 16));
            warp_mma<T>(sums[i].value, left, right[0], right[1]);
            warp_mma<T>(sums[i].value + 4, left, right[2], right[3]);
        }
    }
}

#endif
