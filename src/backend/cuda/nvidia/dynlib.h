/* dynlib.h - shared libraries that are opened when they are first needed, so that one program runs on machines with and
 * without them. */
#ifndef MALA_CUDA_DYNLIB_H
#define MALA_CUDA_DYNLIB_H

#ifdef __cplusplus
extern "C" {
#endif

#include "base/base.h"

/* One function to be found: where its pointer goes, and its name. */
typedef struct {
    void *pointer; /* the address of a function pointer */
    const char *name;
} DynFunction;

/* X-lists make tables of these: DYN_FUNCTION(api, cublasLtCreate) fills api->cublasLtCreate. */
#define DYN_FUNCTION(table, function) {&(table)->function, #function}

typedef struct {
    const char *title;   /* for messages: "cuBLASLt" */
    const char *files;   /* names to try, apart by spaces, best first: "libcublasLt.so.13 libcublasLt.so.12" */
    const char *package; /* what to install: "the CUDA Toolkit 12 or 13 (package libcublas-13-0)" */
} DynLibrary;

/* Opens the first of the files that can be: from the directories the system searches, then from CUDA_HOME and
 * /usr/local/cuda. Fills every function. *out is for dynlib_close. False: EXIT_DEVICE, naming what was tried. */
bool dynlib_open(void **out, const DynLibrary *library, const DynFunction *functions, int count, Err *err);
void dynlib_close(void *handle);

#ifdef __cplusplus
}
#endif

#endif
