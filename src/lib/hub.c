#include "lib/hub.h"

#include <stdlib.h>
#include <string.h>

#include "lib/model_metadata.h"
#include "base/file.h"
#include "data/imagenet_names.h"

#define FILE_LIMIT ((size_t)64 << 20)

static const char *const attention_words[] = {
    [ATTN_MALA] = "mala", [ATTN_SOFTMAX] = "softmax", [ATTN_LINEAR] = "linear", [ATTN_INLINE] = "inline"};

/* ---- reading: their words become ours, and the config's own table judges the values ---- */

/* Copies one value: a number, a word, or a flat list of them. */
static bool copy_value(JsonReader *r, JsonWriter *w, Err *err) {
    JsonToken t;
    bool in_list = false;
    do {
        if (!json_next(r, &t, err)) return false;
        if (t.kind == JSON_NUMBER)
            json_write_raw(w, t.text);
        else if (t.kind == JSON_STRING)
            json_write_string(w, t.text);
        else if (t.kind == JSON_ARRAY && !in_list)
            json_write_array(w), in_list = true;
        else if (t.kind == JSON_ARRAY_END && in_list)
            json_write_end(w), in_list = false;
        else
            return json_fail(r, &t, err, "expected a number, a word or a list of them, found %s",
                             json_kind_name(t.kind));
    } while (in_list);
    return true;
}

/* "input_size": [3, height, width] */
static bool copy_size(JsonReader *r, JsonWriter *w, Err *err) {
    JsonToken t;
    if (!json_expect(r, &t, JSON_ARRAY, err) || !json_expect(r, &t, JSON_NUMBER, err)) return false;
    if (!t.is_uint || t.integer != 3) return json_fail(r, &t, err, "expected 3 channels");
    json_write_array(w);
    for (int i = 0; i < 2; i++) {
        if (!json_expect(r, &t, JSON_NUMBER, err)) return false;
        json_write_raw(w, t.text);
    }
    json_write_end(w);
    return json_expect(r, &t, JSON_ARRAY_END, err);
}

static bool read_names(JsonReader *r, HubConfig *h, Err *err) {
    JsonToken t;
    bool ok = json_expect(r, &t, JSON_ARRAY, err);
    while (ok && (ok = json_next(r, &t, err)) && t.kind != JSON_ARRAY_END) {
        if (t.kind != JSON_STRING) return json_fail(r, &t, err, "class names must be strings");
        h->classes = mem_resize(h->classes, (size_t)h->class_count + 1, sizeof *h->classes);
        h->classes[h->class_count++] = mem_strdup(t.text);
    }
    return ok;
}

/* The arguments of the architecture: exactly ours, because one that is not understood could mean another network. */
static bool read_model_args(JsonReader *r, JsonWriter *model, Err *err) {
    static const char *const known[] = {"dims", "depths", "heads", "mlp_ratio", "projection", "attention"};
    JsonToken t;
    bool ok = json_expect(r, &t, JSON_OBJECT, err);
    while (ok && (ok = json_next(r, &t, err)) && t.kind == JSON_KEY) {
        bool is_known = false;
        for (size_t i = 0; i < COUNTOF(known); i++) is_known = is_known || strcmp(t.text, known[i]) == 0;
        if (!is_known) return json_fail(r, &t, err, "model_args: \"%s\" is no argument of a MAViT", t.text);
        json_write_key(model, t.text);
        ok = copy_value(r, model, err);
    }
    return ok;
}

static bool read_preprocessing(JsonReader *r, JsonWriter *input, Err *err) {
    static const char *const same[] = {"interpolation", "crop_pct", "mean", "std"};
    JsonToken t;
    bool ok = json_expect(r, &t, JSON_OBJECT, err);
    while (ok && (ok = json_next(r, &t, err)) && t.kind == JSON_KEY) {
        bool copied = false;
        if (strcmp(t.text, "input_size") == 0) {
            json_write_key(input, "size");
            ok = copy_size(r, input, err);
            continue;
        }
        for (size_t i = 0; ok && !copied && i < COUNTOF(same); i++) {
            if (strcmp(t.text, same[i]) != 0) continue;
            json_write_key(input, same[i]);
            ok = copy_value(r, input, err);
            copied = true;
        }
        if (ok && !copied) ok = json_skip(r, err);
    }
    return ok;
}

static bool read_members(JsonReader *r, HubConfig *h, JsonWriter *model, JsonWriter *input, Err *err) {
    JsonToken t;
    bool ok = json_expect(r, &t, JSON_OBJECT, err), named = false;
    while (ok && (ok = json_next(r, &t, err)) && t.kind == JSON_KEY) {
        if (strcmp(t.text, "architecture") == 0) {
            ok = json_expect(r, &t, JSON_STRING, err);
            if (!ok) break;
            json_write_key(model, "name");
            json_write_string(model, t.text);
            named = true;
        } else if (strcmp(t.text, "model_args") == 0) {
            ok = read_model_args(r, model, err);
        } else if (strcmp(t.text, "pretrained_cfg") == 0) {
            ok = read_preprocessing(r, input, err);
        } else if (strcmp(t.text, "label_names") == 0) {
            ok = read_names(r, h, err);
        } else {
            ok = json_skip(r, err);
        }
    }
    ok = ok && json_next(r, &t, err); /* nothing after it */
    if (ok && !named)
        return err_set(err, EXIT_INPUT, "%s: has no \"architecture\" - mavit_t, _s, _b, _l or custom belongs there",
                       h->name);
    return ok;
}

bool hub_read(HubConfig *out, const char *folder, Err *err) {
    *out = (HubConfig){.name = path_join(folder, "config.json")};
    uint8_t *text;
    size_t count;
    if (!file_read(&text, &count, out->name, FILE_LIMIT, err)) return false;
    JsonReader r;
    JsonWriter model = {0}, input = {0}, whole = {0};
    json_write_object(&model);
    json_write_object(&input);
    bool ok = json_open(&r, (const char *)text, count, (JsonSource){.name = out->name, .code = EXIT_INPUT}, err) &&
              read_members(&r, out, &model, &input, err);
    json_close(&r);
    free(text);
    if (ok) {
        json_write_end(&model);
        json_write_end(&input);
        json_write_object(&whole);
        json_write_key(&whole, "model"), json_write_raw(&whole, json_writer_text(&model));
        json_write_key(&whole, "input"), json_write_raw(&whole, json_writer_text(&input));
        json_write_end(&whole);
        out->config = mem_strdup(json_writer_text(&whole));
    }
    JsonWriter *writers[] = {&model, &input, &whole};
    for (size_t i = 0; i < COUNTOF(writers); i++) json_writer_free(writers[i]);
    return ok;
}

void hub_free(HubConfig *h) {
    for (int i = 0; i < h->class_count; i++) free(h->classes[i]);
    free(h->classes);
    free(h->config);
    free(h->name);
    *h = (HubConfig){0};
}

/* ---- writing ---- */

static void write_ints(JsonWriter *w, const char *key, const int *values, int count) {
    json_write_key(w, key);
    json_write_array(w);
    for (int i = 0; i < count; i++) json_write_int(w, values[i]);
    json_write_end(w);
}

static void write_doubles(JsonWriter *w, const char *key, const double *values, int count) {
    json_write_key(w, key);
    json_write_array(w);
    for (int i = 0; i < count; i++) json_write_double(w, values[i]);
    json_write_end(w);
}

/* The names, and for ids of ImageNet what they mean. */
static void write_labels(JsonWriter *w, char *const *classes, int count) {
    json_write_key(w, "label_names");
    json_write_array(w);
    for (int i = 0; i < count; i++) json_write_string(w, classes[i]);
    json_write_end(w);
    if (count == 0 || imagenet_label(classes[0]) == classes[0]) return;
    json_write_key(w, "label_descriptions");
    json_write_object(w);
    for (int i = 0; i < count; i++) json_write_key(w, classes[i]), json_write_string(w, imagenet_label(classes[i]));
    json_write_end(w);
}

static void write_model_args(JsonWriter *w, const MavitConfig *m) {
    json_write_key(w, "model_args");
    json_write_object(w);
    write_ints(w, "dims", m->dims, MAVIT_STAGES);
    write_ints(w, "depths", m->depths, MAVIT_STAGES);
    write_ints(w, "heads", m->heads, MAVIT_STAGES);
    json_write_key(w, "mlp_ratio"), json_write_float(w, m->mlp_ratio);
    json_write_key(w, "projection"), json_write_int(w, m->projection);
    json_write_key(w, "attention");
    json_write_array(w);
    for (int i = 0; i < MAVIT_STAGES; i++) json_write_string(w, attention_words[m->attention[i]]);
    json_write_end(w);
    json_write_end(w);
}

static void write_preprocessing(JsonWriter *w, const Config *c, int classes, const char *license) {
    char *interpolation = config_word(c, "input.interpolation");
    json_write_key(w, "pretrained_cfg");
    json_write_object(w);
    write_ints(w, "input_size", (int[]){3, c->input.size[0], c->input.size[1]}, 3);
    json_write_key(w, "fixed_input_size"), json_write_bool(w, false);
    json_write_key(w, "interpolation"), json_write_string(w, interpolation);
    json_write_key(w, "crop_pct"), json_write_double(w, config_crop_pct(c));
    json_write_key(w, "crop_mode"), json_write_string(w, "center");
    write_doubles(w, "mean", c->input.mean, 3);
    write_doubles(w, "std", c->input.std, 3);
    json_write_key(w, "num_classes"), json_write_int(w, classes);
    json_write_key(w, "first_conv"), json_write_string(w, "patch_embed.proj.0");
    if (classes) json_write_key(w, "classifier"), json_write_string(w, "head");
    if (license) json_write_key(w, "license"), json_write_string(w, license);
    json_write_end(w);
    free(interpolation);
}

bool hub_write(const char *folder, const Config *c, char *const *classes, int class_count, const char *license,
               Err *err) {
    if (!dir_make(folder, err)) return false;
    MavitConfig m = config_mavit(c, class_count);
    char *path = path_join(folder, "config.json"), *architecture = config_word(c, "model.name");
    JsonWriter w = {.indent = 2};
    json_write_object(&w);
    json_write_key(&w, "architecture"), json_write_string(&w, architecture);
    json_write_key(&w, "num_classes"), json_write_int(&w, class_count);
    json_write_key(&w, "num_features"), json_write_int(&w, class_count ? m.projection : m.dims[MAVIT_STAGES - 1]);
    json_write_key(&w, "global_pool"), json_write_string(&w, "avg");
    write_labels(&w, classes, class_count);
    write_model_args(&w, &m);
    write_preprocessing(&w, c, class_count, license);
    json_write_end(&w);
    json_writer_text(&w);
    bool ok = file_write(path, w.text, w.count, err);
    json_writer_free(&w);
    free(architecture);
    free(path);
    return ok;
}
