#include "base/parallel.h"

#include <omp.h>

void parallel_set_threads(int threads) { omp_set_num_threads(threads > 0 ? threads : 1); }

int parallel_threads(void) { return omp_get_max_threads(); }

void parallel_for(int count, void (*body)(void *arg, int index, int thread), void *arg) {
    if (count <= 1 || omp_get_max_threads() == 1 || omp_in_parallel()) {
        for (int i = 0; i < count; i++) body(arg, i, 0);
        return;
    }
#pragma omp parallel for schedule(static)
    for (int i = 0; i < count; i++) body(arg, i, omp_get_thread_num());
}
