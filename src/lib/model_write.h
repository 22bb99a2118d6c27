/* model_write.h - writes tensors as a model file: with what the model says about itself (model_metadata.h) and, where
 * it is a whole classifier of known architecture, with golden logits (golden.h), so that the file needs nothing beside
 * it. */
#ifndef MALA_MODEL_WRITE_H
#define MALA_MODEL_WRITE_H

#include "lib/model_file.h"

typedef enum { MODEL_SAFETENSORS, MODEL_PTH } ModelFormat;

/* Asked of the whole file, at `path`, before it has its name. False: it never gets it. */
typedef bool ModelJudge(void *arg, const char *path, Err *err);

typedef struct {
    ModelFormat format;
    const char *key; /* of a .pth: what torch.load(path)[key] is; NULL: "model"; "": the tensors alone, no metadata */
    const char *license; /* or NULL: what the file says */
    bool only_new;       /* a file that is there is not replaced: EXIT_USAGE */
    ModelJudge *judge;   /* or NULL */
    void *judge_arg;
} ModelWriteOptions;

/* The tensors are m's, in another form, or the file's own. Metadata are m's, without the paths of who trained it. There
 * is no file before all of it is written, golden logits and all; after a failure none, or the one of before.
 * False: EXIT_INPUT, EXIT_IO, EXIT_MEMORY. */
bool model_write(const char *path, const StoredTensor *tensors, size_t count, const ModelFile *m,
                 const ModelWriteOptions *options, Err *err);

#endif
