#include "app/model_metadata.h"

#include <stdlib.h>

static void add(ModelMetadata *m, const char *key, const char *value) {
    m->pairs[m->count++] = (StoredPair){key, value};
}

static void write_preprocess(JsonWriter *w, const Config *c) {
    json_write_object(w);
    json_write_key(w, "size");
    json_write_array(w);
    for (int i = 0; i < 2; i++) json_write_int(w, c->input.size[i]);
    json_write_end(w);
    json_write_key(w, "crop_pct");
    json_write_double(w, config_crop_pct(c));
    json_write_key(w, "interpolation");
    json_write_string(w, c->input.interpolation == INTERPOLATION_BILINEAR ? "bilinear" : "bicubic");
    const double *lists[] = {c->input.mean, c->input.std};
    for (int k = 0; k < 2; k++) {
        json_write_key(w, k ? "std" : "mean");
        json_write_array(w);
        for (int i = 0; i < 3; i++) json_write_double(w, lists[k][i]);
        json_write_end(w);
    }
    json_write_end(w);
}

void model_metadata_init(ModelMetadata *m, const Config *config, char *const *classes, int class_count, bool averaged,
                         const char *metrics) {
    *m = (ModelMetadata){0};
    add(m, "format", "pt");
    add(m, "mala.version", MALA_VERSION);
    if (config) {
        write_preprocess(&m->preprocess, config);
        m->config = config_dump(config);
        add(m, "mala.task", "classify");
        add(m, "mala.config", m->config);
        add(m, "mala.preprocess", json_writer_text(&m->preprocess));
    }
    if (class_count > 0) {
        json_write_array(&m->classes);
        for (int i = 0; i < class_count; i++) json_write_string(&m->classes, classes[i]);
        json_write_end(&m->classes);
        add(m, "mala.classes", json_writer_text(&m->classes));
    }
    add(m, "mala.ema", averaged ? "true" : "false");
    if (metrics) add(m, "mala.metrics", metrics);
}

void model_metadata_free(ModelMetadata *m) {
    json_writer_free(&m->classes);
    json_writer_free(&m->preprocess);
    free(m->config);
    *m = (ModelMetadata){0};
}
