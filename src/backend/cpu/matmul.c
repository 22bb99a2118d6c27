#include "backend/cpu/matmul.h"

#include "backend/cpu/onednn.h"

static dnnl_status_t multiply(float *c, int64_t c_stride, MatmulOperand a, MatmulOperand b, int64_t m, int64_t n,
                              int64_t k) {
    return dnnl_sgemm(a.transposed ? 'T' : 'N', b.transposed ? 'T' : 'N', m, n, k, 1, a.data, a.stride, b.data,
                      b.stride, 0, c, c_stride);
}

/* One product of each kind that the library tells apart: a vector, few columns or rows, a matrix, turned or not. What
 * it has no code for yet it compiles, each kind once. */
static dnnl_status_t multiply_all_kinds(void) {
    enum { MOST = 64 };
    static const int sizes[] = {1, 2, 3, 8, MOST};
    static const float zeros[MOST * MOST];
    float c[MOST * MOST];
    dnnl_status_t status = dnnl_success;
    for (size_t i = 0; i < 4 * COUNTOF(sizes) * COUNTOF(sizes) && !status; i++) {
        int m = sizes[i / 4 % COUNTOF(sizes)], n = sizes[i / 4 / COUNTOF(sizes)];
        MatmulOperand a = {zeros, MOST, i & 1}, b = {zeros, MOST, i & 2};
        status = onednn_has_room() ? multiply(c, MOST, a, b, m, n, MOST) : dnnl_out_of_memory;
    }
    return status;
}

bool matmul_compile(CpuLibrary *library, Err *err) {
    if (library->compiled) return true;
    onednn_enter_making();
    dnnl_status_t status = onednn_status(multiply_all_kinds());
    onednn_leave_making();
    library->compiled = status == dnnl_success;
    return library->compiled || onednn_refused(err, status, "matrix products");
}

void matmul(CpuLibrary *library, float *c, int64_t c_stride, MatmulOperand a, MatmulOperand b, int64_t m, int64_t n,
            int64_t k) {
    onednn_enter();
    dnnl_status_t status = onednn_status(multiply(c, c_stride, a, b, m, n, k));
    onednn_leave();
    if (status) onednn_report(library, status);
}
