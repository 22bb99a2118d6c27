/* cuda_absent.c - what stands in for the CUDA backend in a program that was built without it. */
#include "backend/backend.h"

static bool fail(Err *err) {
    return err_set(
        err, EXIT_DEVICE,
        "device: this build has no CUDA - build it with `make CUDA=1` (needs nvcc of the CUDA Toolkit), or use "
        "--device cpu");
}

bool backend_open_cuda(Backend *out, int device, Err *err) {
    (void)device;
    *out = (Backend){0};
    return fail(err);
}

bool backend_cuda_usable(int device, Err *err) {
    (void)device;
    return fail(err);
}

bool backend_kernels_cuda(const Kernel *const **kernels, Err *err) {
    *kernels = NULL;
    return fail(err);
}
