/* product.h - a matrix product that is made once for its size (oneDNN's matmul primitive), where matmul.h takes any
 * size as it comes. Making one costs a third of a millisecond; the first call of matmul.h costs a program some eighty.
 *
 * A product runs in the calling thread alone, see matmul.h. */
#ifndef MALA_PRODUCT_H
#define MALA_PRODUCT_H

#include "backend/cpu/library.h"

/* C (rows, columns) = A (rows, inner) B (inner, columns), row-major, without gaps; turned: B is (columns, inner). */
typedef struct {
    int64_t rows, columns, inner;
    bool turned;
} ProductSize;

/* The product of that size, to be dropped as often as it was taken. A backend runs one node at a time, and a network
 * repeats its blocks: nodes whose tiles are of one size share its product.
 * False: EXIT_MEMORY, or EXIT_BUG for a size that the library refuses. */
bool cpu_product_take(CpuLibrary *library, CpuProduct **out, const ProductSize *size, Err *err);
void cpu_product_drop(CpuLibrary *library, CpuProduct *p); /* NULL is nothing to do */
/* floats that every running call needs for itself, 64-byte aligned */
int64_t cpu_product_scratch_floats(const CpuProduct *p);
/* Its calls belong into cpu_library_for(true, ...). */
bool cpu_product_is_gemm(const CpuProduct *p);
/* caller < library->callers: calls at the same time need different ones. */
void cpu_product_run(CpuProduct *p, int caller, float *c, const float *a, const float *b, float *scratch);

#endif
