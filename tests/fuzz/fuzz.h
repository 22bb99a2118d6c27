/* fuzz.h - what the fuzz targets share: the demands on files of tensors and on pictures, and where seeds go. */
#ifndef MALA_FUZZ_H
#define MALA_FUZZ_H

#include "base/base.h"
#include "io/tensor_file.h"

/* libFuzzer calls both; what a target does not define is not called. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An error has to be the file's, and to name it. */
void fuzz_check_error(const Err *err, const char *name);

/* Opens bytes as a file of tensors and reads all of them. */
void fuzz_tensor_file(const char *name, const uint8_t *bytes, size_t count, EmaChoice ema);

/* Decodes bytes as a picture that begins with `magic`, which is put there, and reads all its pixels. */
void fuzz_picture(const void *magic, size_t magic_count, const uint8_t *bytes, size_t count);

/* Writes a seed, the index-th of this target, into the folder that FUZZ_SEEDS names; without it nothing. */
void fuzz_seed(int index, const void *bytes, size_t count);

#endif
