#include "backend/cpu/onednn.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include "base/parallel.h"

/* omp.h's: a header that comes with gcc, but not with every clang that links gcc's libgomp */
extern int omp_get_max_threads(void);
extern void omp_set_num_threads(int threads);

/* ---- versions ---- */

#if DNNL_VERSION_MAJOR == 2

dnnl_status_t layout_tagged(Layout *out, int rank, const dnnl_dims_t dims, dnnl_format_tag_t tag) {
    return dnnl_memory_desc_init_by_tag(out, rank, dims, dnnl_f32, tag);
}

dnnl_status_t layout_strided(Layout *out, int rank, const dnnl_dims_t dims, const dnnl_dims_t strides) {
    return dnnl_memory_desc_init_by_strides(out, rank, dims, dnnl_f32, strides);
}

dnnl_status_t layout_wanted(Layout *out, const_dnnl_primitive_desc_t desc, dnnl_query_t which) {
    *out = *dnnl_primitive_desc_query_md(desc, which, 0);
    return dnnl_success;
}

void layout_free(Layout *l) { (void)l; }

dnnl_status_t describe_matmul(dnnl_primitive_desc_t *out, dnnl_engine_t engine, dnnl_primitive_attr_t attr,
                              const Layout *a, const Layout *b, const Layout *c) {
    dnnl_matmul_desc_t op;
    dnnl_status_t status = dnnl_matmul_desc_init(&op, a, b, NULL, c);
    return status ? status : dnnl_primitive_desc_create(out, &op, attr, engine, NULL);
}

dnnl_status_t describe_convolution_y(dnnl_primitive_desc_t *out, const ConvolutionShape *s, dnnl_prop_kind_t purpose) {
    dnnl_convolution_desc_t op;
    dnnl_status_t status = dnnl_convolution_forward_desc_init(&op, purpose, dnnl_convolution_direct, s->x, s->w,
                                                              s->bias, s->y, s->strides, s->pad, s->pad);
    return status ? status : dnnl_primitive_desc_create(out, &op, s->attr, s->engine, NULL);
}

dnnl_status_t describe_convolution_dx(dnnl_primitive_desc_t *out, const ConvolutionShape *s,
                                      dnnl_primitive_desc_t forward) {
    dnnl_convolution_desc_t op;
    dnnl_status_t status = dnnl_convolution_backward_data_desc_init(&op, dnnl_convolution_direct, s->x, s->w, s->y,
                                                                    s->strides, s->pad, s->pad);
    return status ? status : dnnl_primitive_desc_create(out, &op, s->attr, s->engine, forward);
}

dnnl_status_t describe_convolution_dw(dnnl_primitive_desc_t *out, const ConvolutionShape *s,
                                      dnnl_primitive_desc_t forward) {
    dnnl_convolution_desc_t op;
    dnnl_status_t status = dnnl_convolution_backward_weights_desc_init(&op, dnnl_convolution_direct, s->x, s->w, NULL,
                                                                       s->y, s->strides, s->pad, s->pad);
    return status ? status : dnnl_primitive_desc_create(out, &op, s->attr, s->engine, forward);
}

#else

dnnl_status_t layout_tagged(Layout *out, int rank, const dnnl_dims_t dims, dnnl_format_tag_t tag) {
    return dnnl_memory_desc_create_with_tag(out, rank, dims, dnnl_f32, tag);
}

dnnl_status_t layout_strided(Layout *out, int rank, const dnnl_dims_t dims, const dnnl_dims_t strides) {
    return dnnl_memory_desc_create_with_strides(out, rank, dims, dnnl_f32, strides);
}

dnnl_status_t layout_wanted(Layout *out, const_dnnl_primitive_desc_t desc, dnnl_query_t which) {
    return dnnl_memory_desc_clone(out, dnnl_primitive_desc_query_md(desc, which, 0));
}

void layout_free(Layout *l) {
    if (*l) dnnl_memory_desc_destroy(*l);
    *l = NULL;
}

dnnl_status_t describe_matmul(dnnl_primitive_desc_t *out, dnnl_engine_t engine, dnnl_primitive_attr_t attr,
                              const Layout *a, const Layout *b, const Layout *c) {
    return dnnl_matmul_primitive_desc_create(out, engine, *a, *b, NULL, *c, attr);
}

dnnl_status_t describe_convolution_y(dnnl_primitive_desc_t *out, const ConvolutionShape *s, dnnl_prop_kind_t purpose) {
    return dnnl_convolution_forward_primitive_desc_create(
        out, s->engine, purpose, dnnl_convolution_direct, *s->x, *s->w, s->bias ? *s->bias : NULL, *s->y, s->strides,
        (dnnl_dims_t){0}, s->pad, s->pad, s->attr);
}

dnnl_status_t describe_convolution_dx(dnnl_primitive_desc_t *out, const ConvolutionShape *s,
                                      dnnl_primitive_desc_t forward) {
    return dnnl_convolution_backward_data_primitive_desc_create(out, s->engine, dnnl_convolution_direct, *s->x, *s->w,
                                                                *s->y, s->strides, (dnnl_dims_t){0}, s->pad, s->pad,
                                                                forward, s->attr);
}

dnnl_status_t describe_convolution_dw(dnnl_primitive_desc_t *out, const ConvolutionShape *s,
                                      dnnl_primitive_desc_t forward) {
    return dnnl_convolution_backward_weights_primitive_desc_create(
        out, s->engine, dnnl_convolution_direct, *s->x, *s->w, NULL, *s->y, s->strides, (dnnl_dims_t){0}, s->pad,
        s->pad, forward, s->attr);
}

#endif

int64_t layout_floats(const Layout *l) {
    return (int64_t)CEIL_DIV(dnnl_memory_desc_get_size(layout_view(l)), sizeof(float));
}

/* ---- C++ allocations ----
 *
 * The library's C entry points let std::bad_alloc through, which ends the process. Before operator new throws, it calls
 * the process's new handler, if there is one, and tries again: ours gives a reserve back to the system, so that the
 * library's call goes on to its end, and is then said to have failed. */

#define RESERVE_BYTES (4 << 20) /* address space only: it is never touched */

typedef void NewHandler(void);
typedef NewHandler *SetNewHandler(NewHandler *);

static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static int open_libraries;
/* std::set_new_handler and std::__throw_bad_alloc, which the library brings along */
static SetNewHandler *set_new_handler;
static NewHandler *throw_bad_alloc, *handler_before;
static void *_Atomic reserve;

static _Thread_local int depth, threads_before; /* of this thread: calls inside the library, and its OpenMP setting */
static _Thread_local bool served;               /* from the reserve */

static void *map_bytes(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void out_of_memory(void) {
    if (depth == 0) { /* some other C++ of this process: as if we were not here */
        (handler_before ? handler_before : throw_bad_alloc)();
        return;
    }
    void *kept = atomic_exchange(&reserve, NULL);
    if (kept) {
        served = true;
        (void)munmap(kept, RESERVE_BYTES);
        return;
    }
    depth = 1; /* more than the reserve: the way out that our own allocations take */
    onednn_leave();
    mem_exhausted("what oneDNN asks for");
}

static void *symbol(const char *name) { return dlsym(RTLD_DEFAULT, name); }

void cpu_library_open(CpuLibrary *l, int callers) {
    *l = (CpuLibrary){.callers = callers};
    pthread_mutex_lock(&opening);
    if (open_libraries++ == 0) {
        *(void **)&set_new_handler = symbol("_ZSt15set_new_handlerPFvvE");
        *(void **)&throw_bad_alloc = symbol("_ZSt17__throw_bad_allocv");
        if (!throw_bad_alloc) set_new_handler = NULL;
        if (set_new_handler) handler_before = set_new_handler(out_of_memory);
    }
    pthread_mutex_unlock(&opening);
}

void cpu_library_close(CpuLibrary *l) {
    CHECK(!l->products, "a plan outlives its backend");
    pthread_mutex_lock(&opening);
    if (--open_libraries == 0 && set_new_handler) {
        NewHandler *last = set_new_handler(handler_before);
        if (last != out_of_memory) (void)set_new_handler(last); /* of somebody who came after us */
    }
    void *kept = open_libraries == 0 ? atomic_exchange(&reserve, NULL) : NULL;
    if (kept) (void)munmap(kept, RESERVE_BYTES);
    pthread_mutex_unlock(&opening);
}

/* ---- calls ---- */

void onednn_enter(void) {
    if (depth++ > 0) return;
    served = false;
    threads_before = omp_get_max_threads();
    if (threads_before != 1) omp_set_num_threads(1);
}

void onednn_leave(void) {
    if (--depth == 0 && threads_before != 1) omp_set_num_threads(threads_before);
}

static _Thread_local bool making;

void onednn_enter_making(void) {
    onednn_enter();
    making = true;
}

void onednn_leave_making(void) {
    making = false;
    onednn_leave();
}

/* A synchronous signal, within the library's code: nothing of ours is held. Another fault happens again on return, and
 * ends the program as it would have. */
static void take_crash(int number, siginfo_t *info, void *context) {
    (void)context;
    (void)signal(number, SIG_DFL);
    if (!making || (uintptr_t)info->si_addr >= 65536) return;
    making = false;
    mem_exhausted("what oneDNN asks for (it crashed on a null pointer)");
}

void cpu_library_crash_is_memory(void) {
#ifndef __SANITIZE_ADDRESS__
    struct sigaction act = {.sa_sigaction = take_crash, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    (void)sigaction(SIGSEGV, &act, NULL);
#endif
}

#define CODE_BYTES (16 << 20) /* more than all kernels of a primitive take, each in a buffer of its own */

bool onednn_has_room(void) {
    if (!atomic_load(&reserve)) {
        void *fresh = map_bytes(RESERVE_BYTES), *none = NULL;
        if (!fresh) return false;
        if (!atomic_compare_exchange_strong(&reserve, &none, fresh)) (void)munmap(fresh, RESERVE_BYTES);
    }
    void *code = map_bytes(CODE_BYTES);
    if (code) (void)munmap(code, CODE_BYTES);
    return code != NULL;
}

dnnl_status_t onednn_make(dnnl_primitive_t *out, const_dnnl_primitive_desc_t desc) {
    return onednn_has_room() ? dnnl_primitive_create(out, desc) : dnnl_out_of_memory;
}

dnnl_status_t onednn_status(dnnl_status_t status) { return served ? dnnl_out_of_memory : status; }

bool onednn_refused(Err *err, dnnl_status_t status, const char *what) {
    if (status == dnnl_out_of_memory || !onednn_has_room())
        return err_set(err, EXIT_MEMORY, "cpu: no memory for %s - use a smaller batch or smaller images", what);
    return err_set(err, EXIT_BUG, "cpu: oneDNN cannot make %s (status %d)", what, (int)status);
}

bool onednn_is_gemm(const_dnnl_primitive_desc_t desc) {
    const char *name = "";
    (void)dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name);
    return strstr(name, "gemm") && !strstr(name, "brgemm");
}

void cpu_library_for(bool gemm, int count, void (*body)(void *arg, int index, int thread), void *arg) {
    sigset_t all, before;
    sigfillset(&all);
    if (gemm) pthread_sigmask(SIG_SETMASK, &all, &before);
    parallel_for(count, body, arg);
    if (gemm) pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void onednn_report(CpuLibrary *l, dnnl_status_t status) {
    int none = dnnl_success;
    (void)atomic_compare_exchange_strong(&l->failed, &none, (int)status);
}

bool cpu_library_healthy(CpuLibrary *l, Err *err) {
    if (!atomic_load_explicit(&l->failed, memory_order_relaxed)) return true;
    dnnl_status_t status = (dnnl_status_t)atomic_exchange(&l->failed, dnnl_success);
    if (status == dnnl_out_of_memory)
        return err_set(err, EXIT_MEMORY, "cpu: no memory left for a product's own use - use a smaller batch");
    return err_set(err, EXIT_BUG, "cpu: oneDNN has failed in a product or a convolution (status %d)", (int)status);
}
