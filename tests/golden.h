/* golden.h - the networks against the numbers of the PyTorch reference (tests/golden, made in float64) on any backend, in
 * float32. */
#ifndef MALA_TESTS_GOLDEN_H
#define MALA_TESTS_GOLDEN_H

#include "backend/backend.h"

/* Runs them as a group of cmocka tests: attention layers, the nano network's outputs, gradients and 40 training steps;
 * with `full` also the released sizes T, S, B and L. Returns the number that failed. */
int golden_run(Backend *backend, bool full);

#endif
