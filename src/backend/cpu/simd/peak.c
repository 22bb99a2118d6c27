/* peak.c - the most multiply-adds this processor can do with these instructions: the ceiling a bench compares with. */
#include "backend/cpu/simd/simd.h"

#define CHAINS 12 /* independent sums: enough to hide the latency of one */
#define LOOPS 2000000

extern double ISA_NAME(cpu_peak)(void);

static void spin(void *arg, int index, int thread) {
    (void)thread;
    vf sum[CHAINS], factor = vf_set(0.999f), term = vf_set(0.001f);
    for (int i = 0; i < CHAINS; i++) sum[i] = vf_set((float)i);
    for (int n = 0; n < LOOPS; n++)
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) sum[i] = sum[i] * factor + term;
    for (int i = 1; i < CHAINS; i++) sum[0] += sum[i];
    ((float *)arg)[index] = vf_sum(sum[0]); /* the result must be wanted for the work to be done */
}

/* GFLOP/s of all threads, the best of several tries; a multiply-add counts two */
double ISA_NAME(cpu_peak)(void) {
    float results[PARALLEL_MOST];
    double best = 0;
    for (int try = 0; try < 7; try++) {
        double start = time_now();
        parallel_for(parallel_threads(), spin, results);
        best = MAX(best, 2e-9 * VL * CHAINS * (double)LOOPS * parallel_threads() / (time_now() - start));
    }
    return best;
}
