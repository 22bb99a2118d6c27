/* safetensors.h - one format of named tensors: an 8-byte little-endian length N, N bytes of JSON, then the data.
 *
 * The reader takes files from strangers. It refuses what the format forbids (holes, overlaps, data that do not match
 * the shape, bytes after the end) and what two programs could read in two ways (duplicate keys, control characters in
 * names, BOOL bytes other than 0 and 1), before a byte of data is used. */
#ifndef MALA_SAFETENSORS_H
#define MALA_SAFETENSORS_H

#include "io/tensor_file.h"

#define SAFETENSORS_MAX_HEADER 100000000 /* bytes; a rule of the format */
#define SAFETENSORS_MAX_TENSORS 1000000
#define SAFETENSORS_MAX_METADATA 100000 /* pairs */

#define SAFETENSORS_HEAD 9 /* bytes */

/* Can these first bytes, zeros where the file has fewer, begin such a file? */
bool safetensors_fits(const uint8_t head[SAFETENSORS_HEAD], size_t file_bytes);
/* For tensor_file_open, which calls it with the file open: fills tensors, metadata and text, in the order
 * of the data. False: EXIT_INPUT with the byte or the tensor at fault, EXIT_IO, EXIT_MEMORY. */
bool safetensors_read(TensorFile *file, Err *err);

/* Writes tensors and metadata, both in the order given, atomically (FileWriter), so the target may be a file that is
 * open for reading. The header is padded with spaces so that the data begin at a multiple of 64; the format allows no
 * gaps, so tensors after one of an odd size are not aligned. The same input gives the same bytes.
 * False: EXIT_INPUT for names that are empty, duplicate, reserved, not UTF-8 or with control characters, for values
 * that are not UTF-8, for sizes beyond the limits above; EXIT_IO. */
bool safetensors_write(const char *path, const StoredTensor *tensors, size_t tensor_count, const StoredPair *metadata,
                       size_t metadata_count, Err *err);

#endif
