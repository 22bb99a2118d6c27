#include "lib/hub.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/model_metadata.h"
#include "base/file.h"
#include "base/strings.h"
#include "data/imagenet_names.h"

#define FILE_LIMIT ((size_t)64 << 20)

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

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static bool all_differ(char *const *classes, int count) {
    const char **sorted = mem_zalloc((size_t)count, sizeof *sorted);
    bool differ = true;
    for (int i = 0; i < count; i++) sorted[i] = imagenet_label(classes[i]);
    qsort(sorted, (size_t)count, sizeof *sorted, by_text);
    for (int i = 1; i < count; i++) differ = differ && strcmp(sorted[i - 1], sorted[i]) != 0;
    free(sorted);
    return differ;
}

/* What transformers and the pages of hubs read: labels in words. No key may stand twice, so where names do, there is no
 * way back from them. */
static void write_ids(JsonWriter *w, char *const *classes, int count) {
    json_write_key(w, "id2label");
    json_write_object(w);
    for (int i = 0; i < count; i++) {
        char index[12];
        snprintf(index, sizeof index, "%d", i);
        json_write_key(w, index), json_write_string(w, imagenet_label(classes[i]));
    }
    json_write_end(w);
    if (!all_differ(classes, count)) return;
    json_write_key(w, "label2id");
    json_write_object(w);
    for (int i = 0; i < count; i++) json_write_key(w, imagenet_label(classes[i])), json_write_int(w, i);
    json_write_end(w);
}

/* The names, and for ids of ImageNet what they mean. */
static void write_labels(JsonWriter *w, char *const *classes, int count) {
    json_write_key(w, "label_names");
    json_write_array(w);
    for (int i = 0; i < count; i++) json_write_string(w, classes[i]);
    json_write_end(w);
    if (count == 0) return;
    write_ids(w, classes, count);
    if (imagenet_label(classes[0]) == classes[0]) return;
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
    json_write_key(w, "mlp_ratio"), json_write_double(w, m->mlp_ratio);
    json_write_key(w, "projection"), json_write_int(w, m->projection);
    json_write_key(w, "attention");
    json_write_array(w);
    for (int i = 0; i < MAVIT_STAGES; i++) json_write_string(w, attention_name(m->attention[i]));
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

/* ---- the page ---- */

static void print_front_matter(FILE *f, int class_count, const char *license) {
    const char *task = class_count ? "image-classification" : "image-feature-extraction";
    fprintf(f, "---\npipeline_tag: %s\nlibrary_name: mala\ntags: [%s, mavit]\n", task, task);
    if (license) { /* a JSON string is one of YAML, too */
        JsonWriter quoted = {0};
        json_write_string(&quoted, license);
        fprintf(f, "license: %s\n", json_writer_text(&quoted));
        json_writer_free(&quoted);
    }
    fputs("---\n", f);
}

static void print_preprocessing(FILE *f, const Config *c) {
    char *interpolation = config_word(c, "input.interpolation"), crop[NUMBER_TEXT_SIZE], number[NUMBER_TEXT_SIZE];
    number_text(crop, config_crop_pct(c));
    fprintf(f, "* input: RGB, %dx%d (height x width), %s, crop %s of the shorter side", c->input.size[0],
            c->input.size[1], interpolation, crop);
    for (int k = 0; k < 2; k++) {
        const double *values = k ? c->input.std : c->input.mean;
        fputs(k ? "; deviation" : "; mean", f);
        for (int i = 0; i < 3; i++) number_text(number, values[i]), fprintf(f, " %s", number);
    }
    fputc('\n', f);
    free(interpolation);
}

static void print_page(FILE *f, const char *name, const Config *c, int class_count, const char *license) {
    const MavitConfig m = config_mavit(c, class_count);
    print_front_matter(f, class_count, license);
    fprintf(f, "\n# %s\n\nA MAViT (\"Rectifying Magnitude Neglect in Linear Attention\", ICCV 2025)", name);
    fprintf(f, class_count ? ", %d classes.\n\n" : ", as a backbone of four stages.\n\n", class_count);
    fputs("* attention by stage:", f);
    for (int i = 0; i < MAVIT_STAGES; i++) fprintf(f, "%s %s", i ? "," : "", attention_name(m.attention[i]));
    fputc('\n', f);
    print_preprocessing(f, c);
    fputs("* `" HUB_WEIGHTS "`: the weights, under the names of the released checkpoints\n"
          "* `config.json`: architecture, labels and preprocessing, in timm's words\n\n", f);
    fputs(class_count ? "    mala infer photo.jpg --weights FOLDER --topk 5\n"
                        "    mala verify FOLDER        # does it compute here what it did where it was written?\n"
                      : "    mala train --weights FOLDER data.path=DIR        # trains a classifier on it\n", f);
}

/* FOLDER/README.md, unless somebody has written one. */
static bool write_page(const char *folder, const char *name, const Config *c, int class_count, const char *license,
                       Err *err) {
    char *path = path_join(folder, "README.md"), *text = NULL;
    size_t count = 0;
    bool ok = true;
    if (access(path, F_OK) != 0) {
        FILE *f = open_memstream(&text, &count);
        CHECK(f, "no stream in memory");
        print_page(f, name, c, class_count, license);
        fclose(f);
        ok = file_write(path, text, count, err);
    }
    free(text);
    free(path);
    return ok;
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
    bool ok = file_write(path, w.text, w.count, err) && write_page(folder, architecture, c, class_count, license, err);
    json_writer_free(&w);
    free(architecture);
    free(path);
    return ok;
}
