/* cast.c - float types into one another, each element by way of float32, which holds all of them exactly. The CPU
 * computes in float32 alone, so this is for conversions at the edges and for tests; plain loops do. */
#include "backend/cpu/simd/simd.h"
#include "base/half.h"

enum { TILE = 16384 };

/* runs store for every element, with x its value */
#define EACH(source, load, store) \
    for (int64_t i = begin; i < end; i++) { \
        float x = load(((const source *)in)[i]); \
        store; \
    }
#define SAME(x) (x)

/* the loops from one type to all three */
#define FROM(source, load) \
    switch (to) { \
    case DT_BF16: EACH(source, load, ((uint16_t *)out)[i] = bf16_from_f32(x)); break; \
    case DT_F16: EACH(source, load, ((uint16_t *)out)[i] = f16_from_f32(x)); break; \
    default: EACH(source, load, ((float *)out)[i] = x); \
    }

static void cast_range(void *out, DType to, const void *in, DType from, int64_t begin, int64_t end) {
    switch (from) {
    case DT_BF16: FROM(uint16_t, bf16_to_f32); break;
    case DT_F16: FROM(uint16_t, f16_to_f32); break;
    default: FROM(float, SAME);
    }
}

static void cast_tile(void *arg, int tile, int thread) {
    const KernelCall *call = arg;
    int64_t begin = (int64_t)tile * TILE;
    (void)thread;
    cast_range(call->out[0], call->node->attr.cast.dtype, call->in[0],
               graph_value(call->graph, node_in(call->graph, call->node, 0))->dtype, begin,
               MIN(shape_count(call_out(call, 0)), begin + TILE));
}

RUN(cast) {
    if (call->out[0]) parallel_for((int)CEIL_DIV(shape_count(call_out(call, 0)), TILE), cast_tile, (void *)call);
}
KERNEL(cast);
