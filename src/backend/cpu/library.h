/* library.h - what a CPU backend holds of oneDNN, which multiplies (product.h) and convolves (convolution.h) for it.
 *
 * Everything of the library's is made when a plan is made. What may still fail in a call is an allocation inside it:
 * such a call leaves its result as it was and marks the backend, whose next wait, await or download reports it. */
#ifndef MALA_LIBRARY_H
#define MALA_LIBRARY_H

#include <stdatomic.h>

#include "base/base.h"

typedef struct CpuProduct CpuProduct;

typedef struct {
    int callers;          /* threads that may call at the same time */
    atomic_int failed;    /* status of a call that failed in a run; 0 is none */
    bool compiled;        /* what matmul.h needs */
    CpuProduct *products; /* made for nodes of a plan, which share those of one size */
} CpuLibrary;

/* Counted, for all backends of the process together: while one is open, a C++ allocation that fails inside the library
 * is served from a reserve instead of ending the process (onednn.c). */
void cpu_library_open(CpuLibrary *l, int callers);
void cpu_library_close(CpuLibrary *l);
/* For the program alone, since it takes SIGSEGV: the library uses some allocations without a look whether it got them.
 * A null pointer of its own while it makes something ends the program with EXIT_MEMORY and a line that says so. */
void cpu_library_crash_is_memory(void);

/* A loop over calls of the library. gemm: its generated gemm is among them, which points the stack register into an
 * array of the library's where a sum is long (upstream issue 4845, mended in 3.11.2): a signal taken there on the
 * thread's own stack overwrites the heap. The calling thread takes none during the loop, and compute threads never do
 * (parallel.h). */
void cpu_library_for(bool gemm, int count, void (*body)(void *arg, int index, int thread), void *arg);
/* False, once: a call has failed. EXIT_MEMORY or EXIT_BUG. */
bool cpu_library_healthy(CpuLibrary *l, Err *err);

#endif
