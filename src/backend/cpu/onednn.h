/* onednn.h - how product.c, matmul.c and convolution.c speak to oneDNN: what its versions 2 and 3 say differently, and
 * what no call may do: start threads, change its caller's OpenMP setting, throw or crash for want of memory. */
#ifndef MALA_ONEDNN_H
#define MALA_ONEDNN_H

#include <dnnl.h>

#include "backend/cpu/library.h"

/* ---- how an array lies in memory: a struct in version 2, a handle in version 3; zero can be freed ---- */

typedef dnnl_memory_desc_t Layout;
#if DNNL_VERSION_MAJOR == 2
typedef const dnnl_memory_desc_t *LayoutView;
static inline LayoutView layout_view(const Layout *l) { return l; }
#elif DNNL_VERSION_MAJOR == 3
typedef const_dnnl_memory_desc_t LayoutView;
static inline LayoutView layout_view(const Layout *l) { return *l; }
#else
#error "oneDNN 2 or 3 is needed"
#endif

dnnl_status_t layout_tagged(Layout *out, int rank, const dnnl_dims_t dims, dnnl_format_tag_t tag);
dnnl_status_t layout_strided(Layout *out, int rank, const dnnl_dims_t dims, const dnnl_dims_t strides);
/* the one that a primitive wants for itself */
dnnl_status_t layout_wanted(Layout *out, const_dnnl_primitive_desc_t desc, dnnl_query_t which);
void layout_free(Layout *l);
int64_t layout_floats(const Layout *l);

/* ---- what a primitive computes ---- */

dnnl_status_t describe_matmul(dnnl_primitive_desc_t *out, dnnl_engine_t engine, dnnl_primitive_attr_t attr,
                              const Layout *a, const Layout *b, const Layout *c);

typedef struct {
    dnnl_engine_t engine;
    dnnl_primitive_attr_t attr;
    const Layout *x, *w, *bias, *y; /* or their gradients; bias may be NULL */
    dnnl_dims_t strides, pad;
} ConvolutionShape;

dnnl_status_t describe_convolution_y(dnnl_primitive_desc_t *out, const ConvolutionShape *s, dnnl_prop_kind_t purpose);
/* gradients want to see their forward */
dnnl_status_t describe_convolution_dx(dnnl_primitive_desc_t *out, const ConvolutionShape *s,
                                      dnnl_primitive_desc_t forward);
dnnl_status_t describe_convolution_dw(dnnl_primitive_desc_t *out, const ConvolutionShape *s,
                                      dnnl_primitive_desc_t forward);

/* ---- calls: each between enter and leave ---- */

/* The library asks OpenMP how many threads it may start: one. The answer belongs to the calling thread, which has its
 * own again after leave. */
void onednn_enter(void);
void onednn_leave(void);

/* The same for calls that make something. */
void onednn_enter_making(void);
void onednn_leave_making(void);

/* Compiles code, for which it takes memory without a look at whether it got it: dnnl_out_of_memory where there is none
 * to be had. */
dnnl_status_t onednn_make(dnnl_primitive_t *out, const_dnnl_primitive_desc_t desc);
/* Whether there is room for such code, and for what C++ allocates beside it. */
bool onednn_has_room(void);
/* The status of a call, or that its memory came from the reserve: it went well, the next one would not. */
dnnl_status_t onednn_status(dnnl_status_t status);

/* ---- outside ---- */

/* Whether a primitive runs the library's gemm: such calls belong into cpu_library_for(true, ...). */
bool onednn_is_gemm(const_dnnl_primitive_desc_t desc);
/* err_set for what could not be made, "a product of 2 x 3 x 4": EXIT_MEMORY, or EXIT_BUG. Returns false. */
bool onednn_refused(Err *err, dnnl_status_t status, const char *what);
/* Marks a backend whose call has failed. */
void onednn_report(CpuLibrary *l, dnnl_status_t status);

#endif
