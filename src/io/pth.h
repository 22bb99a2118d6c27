/* pth.h - PyTorch checkpoints: a zip archive (zip.h) with a pickle (pickle.h) that names views of storages, which are
 * entries beside it.
 *
 * Read is what torch.save writes since version 1.6: one folder with data.pkl, data/<number>, version 1..10, byteorder
 * "little" and torch's own small marks; any other entry is refused, and so are TorchScript modules, whole pickled
 * models, and every tensor that could reach outside its storage or is larger than it (expanded views). Storages that
 * the chosen weights do not use are not looked at. Views that are not row-major are gathered into memory, at most twice
 * the size of the file. */
#ifndef MALA_PTH_H
#define MALA_PTH_H

#include "io/tensor_file.h"

#define PTH_MAX_TENSORS 1000000
#define PTH_MAX_METADATA 64
#define PTH_METADATA "metadata" /* beside the weights: a dict of texts, what a safetensors file has in __metadata__ */

/* Do these first four bytes say zip? */
bool pth_fits(const uint8_t *head);
/* For tensor_file_open, which calls it with the file open: takes the weights under model_ema, state_dict_ema, model or
 * state_dict, the first that is there (options->ema excludes the former or the latter two), or those that the file
 * itself is; beside them "metadata" of texts, as pth_write writes them. False: EXIT_INPUT with the byte and the tensor
 * or entry at fault, EXIT_IO, EXIT_MEMORY. */
bool pth_read(TensorFile *file, const TensorFileOptions *options, Err *err);

/* Is the key one of those four, under which pth_read finds weights? */
bool pth_is_part(const char *key);

/* Writes tensors in their order, atomically, as torch.save would: {key: OrderedDict, "metadata": {key: value, ...}},
 * the latter if there are any, or the OrderedDict alone with key NULL. torch.load(path, weights_only=True) reads it.
 * The same input gives the same bytes. False: EXIT_INPUT for dtypes that torch has no storage for and names that are
 * empty, duplicate or not UTF-8; EXIT_IO. */
bool pth_write(const char *path, const char *key, const StoredTensor *tensors, size_t count, const StoredPair *metadata,
               size_t metadata_count, Err *err);

#endif
