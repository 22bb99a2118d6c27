#include "backend/cpu/product.h"

#include <stdio.h>
#include <stdlib.h>

#include "backend/cpu/matmul.h"
#include "backend/cpu/onednn.h"

enum { A, B, C, SCRATCH, ARRAYS };

/* The library's handles that one call at a time may use. */
typedef struct {
    dnnl_stream_t stream;
    dnnl_memory_t memory[ARRAYS];
} Slot;

struct CpuProduct {
    ProductSize size;
    CpuLibrary *library;
    int users;
    CpuProduct *next;
    dnnl_engine_t engine;
    dnnl_primitive_t primitive;
    bool gemm;
    Layout layout[ARRAYS];
    Slot *slots; /* [callers] */
};

static dnnl_status_t lay_out(Layout *out, int64_t rows, int64_t columns, bool turned) {
    return layout_tagged(out, 2, (dnnl_dims_t){rows, columns}, turned ? dnnl_ba : dnnl_ab);
}

static dnnl_status_t open_slots(CpuProduct *p) {
    dnnl_status_t status = dnnl_success;
    for (int i = 0; i < p->library->callers && !status; i++) {
        Slot *slot = &p->slots[i];
        status = dnnl_stream_create(&slot->stream, p->engine, dnnl_stream_default_flags);
        for (int k = 0; k < ARRAYS && !status; k++)
            status = dnnl_memory_create(&slot->memory[k], layout_view(&p->layout[k]), p->engine, DNNL_MEMORY_NONE);
    }
    return status;
}

static dnnl_status_t make(CpuProduct *p, const ProductSize *s) {
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_status_t status = onednn_has_room() ? dnnl_engine_create(&p->engine, dnnl_cpu, 0) : dnnl_out_of_memory;
    if (!status) status = lay_out(&p->layout[A], s->rows, s->inner, false);
    if (!status) status = lay_out(&p->layout[B], s->inner, s->columns, s->turned);
    if (!status) status = lay_out(&p->layout[C], s->rows, s->columns, false);
    if (!status) status = dnnl_primitive_attr_create(&attr);
    if (!status) status = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (!status) status = describe_matmul(&desc, p->engine, attr, &p->layout[A], &p->layout[B], &p->layout[C]);
    if (!status) status = layout_wanted(&p->layout[SCRATCH], desc, dnnl_query_scratchpad_md);
    if (!status) status = onednn_make(&p->primitive, desc);
    if (!status) status = open_slots(p);
    p->gemm = !status && onednn_is_gemm(desc);
    if (desc) dnnl_primitive_desc_destroy(desc);
    if (attr) dnnl_primitive_attr_destroy(attr);
    return onednn_status(status);
}

static void free_product(CpuProduct *p) {
    for (int i = 0; i < p->library->callers; i++) {
        for (int k = 0; k < ARRAYS; k++)
            if (p->slots[i].memory[k]) dnnl_memory_destroy(p->slots[i].memory[k]);
        if (p->slots[i].stream) dnnl_stream_destroy(p->slots[i].stream);
    }
    for (int k = 0; k < ARRAYS; k++) layout_free(&p->layout[k]);
    if (p->primitive) dnnl_primitive_destroy(p->primitive);
    if (p->engine) dnnl_engine_destroy(p->engine);
    free(p->slots);
    free(p);
}

static bool same_size(const ProductSize *a, const ProductSize *b) {
    return a->rows == b->rows && a->columns == b->columns && a->inner == b->inner && a->turned == b->turned;
}

bool cpu_product_take(CpuLibrary *library, CpuProduct **out, const ProductSize *size, Err *err) {
    CpuProduct *p = library->products;
    while (p && !same_size(&p->size, size)) p = p->next;
    *out = p;
    if (p) {
        p->users++;
        return true;
    }
    p = mem_zalloc(1, sizeof *p);
    p->library = library;
    p->size = *size;
    p->slots = mem_zalloc((size_t)library->callers, sizeof *p->slots);
    onednn_enter_making();
    dnnl_status_t status = make(p, size);
    onednn_leave_making();
    if (status) {
        free_product(p);
        char what[96];
        snprintf(what, sizeof what, "a product of %lld x %lld x %lld", (long long)size->rows, (long long)size->inner,
                 (long long)size->columns);
        return onednn_refused(err, status, what);
    }
    if (p->gemm && !matmul_compile(library, err)) {
        free_product(p);
        return false;
    }
    p->users = 1;
    p->next = library->products;
    *out = library->products = p;
    return true;
}

void cpu_product_drop(CpuLibrary *library, CpuProduct *p) {
    if (!p || --p->users > 0) return;
    CpuProduct **at = &library->products;
    while (*at != p) at = &(*at)->next;
    *at = p->next;
    free_product(p);
}

int64_t cpu_product_scratch_floats(const CpuProduct *p) { return layout_floats(&p->layout[SCRATCH]); }
bool cpu_product_is_gemm(const CpuProduct *p) { return p->gemm; }

static dnnl_status_t execute(CpuProduct *p, Slot *slot, float *c, const float *a, const float *b, float *scratch) {
    void *data[ARRAYS] = {[A] = (void *)a, [B] = (void *)b, [C] = c, [SCRATCH] = scratch};
    dnnl_status_t status = dnnl_success;
    for (int k = 0; k < ARRAYS && !status; k++) status = dnnl_memory_set_data_handle(slot->memory[k], data[k]);
    if (status) return status;
    return dnnl_primitive_execute(p->primitive, slot->stream, ARRAYS,
                                  (dnnl_exec_arg_t[]){{DNNL_ARG_SRC, slot->memory[A]},
                                                      {DNNL_ARG_WEIGHTS, slot->memory[B]},
                                                      {DNNL_ARG_DST, slot->memory[C]},
                                                      {DNNL_ARG_SCRATCHPAD, slot->memory[SCRATCH]}});
}

void cpu_product_run(CpuProduct *p, int caller, float *c, const float *a, const float *b, float *scratch) {
    CHECK(caller >= 0 && caller < p->library->callers, "caller %d", caller);
    onednn_enter();
    dnnl_status_t status = onednn_status(execute(p, &p->slots[caller], c, a, b, scratch));
    onednn_leave();
    if (status) onednn_report(p->library, status);
}
