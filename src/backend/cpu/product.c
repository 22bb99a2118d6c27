#include "backend/cpu/product.h"

#include <dnnl.h>
#include <omp.h>
#include <stdlib.h>

#if DNNL_VERSION_MAJOR != 2
#error "product.c speaks to oneDNN 2; version 3 describes products in another way"
#endif

enum { A, B, C, SCRATCH, ARRAYS };

/* The library's handles that one call at a time may use; made by the slot's first call. */
typedef struct {
    dnnl_stream_t stream;
    dnnl_memory_t memory[ARRAYS];
} Slot;

struct CpuProduct {
    ProductSize size;
    int users;
    CpuProduct *next;
    dnnl_engine_t engine;
    dnnl_primitive_t primitive;
    dnnl_memory_desc_t desc[ARRAYS];
    Slot slots[PRODUCT_SLOTS];
};

static dnnl_status_t describe(dnnl_memory_desc_t *out, int64_t rows, int64_t columns) {
    return dnnl_memory_desc_init_by_tag(out, 2, (dnnl_dims_t){rows, columns}, dnnl_f32, dnnl_ab);
}

static dnnl_status_t make(CpuProduct *p, const ProductSize *s) {
    dnnl_matmul_desc_t op;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_status_t status = dnnl_engine_create(&p->engine, dnnl_cpu, 0);
    if (!status) status = describe(&p->desc[A], s->rows, s->inner);
    if (!status) status = describe(&p->desc[B], s->inner, s->columns);
    if (!status) status = describe(&p->desc[C], s->rows, s->columns);
    if (!status) status = dnnl_matmul_desc_init(&op, &p->desc[A], &p->desc[B], NULL, &p->desc[C]);
    if (!status) status = dnnl_primitive_attr_create(&attr);
    if (!status) status = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (!status) status = dnnl_primitive_desc_create(&desc, &op, attr, p->engine, NULL);
    if (!status) p->desc[SCRATCH] = *dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
    if (!status) status = dnnl_primitive_create(&p->primitive, desc);
    if (desc) dnnl_primitive_desc_destroy(desc);
    if (attr) dnnl_primitive_attr_destroy(attr);
    return status;
}

static void free_product(CpuProduct *p) {
    for (int i = 0; i < PRODUCT_SLOTS; i++) {
        for (int k = 0; k < ARRAYS; k++)
            if (p->slots[i].memory[k]) dnnl_memory_destroy(p->slots[i].memory[k]);
        if (p->slots[i].stream) dnnl_stream_destroy(p->slots[i].stream);
    }
    if (p->primitive) dnnl_primitive_destroy(p->primitive);
    if (p->engine) dnnl_engine_destroy(p->engine);
    free(p);
}

static bool same_size(const ProductSize *a, const ProductSize *b) {
    return a->rows == b->rows && a->columns == b->columns && a->inner == b->inner;
}

bool cpu_product_take(CpuProducts *all, CpuProduct **out, const ProductSize *size, Err *err) {
    CpuProduct *p = all->first;
    while (p && !same_size(&p->size, size)) p = p->next;
    *out = p;
    if (p) {
        p->users++;
        return true;
    }
    p = mem_zalloc(1, sizeof *p);
    omp_set_num_threads(1); /* the library splits the work now, by the threads that it may start */
    dnnl_status_t status = make(p, size);
    if (status) {
        free_product(p);
        return err_set(err, status == dnnl_out_of_memory ? EXIT_MEMORY : EXIT_BUG,
                       "cpu: oneDNN cannot make a product of %lld x %lld x %lld (status %d)", (long long)size->rows,
                       (long long)size->inner, (long long)size->columns, (int)status);
    }
    p->size = *size;
    p->users = 1;
    p->next = all->first;
    *out = all->first = p;
    return true;
}

void cpu_product_drop(CpuProducts *all, CpuProduct *p) {
    if (!p || --p->users > 0) return;
    CpuProduct **at = &all->first;
    while (*at != p) at = &(*at)->next;
    *at = p->next;
    free_product(p);
}

int64_t cpu_product_scratch_floats(const CpuProduct *p) {
    return (int64_t)CEIL_DIV(dnnl_memory_desc_get_size(&p->desc[SCRATCH]), sizeof(float));
}

static dnnl_status_t open_slot(CpuProduct *p, Slot *slot) {
    dnnl_status_t status = dnnl_stream_create(&slot->stream, p->engine, dnnl_stream_default_flags);
    for (int k = 0; k < ARRAYS && !status; k++)
        status = dnnl_memory_create(&slot->memory[k], &p->desc[k], p->engine, DNNL_MEMORY_NONE);
    return status;
}

void cpu_product_run(CpuProduct *p, int index, float *c, const float *a, const float *b, float *scratch) {
    CHECK(index >= 0 && index < PRODUCT_SLOTS, "slot %d", index);
    Slot *slot = &p->slots[index];
    void *data[ARRAYS] = {[A] = (void *)a, [B] = (void *)b, [C] = c, [SCRATCH] = scratch};
    dnnl_status_t status = slot->stream ? dnnl_success : open_slot(p, slot);
    for (int k = 0; k < ARRAYS && !status; k++) status = dnnl_memory_set_data_handle(slot->memory[k], data[k]);
    omp_set_num_threads(1); /* the answer belongs to the calling thread */
    if (!status)
        status = dnnl_primitive_execute(p->primitive, slot->stream, ARRAYS,
                                        (dnnl_exec_arg_t[]){{DNNL_ARG_SRC, slot->memory[A]},
                                                            {DNNL_ARG_WEIGHTS, slot->memory[B]},
                                                            {DNNL_ARG_DST, slot->memory[C]},
                                                            {DNNL_ARG_SCRATCHPAD, slot->memory[SCRATCH]}});
    CHECK(!status, "oneDNN's matmul: status %d", (int)status);
}
