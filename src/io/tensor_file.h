/* tensor_file.h - named tensors in a file, whatever its format.
 *
 * One notion for all readers and writers of the room: a file is opened, every tensor in it is named, typed, shaped and
 * contiguous, and its bytes stay in the file until somebody reads them. Formats (safetensors.h, pth.h) are told apart
 * by content, never by name. They check everything before a byte of data is used, so what opens can be trusted; values
 * cannot: NaN and infinity pass with their bits. Names are data and never become paths.
 *
 * What wrappers of models put before names goes, in any order and number: "module." and "_orig_mod." of any tensor,
 * "model." and "backbone." where all have it. */
#ifndef MALA_TENSOR_FILE_H
#define MALA_TENSOR_FILE_H

#include "base/file.h"

#define STORED_MAX_RANK 8
#define STORED_MAX_DIM ((int64_t)1 << 40)

/* X(name, bits of an element) */
/* clang-format off */
#define STORED_TYPES(X) \
    X(BOOL, 8) X(U8, 8) X(I8, 8) X(U16, 16) X(I16, 16) X(U32, 32) X(I32, 32) X(U64, 64) X(I64, 64) \
    X(F16, 16) X(BF16, 16) X(F32, 32) X(F64, 64) X(C64, 64) \
    X(F8_E4M3, 8) X(F8_E5M2, 8) X(F8_E8M0, 8) X(F6_E2M3, 6) X(F6_E3M2, 6) X(F4, 4)
/* clang-format on */

typedef enum {
#define X(name, bits) STORED_##name,
    STORED_TYPES(X)
#undef X
    STORED_TYPE_COUNT
} StoredType;
const char *stored_type_name(StoredType type); /* "F32" */
int stored_type_bits(StoredType type);         /* of one element */

typedef struct {
    const char *name; /* UTF-8 */
    StoredType dtype;
    int rank;
    int64_t shape[STORED_MAX_RANK]; /* row-major, the last dimension runs fastest; each 0..STORED_MAX_DIM */
    const void *data;               /* little-endian, possibly misaligned; NULL: they lie in `file` from byte `at` on */
    const FileReader *file;
    size_t at;
    size_t count, bytes; /* elements; bytes of data. Writers derive both from the shape */
} StoredTensor;

/* Sets count and bytes from dtype and shape; returns what is wrong with them ("a shape whose ..."), or NULL. */
const char *stored_tensor_measure(StoredTensor *t);

/* *out: t->bytes bytes of data, where they lie or read into *owned, which is NULL or to be freed. False: EXIT_IO (the
 * file is no longer what was opened), EXIT_MEMORY. */
bool stored_tensor_load(const void **out, void **owned, const StoredTensor *t, Err *err);

/* Are the bytes of t->file that a BOOL tensor lies in, or its whole storage, 0 or 1 each? Otherwise two programs read
 * them as two things. False: EXIT_INPUT with the byte, EXIT_IO. */
bool stored_bools_check(const StoredTensor *t, size_t at, size_t bytes, Err *err);

typedef struct {
    const char *key, *value; /* UTF-8 */
} StoredPair;

typedef struct {
    char *path;
    FileReader *reader;    /* open as long as this is */
    StoredTensor *tensors; /* in the order of the file */
    size_t tensor_count;
    StoredPair *metadata; /* in the order of the file */
    size_t metadata_count;
    const StoredTensor **by_name; /* sorted by name */
    char *text;                   /* names, keys and values */
    char *prefix;                 /* what was taken off the first name that had something; NULL: nothing of any */
    /* of training checkpoints, which hold more than one set of weights; NULL and false for other files */
    const char *part;   /* which was taken: "model_ema", "model", ..., "" when the file is nothing but tensors */
    bool averaged;      /* they are averages (EMA) */
    char *stepped_over; /* "argparse.Namespace, ...": objects beside the weights, which are not read */
    void **owned;       /* [owned_count] data that do not lie in the file in row-major order */
    size_t owned_count;
} TensorFile;

/* Which weights of a training checkpoint that holds two sets: averages (EMA) or the raw ones. EMA_AUTO takes averages
 * where there are some. Formats with one set of weights ignore it. */
typedef enum { EMA_AUTO, EMA_YES, EMA_NO } EmaChoice;

typedef struct {
    EmaChoice ema;
} TensorFileOptions; /* NULL: all zero */

/* Opens and checks a file; the data stay in it. False: EXIT_INPUT with the byte or the tensor at fault (for a
 * Git-LFS pointer, a web page, a model of another program and the like: what it is and what to do), EXIT_IO,
 * EXIT_MEMORY. After a failure nothing needs closing. */
bool tensor_file_open(TensorFile *out, const char *path, const TensorFileOptions *options, Err *err);
/* The same from bytes in memory, which must stay as long as the TensorFile; name stands for the path in messages. */
bool tensor_file_open_memory(TensorFile *out, const char *name, const void *bytes, size_t count,
                             const TensorFileOptions *options, Err *err);
void tensor_file_close(TensorFile *f);

/* NULL when there is none. Valid until close. */
const StoredTensor *tensor_file_find(const TensorFile *f, const char *name);
const char *tensor_file_metadata(const TensorFile *f, const char *key);

/* out[t->count] = a tensor of F64, F32, F16 or BF16 as float32. F32 keeps its bits, F64 is rounded to nearest even.
 * False: EXIT_INPUT for another dtype and for finite F64 values beyond float32; EXIT_IO when the file is no longer what
 * was opened. */
bool tensor_file_read_f32(float *out, const TensorFile *f, const StoredTensor *t, Err *err);

#endif
