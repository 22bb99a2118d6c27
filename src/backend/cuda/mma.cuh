/* mma.cuh - products of 16x16 tiles by a warp: float32 sums in registers, operands of a feature type in shared or
 * global memory. Tensor cores where the GPU has them for the type (f16 from sm_75, bf16 from sm_80 on), else, and for
 * float32, multiplications by every lane; the host emulation takes that path too, so that both have one meaning.
 *
 * Every lane of the warp calls every function with the same arguments. Operands must lie on 32 bytes, with rows a
 * multiple of 16 bytes apart. Where a lane keeps which element is not said: rows() and columns() spread a vector over
 * the tile in the same way, and what works element by element may then be done on x(i). */
#ifndef MALA_CUDA_MMA_CUH
#define MALA_CUDA_MMA_CUH

#include "backend/cuda/kernel.cuh"

#if !defined(MALA_EMULATE)
#include <mma.h>
#endif

#if !defined(MALA_EMULATE) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 750
#define TENSOR_F16 1
#endif
#if !defined(MALA_EMULATE) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define TENSOR_BF16 1
#endif

template <class T> struct Tensor { static constexpr bool CORES = false; };

/* ---- by every lane: row lane / 2, eight columns from lane % 2 * 8 on ---- */

template <class T, bool CORES = Tensor<T>::CORES> struct MmaTile {
    static constexpr int N = 8;
    float value[N];

    __device__ static int row() { return threadIdx.x % WARP / 2; }
    __device__ static int column() { return threadIdx.x % 2 * 8; }

    __device__ float &x(int i) { return value[i]; }
    __device__ void fill(float v) { UNROLL for (int i = 0; i < N; i++) value[i] = v; }
    /* element (r, c) = v[r], or v[c] */
    __device__ void rows(const float *v) { UNROLL for (int i = 0; i < N; i++) value[i] = v[row()]; }
    __device__ void columns(const float *v) { UNROLL for (int i = 0; i < N; i++) value[i] = v[column() + i]; }
    __device__ void store(float *to, int stride) const {
        UNROLL for (int i = 0; i < N; i++) to[row() * stride + column() + i] = value[i];
    }
};

/* sums[i] += A B_i. A (16 rows, K) lies row by row, or, transposed, column by column; so does B (K, N * 16), of which
 * B_i are columns i * 16 and on. K is a multiple of 16. */
template <int K, bool A_TRANSPOSED, bool B_TRANSPOSED, int N, class T>
__device__ inline void mma(MmaTile<T, false> (&sums)[N], const T *a, int a_stride, const T *b, int b_stride) {
    const int row = MmaTile<T, false>::row(), column = MmaTile<T, false>::column();
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

/* ---- tensor cores ---- */

#ifdef TENSOR_F16
template <> struct Tensor<f16> { static constexpr bool CORES = true; };
#ifdef TENSOR_BF16
template <> struct Tensor<bf16> { static constexpr bool CORES = true; };
#endif

namespace wmma = nvcuda::wmma;
template <bool TRANSPOSED> struct MmaLayout { using Type = wmma::row_major; };
template <> struct MmaLayout<true> { using Type = wmma::col_major; };

template <class T> struct MmaTile<T, true> {
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> f;
    static constexpr int N = decltype(f)::num_elements;

    __device__ float &x(int i) { return f.x[i]; }
    __device__ void fill(float v) { wmma::fill_fragment(f, v); }
    /* rows that are no bytes apart are the same row */
    __device__ void rows(const float *v) { wmma::load_matrix_sync(f, v, 0, wmma::mem_col_major); }
    __device__ void columns(const float *v) { wmma::load_matrix_sync(f, v, 0, wmma::mem_row_major); }
    __device__ void store(float *to, int stride) const { wmma::store_matrix_sync(to, f, stride, wmma::mem_row_major); }
};

template <int K, bool A_TRANSPOSED, bool B_TRANSPOSED, int N, class T>
__device__ inline void mma(MmaTile<T, true> (&sums)[N], const T *a, int a_stride, const T *b, int b_stride) {
    UNROLL for (int k = 0; k < K; k += 16) {
        wmma::fragment<wmma::matrix_a, 16, 16, 16, T, typename MmaLayout<A_TRANSPOSED>::Type> left;
        wmma::load_matrix_sync(left, a + k * (A_TRANSPOSED ? a_stride : 1), a_stride);
        UNROLL for (int i = 0; i < N; i++) {
            wmma::fragment<wmma::matrix_b, 16, 16, 16, T, typename MmaLayout<B_TRANSPOSED>::Type> right;
            const T *at = B_TRANSPOSED ? b + i * 16 * b_stride + k : b + k * b_stride + i * 16;
            wmma::load_matrix_sync(right, at, b_stride);
            wmma::mma_sync(sums[i].f, left, right, sums[i].f);
        }
    }
}
#endif

#endif
