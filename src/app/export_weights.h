/* export_weights.h - an export that is weights for other programs: safetensors, PyTorch's .pth, a hub folder. */
#ifndef MALA_EXPORT_WEIGHTS_H
#define MALA_EXPORT_WEIGHTS_H

#include "app/export.h"
#include "lib/model_write.h"

typedef enum { WEIGHTS_SAFETENSORS, WEIGHTS_PTH, WEIGHTS_HUB } WeightsFormat;

typedef struct {
    WeightsFormat format;
    StoredType dtype;    /* F32, BF16 or F16: of what is trained; running statistics stay F32 */
    const char *license; /* or NULL: what the file says */
    bool only_new;       /* what is there is not replaced: EXIT_USAGE */
    ModelJudge *judge;   /* or NULL: of the file, of a folder's weights (model_write.h) */
    void *judge_arg;
} WeightsExport;

/* Writes the model's tensors under the released names, with counters and angles where the file has them. float32 keeps
 * every bit. Metadata and golden logits are as in model_write.h. False: EXIT_INPUT (a value beyond the half type),
 * EXIT_IO, EXIT_MEMORY. */
bool export_weights(const char *path, ExportModel *e, const ModelFile *m, const WeightsExport *options, Err *err);

typedef struct {
    int64_t pictures, same_top1;
    double difference, magnitude; /* largest difference of a logit; largest logit */
} ExportComparison;

/* The classifier in the file `path`, beside the original it was made of, on every picture in and below
 * `folder`. False: EXIT_INPUT (a picture cannot be read, there is none), EXIT_MEMORY. */
bool export_compare(ExportComparison *out, const char *path, const ModelFile *original, const char *folder, Log *log,
                    Err *err);

#endif
