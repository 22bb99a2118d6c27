#include "backend/cpu/convolution.h"

#include <stdio.h>
#include <stdlib.h>

#include "backend/cpu/matmul.h"
#include "backend/cpu/onednn.h"

enum { X, Y, PACKED, PLAIN, BIAS, SCRATCH, ARRAYS };

/* What one call at a time may use: the library's handles of arrays, and where they point. */
typedef struct {
    dnnl_stream_t stream;
    dnnl_memory_t memory[ARRAYS];
    const void *data[ARRAYS];
} Slot;

struct Convolution {
    ConvolutionKind kind;
    CpuLibrary *library;
    dnnl_engine_t engine;
    dnnl_primitive_t product, reorder; /* reorder: plain weights to packed, or back for their gradient */
    bool gemm;
    Layout layout[ARRAYS];
    Slot slots[CONVOLUTION_SLOTS];
};

/* Remembers the first failure of a row of calls. */
static bool went(dnnl_status_t *first, dnnl_status_t status) {
    if (*first == dnnl_success) *first = status;
    return *first == dnnl_success;
}

static dnnl_status_t lay_out(Convolution *c, const ConvolutionSize *s, Layout *any_order) {
    const int64_t k = s->kernel;
    dnnl_dims_t x = {s->batch, s->ins, s->height, s->width}, y = {s->batch, s->outs, s->out_height, s->out_width};
    dnnl_dims_t w = {s->outs, s->ins, k, k}, bias = {s->outs}, strides = {s->filter_ins * k * k, k * k, k, 1};
    if (s->channels_last) strides[1] = 1, strides[2] = k * s->filter_ins, strides[3] = s->filter_ins;
    dnnl_status_t first = dnnl_success;
    went(&first, layout_tagged(&c->layout[X], 4, x, dnnl_nhwc));
    went(&first, layout_tagged(&c->layout[Y], 4, y, dnnl_nhwc));
    went(&first, layout_tagged(any_order, 4, w, dnnl_format_tag_any));
    went(&first, layout_strided(&c->layout[PLAIN], 4, w, strides));
    went(&first, layout_tagged(&c->layout[BIAS], 1, bias, dnnl_a));
    return first;
}

/* What the product is, and the forward that a gradient wants to see. */
static dnnl_status_t describe(Convolution *c, const ConvolutionSize *s, const Layout *w, dnnl_primitive_attr_t attr,
                              dnnl_primitive_desc_t *product, dnnl_primitive_desc_t *forward) {
    bool is_forward = c->kind == CONVOLUTION_Y;
    ConvolutionShape shape = {c->engine, attr, &c->layout[X], w, is_forward ? &c->layout[BIAS] : NULL, &c->layout[Y],
                              {s->stride, s->stride}, {s->pad_rows, s->pad_columns}};
    if (is_forward) return describe_convolution_y(product, &shape, dnnl_forward_inference);
    dnnl_status_t first = describe_convolution_y(forward, &shape, dnnl_forward_training);
    if (first) return first;
    return c->kind == CONVOLUTION_DX ? describe_convolution_dx(product, &shape, *forward)
                                     : describe_convolution_dw(product, &shape, *forward);
}

static dnnl_status_t make_product(Convolution *c, const ConvolutionSize *s) {
    Layout w = {0};
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t product = NULL, forward = NULL;
    dnnl_query_t weights = c->kind == CONVOLUTION_DW ? dnnl_query_diff_weights_md : dnnl_query_weights_md;
    dnnl_status_t first = lay_out(c, s, &w);
    went(&first, dnnl_primitive_attr_create(&attr));
    if (first == dnnl_success) went(&first, dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
    if (first == dnnl_success) went(&first, describe(c, s, &w, attr, &product, &forward));
    if (first == dnnl_success) went(&first, layout_wanted(&c->layout[PACKED], product, weights));
    if (first == dnnl_success) went(&first, layout_wanted(&c->layout[SCRATCH], product, dnnl_query_scratchpad_md));
    if (first == dnnl_success) went(&first, onednn_make(&c->product, product));
    c->gemm = first == dnnl_success && onednn_is_gemm(product);
    if (product) dnnl_primitive_desc_destroy(product);
    if (forward) dnnl_primitive_desc_destroy(forward);
    if (attr) dnnl_primitive_attr_destroy(attr);
    layout_free(&w);
    return first;
}

static dnnl_status_t make_reorder(Convolution *c) {
    dnnl_status_t first = dnnl_success;
    dnnl_primitive_desc_t desc;
    int from = c->kind == CONVOLUTION_DW ? PACKED : PLAIN, to = c->kind == CONVOLUTION_DW ? PLAIN : PACKED;
    if (!went(&first, dnnl_reorder_primitive_desc_create(&desc, layout_view(&c->layout[from]), c->engine,
                                                         layout_view(&c->layout[to]), c->engine, NULL)))
        return first;
    went(&first, onednn_make(&c->reorder, desc));
    dnnl_primitive_desc_destroy(desc);
    return first;
}

static int slot_count(const Convolution *c) { return MIN(c->library->callers, CONVOLUTION_SLOTS); }

static dnnl_status_t open_slots(Convolution *c) {
    dnnl_status_t first = dnnl_success;
    for (int i = 0; i < slot_count(c); i++) {
        Slot *slot = &c->slots[i];
        went(&first, dnnl_stream_create(&slot->stream, c->engine, dnnl_stream_default_flags));
        for (int k = 0; k < ARRAYS; k++)
            went(&first, dnnl_memory_create(&slot->memory[k], layout_view(&c->layout[k]), c->engine, DNNL_MEMORY_NONE));
    }
    return first;
}

static dnnl_status_t make(Convolution *c, const ConvolutionSize *size) {
    dnnl_status_t first = onednn_has_room() ? dnnl_engine_create(&c->engine, dnnl_cpu, 0) : dnnl_out_of_memory;
    if (first == dnnl_success) first = make_product(c, size);
    if (first == dnnl_success) first = make_reorder(c);
    if (first == dnnl_success) first = open_slots(c);
    return onednn_status(first);
}

bool cpu_convolution_new(Convolution **out, CpuLibrary *library, ConvolutionKind kind, const ConvolutionSize *size,
                         Err *err) {
    Convolution *c = *out = mem_zalloc(1, sizeof *c);
    c->kind = kind;
    c->library = library;
    onednn_enter_making();
    dnnl_status_t status = make(c, size);
    onednn_leave_making();
    bool ready = status == dnnl_success && (!c->gemm || matmul_compile(library, err));
    if (ready) return true;
    cpu_convolution_free(c);
    *out = NULL;
    if (status == dnnl_success) return false;
    char what[128];
    snprintf(what, sizeof what, "a convolution of %lld x %lld pixels, %lld to %lld channels", (long long)size->height,
             (long long)size->width, (long long)size->ins, (long long)size->outs);
    return onednn_refused(err, status, what);
}

void cpu_convolution_free(Convolution *c) {
    if (!c) return;
    for (int i = 0; i < CONVOLUTION_SLOTS; i++) {
        for (int k = 0; k < ARRAYS; k++)
            if (c->slots[i].memory[k]) dnnl_memory_destroy(c->slots[i].memory[k]);
        if (c->slots[i].stream) dnnl_stream_destroy(c->slots[i].stream);
    }
    for (int k = 0; k < ARRAYS; k++) layout_free(&c->layout[k]);
    if (c->product) dnnl_primitive_destroy(c->product);
    if (c->reorder) dnnl_primitive_destroy(c->reorder);
    if (c->engine) dnnl_engine_destroy(c->engine);
    free(c);
}

int64_t cpu_convolution_packed_floats(const Convolution *c) { return layout_floats(&c->layout[PACKED]); }
int64_t cpu_convolution_scratch_floats(const Convolution *c) { return layout_floats(&c->layout[SCRATCH]); }

bool cpu_convolution_is_gemm(const Convolution *c) { return c->gemm; }

static Slot *slot_at(Convolution *c, int index) {
    CHECK(index >= 0 && index < slot_count(c), "slot %d", index);
    return &c->slots[index];
}

static void point(Slot *slot, int array, const void *data) {
    if (slot->data[array] == data) return;
    dnnl_status_t status = dnnl_memory_set_data_handle(slot->memory[array], (void *)data);
    CHECK(status == dnnl_success, "dnnl_memory_set_data_handle: status %d", (int)status);
    slot->data[array] = data;
}

static void execute(Convolution *c, dnnl_primitive_t primitive, Slot *slot, const dnnl_exec_arg_t *arguments,
                    int count) {
    onednn_enter();
    dnnl_status_t status = onednn_status(dnnl_primitive_execute(primitive, slot->stream, count, arguments));
    onednn_leave();
    if (status) onednn_report(c->library, status);
}

static void reorder(Convolution *c, int index, int from, int to, const float *packed, const float *plain) {
    Slot *slot = slot_at(c, index);
    point(slot, PACKED, packed);
    point(slot, PLAIN, plain);
    execute(c, c->reorder, slot,
            (dnnl_exec_arg_t[]){{DNNL_ARG_FROM, slot->memory[from]}, {DNNL_ARG_TO, slot->memory[to]}}, 2);
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
    execute(c, c->product, slot,
            (dnnl_exec_arg_t[]){{names[c->kind][0], slot->memory[X]},
                                {names[c->kind][1], slot->memory[PACKED]},
                                {names[c->kind][2], slot->memory[Y]},
                                {DNNL_ARG_SCRATCHPAD, slot->memory[SCRATCH]},
                                {DNNL_ARG_BIAS, slot->memory[BIAS]}},
            c->kind == CONVOLUTION_Y ? 5 : 4);
}
