/* elementwise.cu - what treats every element alike, 16 bytes a thread and access. Bytes per element, s the size of a
 * feature: gelu and silu 2 s, their gradients and add 3 s, cast both sizes, normalize 1 + s, zeros 4. Memory is the
 * limit. */
#include "backend/cuda/kernel.cuh"
#include "backend/cuda/gelu.cuh"

#define THREADS 256

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
        UNROLL for (int k = 0; k < Pack<T>::N; k++) v.x[k] = from_float<T>(F::of(to_float(v.x[k])));
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
struct Multiply {
    __device__ static float of(float a, float b) { return a * b; }
};
struct GeluBwd { /* dy (Phi(x) + x Phi'(x)) */
    __device__ static float of(float dy, float x) { return dy * gelu_pair(x).slope; }
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
        UNROLL for (int k = 0; k < Pack<T>::N; k++) v.x[k] = from_float<T>(F::of(to_float(v.x[k]), to_float(w.x[k])));
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

CUDA_KERNEL(add, .run = run_map2<Add>, .types = FEATURE_TYPES)
CUDA_KERNEL(multiply, .run = run_map2<Multiply>)
CUDA_KERNEL(gelu_bwd, .run = run_map2<GeluBwd>, .types = FEATURE_TYPES)
CUDA_KERNEL(silu_bwd, .run = run_map2<SiluBwd>, .types = FEATURE_TYPES)
CUDA_KERNEL(gelu, .run = run_map1<Gelu>, .types = FEATURE_TYPES)
CUDA_KERNEL(silu, .run = run_map1<Silu>, .types = FEATURE_TYPES)

/* ---- between float types ---- */

#define CAST 8 /* elements of a thread: 16 bytes of the smaller type */

template <class To, class From> __global__ void convert(To *y, const From *x, int64_t count) {
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * CAST;
    if (i + CAST <= count) {
        Vec<From, CAST> v = vec_load<CAST>(x + i);
        Vec<To, CAST> w;
        UNROLL for (int k = 0; k < CAST; k++) w.x[k] = from_float<To>(to_float(v.x[k]));
        vec_store(y + i, w);
    } else {
        for (; i < count; i++) y[i] = from_float<To>(to_float(x[i]));
    }
}

static void cast_run(const KernelCall *c) {
    int64_t count = shape_count(call_out(c, 0));
    dim3 grid((unsigned)CEIL_DIV(count, (int64_t)THREADS * CAST));
    WITH_FEATURE(in_type(c, 0), From, WITH_FEATURE(out_type(c, 0), To, {
        launch(c, convert<To, From>, grid, dim3(THREADS), 0, (To *)c->out[0], (const From *)c->in[0], count);
    }));
}

CUDA_KERNEL(cast, .run = cast_run)

/* ---- pixels: y = x scale[channel] + shift[channel], three channels ---- */

struct PixelScale {
    float scale[3], shift[3];
};

template <class T> __global__ void normalize(T *y, const uint8_t *x, PixelScale of, int64_t count) {
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * Pack<T>::N;
    int first = (int)(i % 3);
    float scale[3], shift[3]; /* of the elements i, i + 1, i + 2 */
    UNROLL for (int k = 0; k < 3; k++) {
        int channel = first + k < 3 ? first + k : first + k - 3;
        scale[k] = channel == 0 ? of.scale[0] : channel == 1 ? of.scale[1] : of.scale[2];
        shift[k] = channel == 0 ? of.shift[0] : channel == 1 ? of.shift[1] : of.shift[2];
    }
    if (i + Pack<T>::N <= count) {
        Vec<uint8_t, Pack<T>::N> v = vec_load<Pack<T>::N>(x + i);
        Pack<T> w;
        UNROLL for (int k = 0; k < Pack<T>::N; k++) w.x[k] = from_float<T>((float)v.x[k] * scale[k % 3] + shift[k % 3]);
        pack_store(y + i, w);
    } else {
        UNROLL for (int k = 0; k < Pack<T>::N; k++)
            if (i + k < count) y[i + k] = from_float<T>((float)x[i + k] * scale[k % 3] + shift[k % 3]);
    }
}

static void normalize_run(const KernelCall *c) {
    const float *mean = c->node->attr.normalize.mean, *std = c->node->attr.normalize.std;
    PixelScale of;
    for (int k = 0; k < 3; k++) {
        of.scale[k] = (float)(1.0 / (255.0 * std[k]));
        of.shift[k] = (float)(-(double)mean[k] / std[k]);
    }
    int64_t count = shape_count(call_out(c, 0));
    WITH_FEATURE(out_type(c, 0), T, {
        dim3 grid((unsigned)CEIL_DIV(count, (int64_t)THREADS * Pack<T>::N));
        launch(c, normalize<T>, grid, dim3(THREADS), 0, (T *)c->out[0], (const uint8_t *)c->in[0], of, count);
    });
}

CUDA_KERNEL(normalize, .run = normalize_run, .types = FEATURE_TYPES)

/* ---- zeros ---- */

static __global__ void fill_zeros(float *y, int64_t count) {
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * Pack<float>::N;
    if (i + Pack<float>::N <= count)
        pack_store(y + i, Pack<float>{});
    else
        for (; i < count; i++) y[i] = 0;
}

static void zeros_run(const KernelCall *c) {
    int64_t count = shape_count(call_out(c, 0));
    dim3 grid((unsigned)CEIL_DIV(count, (int64_t)THREADS * Pack<float>::N));
    launch(c, fill_zeros, grid, dim3(THREADS), 0, (float *)c->out[0], count);
}

CUDA_KERNEL(zeros, .run = zeros_run)
