#include "lib/model_metadata.h"

#include <stdlib.h>

char *config_word(const Config *c, const char *option) {
    const Option *o = option_find(config_table, config_table_count, option);
    CHECK(o && o->type == OPTION_ENUM, "%s: no option of words", option);
    char word[64];
    option_word(word, sizeof word, o->words, *(const int *)((const char *)c + o->offset));
    return mem_strdup(word);
}

void config_write_network(JsonWriter *w, const Config *c) {
    char *name = config_word(c, "model.name");
    json_write_key(w, "model"), json_write_string(w, name);
    free(name);
    json_write_key(w, "attention");
    json_write_array(w);
    for (int i = 0; i < MAVIT_STAGES; i++)
        json_write_string(w, attention_name((AttentionKind)c->model.attention[i]));
    json_write_end(w);
    json_write_key(w, "size");
    json_write_array(w);
    for (int i = 0; i < 2; i++) json_write_int(w, c->input.size[i]);
    json_write_end(w);
}

static void write_doubles(JsonWriter *w, const char *key, const double *values, int count) {
    json_write_key(w, key);
    json_write_array(w);
    for (int i = 0; i < count; i++) json_write_double(w, values[i]);
    json_write_end(w);
}

static void write_preprocess(JsonWriter *w, const Config *c) {
    char *interpolation = config_word(c, "input.interpolation");
    json_write_object(w);
    write_doubles(w, "size", (double[]){c->input.size[0], c->input.size[1]}, 2);
    json_write_key(w, "crop_pct"), json_write_double(w, config_crop_pct(c));
    json_write_key(w, "interpolation"), json_write_string(w, interpolation);
    json_write_key(w, "antialias"), json_write_bool(w, true);
    json_write_key(w, "channels"), json_write_string(w, "RGB");
    write_doubles(w, "mean", c->input.mean, 3);
    write_doubles(w, "std", c->input.std, 3);
    json_write_end(w);
    free(interpolation);
}

static void add(ModelMetadata *m, const char *key, const char *value) {
    CHECK(m->count < MODEL_METADATA_MAX, "MODEL_METADATA_MAX is too small");
    if (value) m->pairs[m->count++] = (StoredPair){key, value};
}

static void add_config(ModelMetadata *m, const Config *c, const char *task) {
    m->config = config_dump(c);
    m->arch = config_word(c, "model.name");
    write_preprocess(&m->preprocess, c);
    add(m, "mala.task", task ? task : "classify");
    add(m, "mala.arch", m->arch);
    add(m, "mala.config", m->config);
    add(m, "mala.preprocess", json_writer_text(&m->preprocess));
}

static void add_classes(ModelMetadata *m, char *const *classes, int count) {
    json_write_array(&m->classes);
    for (int i = 0; i < count; i++) json_write_string(&m->classes, classes[i]);
    json_write_end(&m->classes);
    add(m, "mala.classes", json_writer_text(&m->classes));
}

void model_metadata_init(ModelMetadata *out, const Config *c, char *const *classes, int class_count,
                         const ModelFacts *facts) {
    *out = (ModelMetadata){0};
    add(out, "format", "pt");
    add(out, "mala.version", MALA_VERSION);
    if (c) add_config(out, c, facts->task);
    if (class_count > 0) add_classes(out, classes, class_count);
    add(out, "mala.ema", facts->ema ? "true" : "false");
    add(out, "mala.metrics", facts->metrics);
    add(out, "mala.dataset_sha256", facts->dataset_sha256);
    add(out, "license", facts->license);
}

void model_metadata_free(ModelMetadata *m) {
    free(m->config);
    free(m->arch);
    json_writer_free(&m->classes);
    json_writer_free(&m->preprocess);
    *m = (ModelMetadata){0};
}
