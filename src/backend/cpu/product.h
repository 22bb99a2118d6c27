/* product.h - a matrix product that is made once for its size (oneDNN's matmul primitive), where matmul.h takes any
 * size as it comes. Making one costs a third of a millisecond; the first call of matmul.h costs a program some eighty,
 * since the library then compiles all it may ever need. Inference starts soon with these; training does not care.
 *
 * A product runs in the calling thread alone, see matmul.h. */
#ifndef MALA_PRODUCT_H
#define MALA_PRODUCT_H

#include "base/base.h"

#define PRODUCT_SLOTS 16 /* calls of one product that may run at the same time */

/* C (rows, columns) = A (rows, inner) B (inner, columns), row-major, without gaps. */
typedef struct {
    int64_t rows, columns, inner;
} ProductSize;

typedef struct CpuProduct CpuProduct;

/* The products of a backend, which runs one node at a time: a network repeats its blocks, and nodes whose tiles are of
 * one size share its product. Zero-initialise it; it is empty again when every product has been dropped. */
typedef struct {
    CpuProduct *first;
} CpuProducts;

/* The product of that size, to be dropped as often as it was taken.
 * False: EXIT_MEMORY, or EXIT_BUG for a size that the library refuses. */
bool cpu_product_take(CpuProducts *all, CpuProduct **out, const ProductSize *size, Err *err);
void cpu_product_drop(CpuProducts *all, CpuProduct *p); /* NULL is nothing to do */
/* floats that every running call needs for itself, 64-byte aligned */
int64_t cpu_product_scratch_floats(const CpuProduct *p);
/* slot < PRODUCT_SLOTS: calls at the same time need different ones. */
void cpu_product_run(CpuProduct *p, int slot, float *c, const float *a, const float *b, float *scratch);

#endif
