/* model_metadata.h - what a weights file says about itself, so that it can be used by itself. */
#ifndef MALA_MODEL_METADATA_H
#define MALA_MODEL_METADATA_H

#include "app/config.h"
#include "io/tensor_file.h"

typedef struct {
    StoredPair pairs[8];
    size_t count;
    char *config;
    JsonWriter classes, preprocess;
} ModelMetadata;

/* config: architecture and preprocessing, NULL when they are not known. No names when class_count is 0; metrics: a JSON
 * object or NULL, kept by reference. Free with model_metadata_free. */
void model_metadata_init(ModelMetadata *m, const Config *config, char *const *classes, int class_count, bool averaged,
                         const char *metrics);
void model_metadata_free(ModelMetadata *m);

#endif
