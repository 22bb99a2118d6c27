#include "backend/cpu/matmul.h"

#include "backend/cpu/onednn.h"

static dnnl_status_t multiply(float *c, int64_t c_stride, MatmulOperand a, MatmulOperand b, int64_t m, int64_t n,
                              int64_t k) {
    return dnnl_sgemm(a.transposed ? 'T' : 'N', b.transposed ? 'T' : 'N', m, n, k, 1, a.data, a.stride, b.data,
                      b.stride, 0, c, c_stride);
}

bool matmul_compile(CpuLibrary *library, Err *err) {
    if (library->compiled) return true;
    float numbers[4] = {0}, c[4];
    MatmulOperand square = {.data = numbers, .stride = 2};
    onednn_enter_making();
    dnnl_status_t status = onednn_has_room() ? multiply(c, 2, square, square, 2, 2, 2) : dnnl_out_of_memory;
    status = onednn_status(status);
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
