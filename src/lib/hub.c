/* hub.c - writes a folder for a model hub; hub_read.c reads one. */
#include "lib/hub.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/model_metadata.h"
#include "base/file.h"
#include "base/strings.h"
#include "base/unfinished.h"
#include "data/imagenet_names.h"

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

/* Names as keys: mala's own reader has none with control characters. */
static bool can_be_keys(char *const *classes, int count) {
    for (int i = 0; i < count; i++)
        for (const char *c = classes[i]; *c; c++)
            if ((unsigned char)*c < 0x20) return false;
    return true;
}

static bool all_differ(char *const *classes, int count) {
    const char **sorted = mem_zalloc((size_t)count, sizeof *sorted);
    bool differ = true;
    for (int i = 0; i < count; i++) sorted[i] = imagenet_label(classes[i]);
    qsort(sorted, (size_t)count, sizeof *sorted, by_text);
    for (int i = 1; i < count; i++) differ = differ && strcmp(sorted[i - 1], sorted[i]) != 0;
    free(sorted);
    return differ;
}

/* What transformers and the pages of hubs read: labels in words. Where two are the same, or one can be no key, there is
 * no way back from them. */
static void write_ids(JsonWriter *w, char *const *classes, int count) {
    json_write_key(w, "id2label");
    json_write_object(w);
    for (int i = 0; i < count; i++) {
        char index[12];
        snprintf(index, sizeof index, "%d", i);
        json_write_key(w, index), json_write_string(w, imagenet_label(classes[i]));
    }
    json_write_end(w);
    if (!all_differ(classes, count) || !can_be_keys(classes, count)) return;
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
    if (imagenet_label(classes[0]) == classes[0] || !can_be_keys(classes, count)) return;
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

/* A stream in memory would lose, without a word, what it finds no memory for. */
typedef struct {
    char *text;
    size_t count;
} Page;

static void put(Page *p, const char *format, ...) PRINTF_LIKE(2, 3);
static void put(Page *p, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    const int length = vsnprintf(NULL, 0, format, args);
    if (length < 0) mem_exhausted("a page");
    p->text = mem_resize(p->text, p->count + (size_t)length + 1, 1);
    vsnprintf(p->text + p->count, (size_t)length + 1, format, again);
    p->count += (size_t)length;
    va_end(again);
    va_end(args);
}

static void print_front_matter(Page *p, int class_count, const char *license) {
    const char *task = class_count ? "image-classification" : "image-feature-extraction";
    put(p, "---\npipeline_tag: %s\nlibrary_name: mala\ntags: [%s, mavit]\n", task, task);
    if (license) { /* a JSON string is one of YAML, too */
        JsonWriter quoted = {0};
        json_write_string(&quoted, license);
        put(p, "license: %s\n", json_writer_text(&quoted));
        json_writer_free(&quoted);
    }
    put(p, "---\n");
}

static void print_preprocessing(Page *p, const Config *c) {
    char *interpolation = config_word(c, "input.interpolation"), crop[NUMBER_TEXT_SIZE], number[NUMBER_TEXT_SIZE];
    number_text(crop, config_crop_pct(c));
    put(p, "* input: RGB, %dx%d (height x width), %s, crop %s of the shorter side", c->input.size[0], c->input.size[1],
        interpolation, crop);
    for (int k = 0; k < 2; k++) {
        const double *values = k ? c->input.std : c->input.mean;
        put(p, k ? "; deviation" : "; mean");
        for (int i = 0; i < 3; i++) number_text(number, values[i]), put(p, " %s", number);
    }
    put(p, "\n");
    free(interpolation);
}

static void print_page(Page *p, const char *name, const Config *c, int class_count, const char *license) {
    const MavitConfig m = config_mavit(c, class_count);
    print_front_matter(p, class_count, license);
    char *title = text_printable_new(name); /* a folder's: it may hold a line end */
    put(p, "\n# %s\n\nA MAViT (\"Rectifying Magnitude Neglect in Linear Attention\", ICCV 2025)", title);
    free(title);
    put(p, class_count ? ", %d classes.\n\n" : ", as a backbone of four stages.\n\n", class_count);
    put(p, "* attention by stage:");
    for (int i = 0; i < MAVIT_STAGES; i++) put(p, "%s %s", i ? "," : "", attention_name(m.attention[i]));
    put(p, "\n");
    print_preprocessing(p, c);
    put(p, "* `" HUB_WEIGHTS "`: the weights, under the names of the released checkpoints\n"
           "* `config.json`: architecture, labels and preprocessing, in timm's words\n\n");
    put(p, class_count ? "    mala infer photo.jpg --weights FOLDER --topk 5\n"
                         "    mala verify FOLDER        # does it compute here what it did where it was written?\n"
                       : "    mala train --weights FOLDER data.path=DIR        # trains a classifier on it\n");
}

/* ---- the folder ---- */

static bool write_in(FileWriter *w, const char *folder, const char *name, const void *text, size_t count, Err *err) {
    char *path = path_join(folder, name);
    bool ok = file_writer_open(w, path, err) && file_writer_append(w, text, count, err);
    free(path);
    return ok;
}

/* README.md, unless somebody has written one. */
static bool write_page(HubWriter *w, const char *folder, const Config *c, int class_count, const char *license,
                       Err *err) {
    char *path = path_join(folder, "README.md");
    Page page = {0};
    bool ok = true;
    if (access(path, F_OK) != 0) {
        char *name = config_word(c, "model.name");
        print_page(&page, name, c, class_count, license);
        ok = write_in(&w->page, folder, "README.md", page.text, page.count, err);
        free(name);
    }
    free(page.text);
    free(path);
    return ok;
}

/* The reader itself is asked. */
static bool read_back(const char *folder, JsonWriter *json, const Config *c, char *const *classes,
                      int class_count, Err *err) {
    HubConfig back;
    char *name = path_join(folder, "config.json");
    bool ok = hub_read_text(&back, name, json_writer_text(json), json->count, err) &&
              hub_check_classes(&back, classes, class_count, err) && hub_check_config(&back, c, err);
    hub_free(&back);
    free(name);
    return ok;
}

static bool write_config(HubWriter *w, const char *folder, const Config *c, char *const *classes, int class_count,
                         const char *license, Err *err) {
    MavitConfig m = config_mavit(c, class_count);
    char *architecture = config_word(c, "model.name");
    JsonWriter json = {.indent = 2};
    json_write_object(&json);
    json_write_key(&json, "architecture"), json_write_string(&json, architecture);
    json_write_key(&json, "num_classes"), json_write_int(&json, class_count);
    json_write_key(&json, "num_features");
    json_write_int(&json, class_count ? m.projection : m.dims[MAVIT_STAGES - 1]);
    json_write_key(&json, "global_pool"), json_write_string(&json, "avg");
    write_labels(&json, classes, class_count);
    write_model_args(&json, &m);
    write_preprocessing(&json, c, class_count, license);
    json_write_end(&json);
    bool ok = read_back(folder, &json, c, classes, class_count, err) &&
              write_in(&w->config, folder, "config.json", json_writer_text(&json), json.count, err);
    json_writer_free(&json);
    free(architecture);
    return ok;
}

bool hub_writer_open(HubWriter *w, const char *folder, const Config *c, char *const *classes, int class_count,
                     const char *license, bool only_new, Err *err) {
    *w = (HubWriter){0};
    if (!path_is_dir(folder)) w->made = strcpy(unfinished_new(strlen(folder) + 1), folder);
    if (!dir_make(folder, err)) {
        unfinished_free(w->made);
        return false;
    }
    if (w->made) unfinished_begin(w->made);
    if (!write_config(w, folder, c, classes, class_count, license, err) ||
        !write_page(w, folder, c, class_count, license, err) ||
        !write_in(&w->weights, folder, HUB_WEIGHTS, "", 0, err))
        return hub_writer_fail(w, err);
    w->config.only_new = w->weights.only_new = only_new;
    return true;
}

bool hub_writer_commit(HubWriter *w, Err *err) {
    FileWriter *files[] = {&w->page, &w->config, &w->weights};
    bool ok = true;
    for (size_t i = 0; ok && i < COUNTOF(files); i++)
        ok = !files[i]->temporary || file_writer_finish(files[i], err);
    for (size_t i = 0; ok && i < COUNTOF(files); i++)
        ok = !files[i]->temporary || file_writer_commit(files[i], err);
    if (!ok) return hub_writer_fail(w, err);
    unfinished_free(w->made);
    *w = (HubWriter){0};
    return true;
}

bool hub_writer_fail(HubWriter *w, Err *err) {
    file_writer_fail(&w->weights, err), file_writer_fail(&w->config, err), file_writer_fail(&w->page, err);
    if (w->made) rmdir(w->made); /* if nothing of it is there */
    unfinished_free(w->made);
    *w = (HubWriter){0};
    return false;
}
