/* kernel.cuh - the subset of CUDA C that mala's kernels are written in, so that the same text runs on a GPU and,
 * through tests/emulate/emulate.h, on any host.
 *
 * The subset
 *   - a kernel is `__global__ void name(...)`, a template over the feature type, a size or a choice where it needs to
 * be, launched by launch() alone; arguments are pointers, numbers and small structs of them, passed by value;
 *   - threadIdx, blockIdx, blockDim, gridDim; blocks are whole warps of 32;
 *   - shared memory through SharedMemory alone, at most SHARED_LIMIT bytes, so that it fits every GPU from sm_75 on;
 *   - barrier(), warp_*(), block_*(): every thread of the block reaches every barrier and every lane of a warp every
 *     warp_*(), of which warp_barrier() orders shared memory among the lanes; nothing else communicates: no atomics, no
 * blocks that wait for each other, no shared statics;
 *   - features are read by to_float and written by from_float; arithmetic is float.
 * Sums are cut by shape alone and added in a fixed order: the same bits on every run and every GPU. */
#ifndef MALA_KERNEL_CUH
#define MALA_KERNEL_CUH

#include <math.h>
#include <stddef.h>
#include <stdint.h>

extern "C" {
#include "backend/backend.h"

/* Of the backend that is open (backend/cuda/cuda.c): the stream that computes, and where a failed launch is kept until
 * the next wait. */
void *cuda_compute_stream(const Backend *backend);
void cuda_launch_failed(Backend *backend, const char *node, int code);
}

#define WARP 32
#define SHARED_LIMIT (48 * 1024)

#ifdef MALA_EMULATE
#include "emulate.h"
#define UNROLL
#define UNROLL_BY(n)
#else
#define UNROLL _Pragma("unroll")
#define PRAGMA(text) _Pragma(#text)
#define UNROLL_BY(n) PRAGMA(unroll n) /* 1: not at all */
#include <cuda_bf16.h>
#include <cuda_fp16.h>

typedef __nv_bfloat16 bf16;
typedef __half f16;

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bf16 x) { return __bfloat162float(x); }
__device__ inline float to_float(f16 x) { return __half2float(x); }
template <class T> __device__ inline T from_float(float x);
template <> __device__ inline float from_float<float>(float x) { return x; }
template <> __device__ inline bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }
template <> __device__ inline f16 from_float<f16>(float x) { return __float2half_rn(x); }

__device__ inline void barrier() { __syncthreads(); }
__device__ inline void warp_barrier() { __syncwarp(); }
__device__ inline float warp_xor(float x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
__device__ inline float warp_from(float x, int lane) { return __shfl_sync(0xffffffffu, x, lane); }

/* two neighbours that were loaded as one word, in one instruction each */
template <class T> __device__ inline void floats_of_word(float *out, uint32_t word);
template <> __device__ inline void floats_of_word<bf16>(float *out, uint32_t word) {
    out[0] = __uint_as_float(word << 16), out[1] = __uint_as_float(word & 0xffff0000u);
}
template <> __device__ inline void floats_of_word<f16>(float *out, uint32_t word) {
    out[0] = __half2float(__ushort_as_half((unsigned short)word));
    out[1] = __half2float(__ushort_as_half((unsigned short)(word >> 16)));
}

/* 2^x to 2 units in the last place, one instruction; 0 where it is below the smallest normal number */
__device__ inline float exp2_near(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ inline char *shared_memory() {
    extern __shared__ __align__(16) char mala_shared[];
    return mala_shared;
}

/* Queues grid x block threads of a kernel on the stream of the call's backend. */
template <class... P, class... A>
void launch(const KernelCall *call, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, A... args) {
    kernel<<<grid, block, shared_bytes, (cudaStream_t)cuda_compute_stream(call->backend)>>>(args...);
    cudaError_t code = cudaPeekAtLastError();
    if (code != cudaSuccess) cuda_launch_failed(call->backend, call->node->name, (int)code);
}
#endif

/* ---- shared memory: taken piece by piece, each on 16 bytes ---- */

template <class T> constexpr __host__ __device__ size_t shared_size(size_t count) {
    return (count * sizeof(T) + 15) / 16 * 16;
}

struct SharedMemory {
    char *at;
    __device__ SharedMemory() : at(shared_memory()) {}
    template <class T> __device__ T *take(size_t count) {
        T *piece = (T *)at;
        at += shared_size<T>(count);
        return piece;
    }
};

/* ---- neighbours in memory at once: 16 bytes an access; the address must be a multiple of Vec's alignment ---- */

template <class T, int COUNT> struct alignas(COUNT * sizeof(T) < 16 ? COUNT * sizeof(T) : 16) Vec {
    static constexpr int N = COUNT;
    T x[COUNT];
};
template <int V, class T> __device__ inline Vec<T, V> vec_load(const T *p) { return *(const Vec<T, V> *)p; }
template <class T, int V> __device__ inline void vec_store(T *p, const Vec<T, V> &v) { *(Vec<T, V> *)p = v; }

/* N neighbours, 2 or 4, as floats; zeros unless `there`. Words stay words until they are floats: a struct of halves is
 * taken apart by several instructions for each. */
template <int N, class T> __device__ inline void load_floats(float (&out)[N], const T *p, bool there) {
    if constexpr (sizeof(T) == sizeof(float)) {
        Vec<float, N> v = {};
        if (there) v = vec_load<N>(p);
        UNROLL for (int i = 0; i < N; i++) out[i] = v.x[i];
    } else {
        Vec<uint32_t, N / 2> v = {};
        if (there) memcpy(&v, __builtin_assume_aligned(p, sizeof v), sizeof v);
        UNROLL for (int i = 0; i < N / 2; i++) floats_of_word<T>(out + 2 * i, v.x[i]);
    }
}

/* 16 bytes of features */
template <class T> using Pack = Vec<T, (int)(16 / sizeof(T))>;
template <class T> __device__ inline Pack<T> pack_load(const T *p) { return vec_load<Pack<T>::N>(p); }
template <class T> __device__ inline void pack_store(T *p, const Pack<T> &v) { vec_store(p, v); }

/* ---- sums and maxima over a warp or a block; every thread receives the result ---- */

__device__ inline float warp_sum(float x) {
    for (int mask = WARP / 2; mask > 0; mask /= 2) x += warp_xor(x, mask);
    return x;
}
__device__ inline float warp_max(float x) {
    for (int mask = WARP / 2; mask > 0; mask /= 2) x = fmaxf(x, warp_xor(x, mask));
    return x;
}

/* scratch: WARP floats of shared memory, free again after the next barrier; blocks of one dimension */
__device__ inline float block_sum(float x, float *scratch) {
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    x = warp_sum(x);
    if (warps == 1) return x;
    barrier();
    if (lane == 0) scratch[warp] = x;
    barrier();
    return warp_sum(lane < warps ? scratch[lane] : 0.0f);
}

/* ---- rows of the table of kernels ---- */

/* Runs the statements with T standing for the C type of a feature's dtype. */
#define WITH_FEATURE(dtype, T, ...) \
    do { \
        if ((dtype) == DT_BF16) { \
            using T = bf16; \
            __VA_ARGS__; \
        } else if ((dtype) == DT_F16) { \
            using T = f16; \
            __VA_ARGS__; \
        } else { \
            using T = float; \
            __VA_ARGS__; \
        } \
    } while (0)

/* WITH_FEATURE, and V standing for Pack<T>::N where rows of `channels` start on 16 bytes, for 1 elsewhere. */
#define WITH_PACKS(dtype, channels, T, V, ...) \
    WITH_FEATURE(dtype, T, if ((channels) % Pack<T>::N == 0) { \
        constexpr int V = Pack<T>::N; \
        __VA_ARGS__; \
    } else { \
        constexpr int V = 1; \
        __VA_ARGS__; \
    })

/* Kernel.types of a kernel that is a template over features */
#define FEATURE_TYPES (1u << DT_F32 | 1u << DT_BF16 | 1u << DT_F16)

/* dtype of an operand or a result */
static inline DType in_type(const KernelCall *c, int i) {
    return graph_value(c->graph, node_in(c->graph, c->node, i))->dtype;
}
static inline DType out_type(const KernelCall *c, int i) {
    return graph_value(c->graph, node_out(c->graph, c->node, i))->dtype;
}

/* their size in memory */
static inline double in_bytes(const KernelCall *c, int i) {
    return (double)shape_count(call_in(c, i)) * (double)dtype_size(in_type(c, i));
}
static inline double out_bytes(const KernelCall *c, int i) {
    return (double)shape_count(call_out(c, i)) * (double)dtype_size(out_type(c, i));
}

/* CUDA_KERNEL(gelu, .run = gelu_run, .workspace = ...) in the order of struct Kernel */
#define CUDA_KERNEL(name, ...) \
    extern "C" { \
    extern const Kernel cuda_kernel_##name; \
    const Kernel cuda_kernel_##name = {__VA_ARGS__}; \
    }

#endif
