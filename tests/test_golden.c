/* test_golden.c - the networks against the PyTorch reference on the CPU. */
#include "golden.h"

#include <stdio.h>

int main(void) {
    Backend backend;
    Err err = {0};
    if (!backend_open_cpu(&backend, 0, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    int failed = golden_run(&backend, true);
    backend.close(&backend);
    return failed;
}
