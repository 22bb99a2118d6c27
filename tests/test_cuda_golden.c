/* test_cuda_golden.c - the networks against the PyTorch reference on the CUDA backend: through the host emulation without
 * the released sizes, which would take it minutes; all of them where it is built for a real GPU (scripts/gpu_test.sh). */
#include "golden.h"

#include <stdio.h>

#include "emulate/control.h"

int main(void) {
    Backend backend;
    Err err = {0};
    if (!backend_open_cuda(&backend, 0, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    printf("%s\n", backend.description);
    int failed = golden_run(&backend, !emu_present());
    backend.close(&backend);
    return failed;
}
