/* fuzz.h - what the fuzz targets share: the demands on a file of tensors, and where seeds go. */
#ifndef MALA_FUZZ_H
#define MALA_FUZZ_H

#include "base/base.h"
#include "io/tensor_file.h"

/* libFuzzer calls both; what a target does not define is not called. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Opens bytes as a file of tensors and reads all of them. An error has to be the file's, and to name it. */
void fuzz_tensor_file(const char *name, const uint8_t *bytes, size_t count, EmaChoice ema);

/* Writes a seed, the index-th of this target, into the folder that FUZZ_SEEDS names; without it nothing. */
void fuzz_seed(int index, const void *bytes, size_t count);

#endif
