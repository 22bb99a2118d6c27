/* seal.h - two digests in a file's metadata, by which a change of any bit is noticed.
 *
 *     mala.tensors_sha256   SHA-256 of a list with a line for each tensor, sorted by the bytes of their names:
 *                               <SHA-256 of its bytes, 64 hex digits> <dtype> [<dimensions, apart by commas>] <name>\n
 *                           for example "9f86...0a08 F32 [64,3,3,3] patch_embed.proj.0.weight\n". The same tensors
 *                           have the same digest in whatever order and format of file.
 *     mala.metadata_sha256  SHA-256 of all other pairs, sorted by the bytes of their keys, the digest above among
 *                           them: <bytes of the key>:<key><bytes of the value>:<value>, lengths in decimal digits.
 *
 * Each covers what the other does not, and neither comes alone: that one key is missing is damage, too. Files that
 * carry neither were written by others, or before there was a seal. */
#ifndef MALA_SEAL_H
#define MALA_SEAL_H

#include "base/sha256.h"
#include "io/tensor_file.h"

#define SEAL_TENSORS "mala.tensors_sha256"
#define SEAL_METADATA "mala.metadata_sha256"

/* Metadata with their seal behind them. */
typedef struct {
    StoredPair *pairs; /* [count] texts of the pairs given are kept by reference */
    size_t count;
    char tensors[SHA256_TEXT_SIZE], metadata[SHA256_TEXT_SIZE];
} Seal;

/* The seal of tensors and metadata as they are to be written; one that is among the pairs already is left out. Must
 * stay where it is: the pairs point into it. False: EXIT_INPUT (a shape that overflows), EXIT_IO. Free in any case. */
bool seal_make(Seal *out, const StoredTensor *tensors, size_t count, const StoredPair *pairs, size_t pair_count,
               Err *err);
void seal_free(Seal *s);

/* Does the file carry one? */
bool seal_present(const TensorFile *f);
/* Are metadata, or tensors, those that were sealed? True for a file without a seal. The former costs microseconds, the
 * latter reads the whole file, with the threads of the team that the caller uses. False: EXIT_INPUT, saying what
 * differs; EXIT_IO. */
bool seal_check_metadata(const TensorFile *f, Err *err);
bool seal_check_tensors(const TensorFile *f, Err *err);

/* The digest of a list of tensors as above. Errors as seal_make. */
bool seal_digest_tensors(char out[SHA256_TEXT_SIZE], const StoredTensor *tensors, size_t count, Err *err);

#endif
