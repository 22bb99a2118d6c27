/* simd.h - vectors of floats for the CPU kernels. The files of this folder are compiled once per instruction set with
 * the same text: VL is what the target's registers hold, and GCC's vector extension does the rest, on x86 and ARM.
 *
 * Each file exports kernels named through ISA_NAME, and table.c gathers them per instruction set. */
#ifndef MALA_SIMD_H
#define MALA_SIMD_H

#include <math.h>
#include <string.h>

#include "backend/backend.h"
#include "base/parallel.h"

#define ISA_PASTE2(a, b) a##_##b
#define ISA_PASTE(a, b) ISA_PASTE2(a, b)
#define ISA_NAME(name) ISA_PASTE(name, ISA) /* ISA is generic, v3 or v4: see the Makefile */

#if defined(__AVX512F__)
#define VL 16
#elif defined(__AVX2__)
#define VL 8
#else
#define VL 4
#endif

/* for what must end up in registers: vectors in small arrays, indexed by constants once loops are unrolled */
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));
typedef uint32_t vu __attribute__((vector_size(VL * 4))); /* bits of numbers: what is no number may overflow */

static inline vf vf_set(float x) { return x - (vf){0}; }
static inline vf vf_load(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void vf_store(float *p, vf v) { memcpy(p, &v, sizeof v); }
/* the first n < VL elements; the others are 0 */
static inline vf vf_load_part(const float *p, int64_t n) {
    vf v = {0};
    memcpy(&v, p, (size_t)n * sizeof(float));
    return v;
}
static inline void vf_store_part(float *p, vf v, int64_t n) { memcpy(p, &v, (size_t)n * sizeof(float)); }
/* mask lanes are 0 or -1, as comparisons give them. max and min give b when a or b is not a number. (Loops over lanes
 * would become single instructions, but now and then GCC leaves such a loop scalar.) */
static inline vf vf_select(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }
static inline vf vf_max(vf a, vf b) { return vf_select(a > b, a, b); }
static inline vf vf_min(vf a, vf b) { return vf_select(a < b, a, b); }

/* Sum of the lanes in a fixed tree, so that the order never changes: the upper half is added to the lower. */
static inline float vf_sum(vf v) {
    typedef float Quad __attribute__((vector_size(16)));
    Quad q[2] = {{0}};
#if VL == 16
    typedef float Octet __attribute__((vector_size(32)));
    Octet o[2];
    memcpy(o, &v, sizeof o);
    o[0] += o[1];
    memcpy(q, o, sizeof q);
#else
    memcpy(q, &v, sizeof v);
#endif
    if (VL > 4) q[0] += q[1];
    return (q[0][0] + q[0][2]) + (q[0][1] + q[0][3]);
}

/* e^x, relative error below 2e-7 for x in [-87, 88]; x beyond that, and NaN, is
 * clamped: who must not lose a NaN carries it past this. */
static inline vf vf_exp(vf x) {
    x = vf_min(vf_max(x, vf_set(-87.33654f)), vf_set(88.37626f));
    vf t = x * 1.44269504f + 12582912.0f; /* round to nearest by the 1.5 * 2^23 trick */
    vu n = (vu)t - 0x4b400000u;
    vf k = t - 12582912.0f;
    vf r = x - k * 0.693359375f;
    r = r - k * -2.12194440e-4f;
    vf p = vf_set(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (vf)((n + 127) << 23);
}

/* Where part `index` of `count` things begins when they are dealt to `parts` as evenly as can be. */
static inline int64_t part_begin(int64_t count, int64_t index, int64_t parts) { return count * index / parts; }

/* Kernel table entry: extern const Kernel kernel_<op>_<isa>; */
#define KERNEL(op, ...) const Kernel ISA_NAME(kernel_##op) = {.run = ISA_NAME(op##_run), __VA_ARGS__}
#define RUN(op) static void ISA_NAME(op##_run)(const KernelCall *call)

#endif
