/* elementwise.cu - what treats every element alike. Memory is the limit: 16 bytes a thread and access. */
#include "backend/cuda/kernel.cuh"

#define THREADS 256

__device__ static inline float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678f)); }

/* ---- y = f(x) ---- */

struct Gelu {
    __device__ static float of(float x) { return gelu(x); }
};
struct Silu {
    __device__ static float of(float x) { return x / (1.0f + expf(-x)); }
};

/* A thread takes Pack<T>::N neighbours; the last ones of all are taken one by one. */
template <class T, class F> __global__ void map1(T *y, const T *x, int64_t count) {
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * Pack<T>::N;
    if (i + Pack<T>::N <= count) {
        Pack<T> v = pack_load(x + i);
        for (int k = 0; k < Pack<T>::N; k++) v.x[k] = from_float<T>(F::of(to_float(v.x[k])));
        pack_store(y + i, v);
    } else {
        for (; i < count; i++) y[i] = from_float<T>(F::of(to_float(x[i])));
    }
}

template <class F> static void run_map1(const KernelCall *c) {
    int64_t count = shape_count(call_out(c, 0));
    WITH_FEATURE(out_type(c, 0), T, {
        int64_t blocks = CEIL_DIV(count, (int64_t)THREADS * Pack<T>::N);
        launch(c, map1<T, F>, dim3((unsigned)blocks), dim3(THREADS), 0, (T *)c->out[0], (const T *)c->in[0], count);
    });
}

/* ---- y = f(a, b); the gradients take dy and the input of the forward op ---- */

struct Add {
    __device__ static float of(float a, float b) { return a + b; }
};
struct GeluBwd { /* dy (Phi(x) + x Phi'(x)) */
    __device__ static float of(float dy, float x) {
        float cdf = 0.5f * (1.0f + erff(x * 0.70710678f)), density = 0.39894228f * expf(-0.5f * x * x);
        return dy * (cdf + x * density);
    }
};
struct SiluBwd { /* dy s (1 + x (1 - s)), s = sigmoid(x) */
    __device__ static float of(float dy, float x) {
        float s = 1.0f / (1.0f + expf(-x));
        return dy * s * (1.0f + x * (1.0f - s));
    }
};

template <class T, class F> __global__ void map2(T *y, const T *a, const T *b, int64_t count) {
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * Pack<T>::N;
    if (i + Pack<T>::N <= count) {
        Pack<T> v = pack_load(a + i), w = pack_load(b + i);
        for (int k = 0; k < Pack<T>::N; k++) v.x[k] = from_float<T>(F::of(to_float(v.x[k]), to_float(w.x[k])));
        pack_store(y + i, v);
    } else {
        for (; i < count; i++) y[i] = from_float<T>(F::of(to_float(a[i]), to_float(b[i])));
    }
}

template <class F> static void run_map2(const KernelCall *c) {
    int64_t count = shape_count(call_out(c, 0));
    WITH_FEATURE(out_type(c, 0), T, {
        int64_t blocks = CEIL_DIV(count, (int64_t)THREADS * Pack<T>::N);
        launch(c, map2<T, F>, dim3((unsigned)blocks), dim3(THREADS), 0, (T *)c->out[0], (const T *)c->in[0],
               (const T *)c->in[1], count);
    });
}

CUDA_KERNEL(add, .run = run_map2<Add>)
CUDA_KERNEL(gelu_bwd, .run = run_map2<GeluBwd>)
CUDA_KERNEL(silu_bwd, .run = run_map2<SiluBwd>)
CUDA_KERNEL(gelu, .run = run_map1<Gelu>)
CUDA_KERNEL(silu, .run = run_map1<Silu>)
