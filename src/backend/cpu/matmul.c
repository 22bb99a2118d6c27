#include "backend/cpu/matmul.h"

#include <dnnl.h>
#include <omp.h>

#include "base/base.h"

void matmul(float *c, int64_t c_stride, MatmulOperand a, MatmulOperand b, int64_t m, int64_t n, int64_t k,
            bool accumulate) {
    omp_set_num_threads(1); /* oneDNN asks OpenMP how many threads it may start; the answer belongs to this thread */
    dnnl_status_t status = dnnl_sgemm(a.transposed ? 'T' : 'N', b.transposed ? 'T' : 'N', m, n, k, 1, a.data, a.stride,
                                      b.data, b.stride, accumulate ? 1 : 0, c, c_stride);
    CHECK(status == dnnl_success, "dnnl_sgemm: status %d for %lld x %lld x %lld", (int)status, (long long)m,
          (long long)n, (long long)k);
}
