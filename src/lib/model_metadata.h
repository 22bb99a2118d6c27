/* model_metadata.h - what a model file says about itself beside its tensors, as pairs of text: enough to use the
 * network without asking anybody. No date and no host: the same run gives the same bytes.
 *     format          "pt", which other readers insist on
 *     mala.version    of the program that wrote it
 *     mala.task       "classify" or "features"
 *     mala.arch       "mavit_t", ... or "custom"
 *     mala.config     the whole config: JSON
 *     mala.preprocess from picture to tensor: {"size", "crop_pct", "interpolation", "antialias", "channels",
 *                     "mean", "std"}
 *     mala.classes    JSON list, by class index; no part of a backbone
 *     mala.ema        "true": averaged weights
 *     mala.metrics    what the evaluation measured: JSON
 *     mala.dataset_sha256  of the training pictures, as dataset.h has it
 *     mala.golden     golden.h adds it
 *     mala.tensors_sha256, mala.metadata_sha256  io/seal.h adds them, last
 *     license         of the weights, when it is known */
#ifndef MALA_MODEL_METADATA_H
#define MALA_MODEL_METADATA_H

#include "lib/config.h"
#include "io/tensor_file.h"

typedef struct {
    const char *task; /* or NULL: "classify" */
    bool ema;
    const char *metrics, *dataset_sha256, *license; /* or NULL */
} ModelFacts;

#define MODEL_METADATA_MAX 12

typedef struct {
    StoredPair pairs[MODEL_METADATA_MAX];
    size_t count;
    char *config, *arch;
    JsonWriter classes, preprocess;
} ModelMetadata;

/* c: architecture and preprocessing, NULL when they are not known. No names when class_count is 0. Texts are kept by
 * reference. */
void model_metadata_init(ModelMetadata *out, const Config *c, char *const *classes, int class_count,
                         const ModelFacts *facts);
void model_metadata_free(ModelMetadata *m);

/* The first word of an enum option's value: "mavit_t" of model.name, "bicubic" of input.interpolation. malloc'd. */
char *config_word(const Config *c, const char *option);
/* What a figure was measured or computed of, into an open object: "model", "attention" by stage, "size": [H, W]. */
void config_write_network(JsonWriter *w, const Config *c);

#endif
