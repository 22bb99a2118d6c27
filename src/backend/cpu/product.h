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

/* False: EXIT_MEMORY, or EXIT_BUG for a size that the library refuses. */
bool cpu_product_new(CpuProduct **out, const ProductSize *size, Err *err);
void cpu_product_free(CpuProduct *p);
/* floats that every running call needs for itself, 64-byte aligned */
int64_t cpu_product_scratch_floats(const CpuProduct *p);
/* slot < PRODUCT_SLOTS: calls at the same time need different ones. */
void cpu_product_run(CpuProduct *p, int slot, float *c, const float *a, const float *b, float *scratch);

#endif
