/* safetensors.h - named tensors in a file: an 8-byte little-endian length N, N bytes of JSON, then the data.
 *
 * The reader takes files from strangers. It refuses what the format forbids (holes, overlaps, data that do not match
 * the shape, bytes after the end) and what two programs could read in two ways (duplicate keys, control characters in
 * names, BOOL bytes other than 0 and 1), before a byte of data is used. What opens can be trusted; values cannot: NaN
 * and infinity pass with their bits. Names are data and never become paths. Data may lie at any address: memcpy. */
#ifndef MALA_SAFETENSORS_H
#define MALA_SAFETENSORS_H

#include "base/base.h"

#define SAFETENSORS_MAX_HEADER 100000000 /* bytes; a rule of the format */
#define SAFETENSORS_MAX_TENSORS 1000000
#define SAFETENSORS_MAX_METADATA 100000 /* pairs */
#define SAFETENSORS_MAX_RANK 8
#define SAFETENSORS_MAX_DIM ((int64_t)1 << 40)

/* X(name, bits of an element) */
/* clang-format off */
#define SAFETENSORS_DTYPES(X) \
    X(BOOL, 8) X(U8, 8) X(I8, 8) X(U16, 16) X(I16, 16) X(U32, 32) X(I32, 32) X(U64, 64) X(I64, 64) \
    X(F16, 16) X(BF16, 16) X(F32, 32) X(F64, 64) X(C64, 64) \
    X(F8_E4M3, 8) X(F8_E5M2, 8) X(F8_E8M0, 8) X(F6_E2M3, 6) X(F6_E3M2, 6) X(F4, 4)
/* clang-format on */

typedef enum {
#define X(name, bits) SAFE_##name,
    SAFETENSORS_DTYPES(X)
#undef X
} SafeDType;
const char *safe_dtype_name(SafeDType dtype); /* "F32" */

typedef struct {
    const char *name; /* UTF-8 */
    SafeDType dtype;
    int rank;
    int64_t shape[SAFETENSORS_MAX_RANK]; /* row-major, the last dimension runs fastest; each 0..SAFETENSORS_MAX_DIM */
    const void *data;                    /* little-endian, possibly misaligned */
    size_t count, bytes;                 /* elements; bytes of data. The writer derives both from the shape */
} SafeTensor;

typedef struct {
    const char *key, *value; /* UTF-8 */
} SafePair;

typedef struct {
    char *path;
    const uint8_t *file; /* the mapping, with all data */
    size_t file_bytes;
    SafeTensor *tensors; /* in the order of their data */
    size_t tensor_count;
    SafePair *metadata; /* in the order of the file */
    size_t metadata_count;
    const SafeTensor **by_name; /* sorted by name */
    char *text;                 /* names, keys and values */
} SafeTensors;

/* Opens and checks a file; the data stay in it, mapped. False: EXIT_INPUT with the byte or the tensor at fault (for a
 * Git-LFS pointer, a web page, a PyTorch checkpoint and the like: what it is and what to do), EXIT_IO, EXIT_MEMORY.
 * After a failure nothing needs closing. */
bool safetensors_open(SafeTensors *out, const char *path, Err *err);
void safetensors_close(SafeTensors *st);

/* NULL when there is none. Valid until close. */
const SafeTensor *safetensors_find(const SafeTensors *st, const char *name);
const char *safetensors_metadata(const SafeTensors *st, const char *key);

/* out[t->count] = a tensor of F64, F32, F16 or BF16 as float32. F32 keeps its bits, F64 is rounded to nearest even.
 * False: EXIT_INPUT for another dtype and for finite F64 values beyond float32. */
bool safetensors_read_f32(float *out, const SafeTensors *st, const SafeTensor *t, Err *err);

/* Writes tensors and metadata, both in the order given, atomically (FileWriter), so the target may be a file that is
 * open for reading. The header is padded with spaces so that the data begin at a multiple of 64; the format allows no
 * gaps, so tensors after one of an odd size are not aligned. The same input gives the same bytes.
 * False: EXIT_INPUT for names that are empty, duplicate, reserved, not UTF-8 or with control characters, for values
 * that are not UTF-8, for sizes beyond the limits above; EXIT_IO. */
bool safetensors_write(const char *path, const SafeTensor *tensors, size_t tensor_count, const SafePair *metadata,
                       size_t metadata_count, Err *err);

#endif
