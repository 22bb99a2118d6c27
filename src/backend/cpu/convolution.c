#include "backend/cpu/convolution.h"

#include <dnnl.h>
#include <omp.h>
#include <stdlib.h>

#if DNNL_VERSION_MAJOR != 2
#error "convolution.c speaks to oneDNN 2; version 3 describes convolutions in another way"
#endif

enum { X, Y, PACKED, PLAIN, BIAS, SCRATCH, ARRAYS };

/* What one call at a time may use: the library's handles of arrays, and where they point. */
typedef struct {
    dnnl_stream_t stream;
    dnnl_memory_t memory[ARRAYS];
    const void *data[ARRAYS];
} Slot;

struct Convolution {
    ConvolutionKind kind;
    dnnl_engine_t engine;
    dnnl_primitive_t product, reorder; /* reorder: plain weights to packed, or back for their gradient */
    dnnl_memory_desc_t desc[ARRAYS];
    Slot slots[CONVOLUTION_SLOTS];
};

/* Remembers the first failure of a row of calls. */
static bool went(dnnl_status_t *first, dnnl_status_t status) {
    if (*first == dnnl_success) *first = status;
    return *first == dnnl_success;
}

static dnnl_status_t describe(Convolution *c, const ConvolutionSize *s, dnnl_memory_desc_t *any_order) {
    const int64_t k = s->kernel;
    dnnl_dims_t x = {s->batch, s->ins, s->height, s->width}, y = {s->batch, s->outs, s->out_height, s->out_width};
    dnnl_dims_t w = {s->outs, s->ins, k, k}, bias = {s->outs}, strides = {s->filter_ins * k * k, k * k, k, 1};
    if (s->channels_last) strides[1] = 1, strides[2] = k * s->filter_ins, strides[3] = s->filter_ins;
    dnnl_status_t first = dnnl_success;
    went(&first, dnnl_memory_desc_init_by_tag(&c->desc[X], 4, x, dnnl_f32, dnnl_nhwc));
    went(&first, dnnl_memory_desc_init_by_tag(&c->desc[Y], 4, y, dnnl_f32, dnnl_nhwc));
    went(&first, dnnl_memory_desc_init_by_tag(any_order, 4, w, dnnl_f32, dnnl_format_tag_any));
    went(&first, dnnl_memory_desc_init_by_strides(&c->desc[PLAIN], 4, w, dnnl_f32, strides));
    went(&first, dnnl_memory_desc_init_by_tag(&c->desc[BIAS], 1, bias, dnnl_f32, dnnl_a));
    return first;
}

static dnnl_status_t make_product(Convolution *c, const ConvolutionSize *s) {
    dnnl_memory_desc_t w;
    dnnl_status_t first = describe(c, s, &w);
    dnnl_dims_t strides = {s->stride, s->stride}, pad = {s->pad_rows, s->pad_columns};
    dnnl_convolution_desc_t op;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t made = NULL, forward = NULL; /* gradients want to see their forward */
    const dnnl_memory_desc_t *bias = c->kind == CONVOLUTION_Y ? &c->desc[BIAS] : NULL;
    dnnl_prop_kind_t purpose = c->kind == CONVOLUTION_Y ? dnnl_forward_inference : dnnl_forward_training;
    went(&first, dnnl_primitive_attr_create(&attr));
    went(&first, dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
    if (went(&first, dnnl_convolution_forward_desc_init(&op, purpose, dnnl_convolution_direct, &c->desc[X], &w, bias,
                                                        &c->desc[Y], strides, pad, pad)))
        went(&first, dnnl_primitive_desc_create(&forward, &op, attr, c->engine, NULL));
    if (c->kind == CONVOLUTION_DX)
        went(&first, dnnl_convolution_backward_data_desc_init(&op, dnnl_convolution_direct, &c->desc[X], &w,
                                                              &c->desc[Y], strides, pad, pad));
    if (c->kind == CONVOLUTION_DW)
        went(&first, dnnl_convolution_backward_weights_desc_init(&op, dnnl_convolution_direct, &c->desc[X], &w, NULL,
                                                                 &c->desc[Y], strides, pad, pad));
    if (c->kind != CONVOLUTION_Y && first == dnnl_success)
        went(&first, dnnl_primitive_desc_create(&made, &op, attr, c->engine, forward));
    dnnl_primitive_desc_t product = c->kind == CONVOLUTION_Y ? forward : made;
    if (first == dnnl_success) {
        dnnl_query_t weights = c->kind == CONVOLUTION_DW ? dnnl_query_diff_weights_md : dnnl_query_weights_md;
        c->desc[PACKED] = *dnnl_primitive_desc_query_md(product, weights, 0);
        c->desc[SCRATCH] = *dnnl_primitive_desc_query_md(product, dnnl_query_scratchpad_md, 0);
        went(&first, dnnl_primitive_create(&c->product, product));
    }
    if (forward) dnnl_primitive_desc_destroy(forward);
    if (made) dnnl_primitive_desc_destroy(made);
    if (attr) dnnl_primitive_attr_destroy(attr);
    return first;
}

static dnnl_status_t make_reorder(Convolution *c) {
    dnnl_status_t first = dnnl_success;
    dnnl_primitive_desc_t desc;
    int from = c->kind == CONVOLUTION_DW ? PACKED : PLAIN, to = c->kind == CONVOLUTION_DW ? PLAIN : PACKED;
    if (!went(&first,
              dnnl_reorder_primitive_desc_create(&desc, &c->desc[from], c->engine, &c->desc[to], c->engine, NULL)))
        return first;
    went(&first, dnnl_primitive_create(&c->reorder, desc));
    dnnl_primitive_desc_destroy(desc);
    return first;
}

/* A slot is opened by its first call: few are ever used. */
static dnnl_status_t open_slot(Convolution *c, Slot *slot) {
    dnnl_status_t first = dnnl_success;
    went(&first, dnnl_stream_create(&slot->stream, c->engine, dnnl_stream_default_flags));
    for (int k = 0; k < ARRAYS; k++)
        went(&first, dnnl_memory_create(&slot->memory[k], &c->desc[k], c->engine, DNNL_MEMORY_NONE));
    return first;
}

static Slot *slot_at(Convolution *c, int index) {
    CHECK(index >= 0 && index < CONVOLUTION_SLOTS, "slot %d", index);
    Slot *slot = &c->slots[index];
    dnnl_status_t status = slot->stream ? dnnl_success : open_slot(c, slot);
    CHECK(status == dnnl_success, "oneDNN's handles: status %d", (int)status);
    return slot;
}

bool cpu_convolution_new(Convolution **out, ConvolutionKind kind, const ConvolutionSize *size, Err *err) {
    Convolution *c = *out = mem_zalloc(1, sizeof *c);
    c->kind = kind;
    omp_set_num_threads(1); /* the library splits the work now, by the threads that it may start */
    dnnl_status_t first = dnnl_engine_create(&c->engine, dnnl_cpu, 0);
    if (first == dnnl_success) first = make_product(c, size);
    if (first == dnnl_success) first = make_reorder(c);
    if (first == dnnl_success) return true;
    cpu_convolution_free(c);
    *out = NULL;
    return err_set(err, first == dnnl_out_of_memory ? EXIT_MEMORY : EXIT_BUG,
                   "cpu: oneDNN cannot make a convolution of %lld x %lld pixels, %lld to %lld channels (status %d)",
                   (long long)size->height, (long long)size->width, (long long)size->ins, (long long)size->outs,
                   (int)first);
}

void cpu_convolution_free(Convolution *c) {
    if (!c) return;
    for (int i = 0; i < CONVOLUTION_SLOTS; i++) {
        for (int k = 0; k < ARRAYS; k++)
            if (c->slots[i].memory[k]) dnnl_memory_destroy(c->slots[i].memory[k]);
        if (c->slots[i].stream) dnnl_stream_destroy(c->slots[i].stream);
    }
    if (c->product) dnnl_primitive_destroy(c->product);
    if (c->reorder) dnnl_primitive_destroy(c->reorder);
    if (c->engine) dnnl_engine_destroy(c->engine);
    free(c);
}

static int64_t floats_of(const dnnl_memory_desc_t *desc) {
    return (int64_t)CEIL_DIV(dnnl_memory_desc_get_size(desc), sizeof(float));
}

int64_t cpu_convolution_packed_floats(const Convolution *c) { return floats_of(&c->desc[PACKED]); }
int64_t cpu_convolution_scratch_floats(const Convolution *c) { return floats_of(&c->desc[SCRATCH]); }

static void point(Slot *slot, int array, const void *data) {
    if (slot->data[array] == data) return;
    dnnl_status_t status = dnnl_memory_set_data_handle(slot->memory[array], (void *)data);
    CHECK(status == dnnl_success, "dnnl_memory_set_data_handle: status %d", (int)status);
    slot->data[array] = data;
}

static void execute(dnnl_primitive_t primitive, Slot *slot, const dnnl_exec_arg_t *arguments, int count) {
    omp_set_num_threads(1); /* the answer belongs to the calling thread */
    dnnl_status_t status = dnnl_primitive_execute(primitive, slot->stream, count, arguments);
    CHECK(status == dnnl_success, "dnnl_primitive_execute: status %d", (int)status);
}

static void reorder(Convolution *c, int index, int from, int to, const float *packed, const float *plain) {
    Slot *slot = slot_at(c, index);
    point(slot, PACKED, packed);
    point(slot, PLAIN, plain);
    execute(c->reorder, slot, (dnnl_exec_arg_t[]){{DNNL_ARG_FROM, slot->memory[from]}, {DNNL_ARG_TO, slot->memory[to]}},
            2);
}

void cpu_convolution_pack(Convolution *c, int slot, float *packed, const float *w) {
    reorder(c, slot, PLAIN, PACKED, packed, w);
}

void cpu_convolution_unpack(Convolution *c, int slot, float *dw, const float *packed) {
    reorder(c, slot, PACKED, PLAIN, packed, dw);
}

void cpu_convolution_run(Convolution *c, int index, const float *x, const float *packed, const float *y,
                     const float *bias, float *scratch) {
    static const int names[][3] = {[CONVOLUTION_Y] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
                                   [CONVOLUTION_DX] = {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST},
                                   [CONVOLUTION_DW] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST}};
    Slot *slot = slot_at(c, index);
    point(slot, X, x);
    point(slot, PACKED, packed);
    point(slot, Y, y);
    point(slot, SCRATCH, scratch);
    if (bias) point(slot, BIAS, bias);
    execute(c->product, slot,
            (dnnl_exec_arg_t[]){{names[c->kind][0], slot->memory[X]},
                                {names[c->kind][1], slot->memory[PACKED]},
                                {names[c->kind][2], slot->memory[Y]},
                                {DNNL_ARG_SCRATCHPAD, slot->memory[SCRATCH]},
                                {DNNL_ARG_BIAS, slot->memory[BIAS]}},
            c->kind == CONVOLUTION_Y ? 5 : 4);
}
