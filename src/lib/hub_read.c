/* hub_read.c - timm's words become ours, and the config's own table judges the values. */
#include "lib/hub.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/class_names.h"
#include "base/file.h"

#define FILE_LIMIT ((size_t)64 << 20)

typedef struct {
    HubConfig *hub;
    JsonReader json;
    const char *text;
    JsonWriter size, test_size, crop, test_crop; /* of pretrained_cfg, as JSON; empty: not there */
} Reader;

/* ---- values: *t is the first token of each ---- */

/* Copies a number, a word, or a flat list of them. */
static bool copy_value(Reader *r, JsonWriter *w, JsonToken *t, Err *err) {
    bool in_list = false;
    for (;;) {
        if (t->kind == JSON_NUMBER)
            json_write_raw(w, t->text);
        else if (t->kind == JSON_STRING)
            json_write_string(w, t->text);
        else if (t->kind == JSON_ARRAY && !in_list)
            json_write_array(w), in_list = true;
        else if (t->kind == JSON_ARRAY_END && in_list)
            json_write_end(w), in_list = false;
        else
            return json_fail(&r->json, t, err, "expected a number, a word or a list of them, found %s",
                             json_kind_name(t->kind));
        if (!in_list) return true;
        if (!json_next(&r->json, t, err)) return false;
    }
}

/* Copies the height and width of [3, height, width]. */
static bool copy_size(Reader *r, JsonWriter *w, JsonToken *t, Err *err) {
    JsonReader *json = &r->json;
    if (t->kind != JSON_ARRAY) return json_fail(json, t, err, "expected [3, height, width]");
    if (!json_expect(json, t, JSON_NUMBER, err)) return false;
    if (!t->is_uint || t->integer != 3) return json_fail(json, t, err, "expected 3 channels");
    json_write_array(w);
    for (int i = 0; i < 2; i++) {
        if (!json_expect(json, t, JSON_NUMBER, err)) return false;
        json_write_raw(w, t->text);
    }
    json_write_end(w);
    return json_expect(json, t, JSON_ARRAY_END, err);
}

static char *place_of(const Reader *r, size_t offset) {
    int line, column;
    size_t room = strlen(r->hub->name) + 32;
    char *where = mem_zalloc(room, 1);
    json_position(&line, &column, r->text, offset);
    snprintf(where, room, "%s:%d:%d", r->hub->name, line, column);
    return where;
}

/* Keeps a value for an option of ours; in *as_text, too, where that is not NULL. */
static bool take_value(Reader *r, const char *option, JsonToken *t, JsonWriter *as_text, Err *err) {
    HubConfig *h = r->hub;
    const size_t offset = t->offset;
    JsonWriter value = {0};
    bool ok = (strcmp(option, "input.size") == 0 ? copy_size : copy_value)(r, &value, t, err);
    if (ok) {
        h->values = mem_resize(h->values, (size_t)h->value_count + 1, sizeof *h->values);
        h->values[h->value_count++] =
            (ConfigValue){mem_strdup(option), mem_strdup(json_writer_text(&value)), place_of(r, offset)};
        if (as_text) json_write_raw(as_text, json_writer_text(&value));
    }
    json_writer_free(&value);
    return ok;
}

/* The one word that says what mala does anyway. */
static bool take_only(Reader *r, const char *key, const JsonToken *t, const char *only, Err *err) {
    return (t->kind == JSON_STRING && strcmp(t->text, only) == 0) ||
           json_fail(&r->json, t, err, "%s: mala has \"%s\" alone, anything else gives other answers", key, only);
}

static bool take_count(Reader *r, const JsonToken *t, Err *err) {
    HubConfig *h = r->hub;
    if (t->kind != JSON_NUMBER || !t->is_uint || t->integer > 1000000)
        return json_fail(&r->json, t, err, "num_classes: expected a whole number up to 1000000");
    if (h->num_classes >= 0 && h->num_classes != (int64_t)t->integer)
        return json_fail(&r->json, t, err, "num_classes: another one in this file is %lld - correct one of them",
                         (long long)h->num_classes);
    h->num_classes = (int64_t)t->integer;
    return true;
}

/* ---- lists and objects, which are open ---- */

static bool read_names(Reader *r, Err *err) {
    HubConfig *h = r->hub;
    JsonToken t;
    bool ok = true;
    while (ok && (ok = json_next(&r->json, &t, err)) && t.kind != JSON_ARRAY_END) {
        if (t.kind != JSON_STRING) return json_fail(&r->json, &t, err, "class names must be strings");
        h->classes = mem_resize(h->classes, (size_t)h->class_count + 1, sizeof *h->classes);
        h->classes[h->class_count++] = mem_strdup(t.text);
    }
    return ok;
}

/* The arguments of the architecture: exactly ours, because one that is not understood could mean another network. */
static bool read_model_args(Reader *r, Err *err) {
    static const char *const known[] = {"dims", "depths", "heads", "mlp_ratio", "projection", "attention"};
    JsonToken t;
    bool ok = true;
    while (ok && (ok = json_next(&r->json, &t, err)) && t.kind == JSON_KEY) {
        char option[32] = "";
        for (size_t i = 0; i < COUNTOF(known); i++)
            if (strcmp(t.text, known[i]) == 0) snprintf(option, sizeof option, "model.%s", known[i]);
        if (!option[0]) return json_fail(&r->json, &t, err, "model_args: \"%s\" is no argument of a MAViT", t.text);
        ok = json_next(&r->json, &t, err) && take_value(r, option, &t, NULL, err);
    }
    return ok;
}

/* Keys of pretrained_cfg that say where weights come from and what is in them, and touch no pixel. */
static bool is_inert(const char *key) {
    static const char *const inert[] = {
        "url",         "file",       "hf_hub_id",   "hf_hub_filename",    "architecture",     "tag",
        "source",      "license",    "origin_url",  "paper_name",         "paper_ids",        "description",
        "notes",       "pool_size",  "custom_load", "label_names",        "fixed_input_size", "min_input_size",
        "first_conv",  "classifier", "label_descriptions"};
    for (size_t i = 0; i < COUNTOF(inert); i++)
        if (strcmp(key, inert[i]) == 0) return true;
    return false;
}

static bool read_pretrained(Reader *r, const char *key, JsonToken *t, Err *err) {
    static const char *const same[] = {"interpolation", "mean", "std"};
    if (strcmp(key, "input_size") == 0) return take_value(r, "input.size", t, &r->size, err);
    if (strcmp(key, "test_input_size") == 0) return copy_size(r, &r->test_size, t, err);
    if (strcmp(key, "crop_pct") == 0) return take_value(r, "input.crop_pct", t, &r->crop, err);
    if (strcmp(key, "test_crop_pct") == 0) return copy_value(r, &r->test_crop, t, err);
    if (strcmp(key, "crop_mode") == 0) return take_only(r, key, t, "center", err);
    if (strcmp(key, "num_classes") == 0) return take_count(r, t, err);
    char option[32] = "";
    for (size_t i = 0; i < COUNTOF(same); i++)
        if (strcmp(key, same[i]) == 0) snprintf(option, sizeof option, "input.%s", same[i]);
    if (option[0]) return take_value(r, option, t, NULL, err);
    return json_fail(&r->json, t, err, "pretrained_cfg: \"%.60s\" is not known, and may change the pixels - take it "
                     "out if it does not", key);
}

/* Is what evaluation is to use instead, if anything, the same? */
static bool same_value(JsonWriter *usual, JsonWriter *test) {
    return test->count == 0 || (usual->count && strcmp(json_writer_text(usual), json_writer_text(test)) == 0);
}

static bool read_preprocessing(Reader *r, Err *err) {
    JsonToken t;
    bool ok = true;
    while (ok && (ok = json_next(&r->json, &t, err)) && t.kind == JSON_KEY) {
        char key[64];
        snprintf(key, sizeof key, "%.63s", t.text);
        if (is_inert(key))
            ok = json_skip(&r->json, err);
        else
            ok = json_next(&r->json, &t, err) && (t.kind == JSON_NULL || read_pretrained(r, key, &t, err));
    }
    if (ok && (!same_value(&r->size, &r->test_size) || !same_value(&r->crop, &r->test_crop)))
        return json_fail(&r->json, &t, err, "pretrained_cfg: test_input_size or test_crop_pct is another than "
                         "input_size or crop_pct - write what is meant into both");
    return ok;
}

/* ---- the whole ---- */

typedef bool Read(Reader *r, Err *err);

static bool read_part(Reader *r, const char *key, const JsonToken *t, JsonKind kind, Read *read, Err *err) {
    if (t->kind == kind) return read(r, err);
    return json_fail(&r->json, t, err, "%s: expected %s, found %s", key, json_kind_name(kind), json_kind_name(t->kind));
}

static bool read_member(Reader *r, const char *key, JsonToken *t, Err *err) {
    if (strcmp(key, "architecture") == 0) return take_value(r, "model.name", t, NULL, err);
    if (strcmp(key, "model_args") == 0) return read_part(r, key, t, JSON_OBJECT, read_model_args, err);
    if (strcmp(key, "pretrained_cfg") == 0) return read_part(r, key, t, JSON_OBJECT, read_preprocessing, err);
    if (strcmp(key, "label_names") == 0) return read_part(r, key, t, JSON_ARRAY, read_names, err);
    if (strcmp(key, "num_classes") == 0) return take_count(r, t, err);
    return take_only(r, key, t, "avg", err);
}

static bool read_members(Reader *r, Err *err) {
    static const char *const known[] = {"architecture", "model_args",  "pretrained_cfg",
                                        "label_names",  "num_classes", "global_pool"};
    const HubConfig *h = r->hub;
    JsonToken t;
    bool ok = json_expect(&r->json, &t, JSON_OBJECT, err), named = false;
    while (ok && (ok = json_next(&r->json, &t, err)) && t.kind == JSON_KEY) {
        const char *key = NULL;
        for (size_t i = 0; i < COUNTOF(known); i++)
            if (strcmp(t.text, known[i]) == 0) key = known[i];
        if (!key)
            ok = json_skip(&r->json, err);
        else
            ok = json_next(&r->json, &t, err) && (t.kind == JSON_NULL || read_member(r, key, &t, err));
        named = named || key == known[0];
    }
    ok = ok && json_next(&r->json, &t, err); /* nothing after it */
    if (ok && !named)
        return err_set(err, EXIT_INPUT, "%s: has no \"architecture\" - mavit_t, _s, _b, _l or custom belongs there",
                       h->name);
    if (ok && h->class_count && h->num_classes >= 0 && h->num_classes != h->class_count)
        return err_set(err, EXIT_INPUT, "%s: num_classes is %lld, but label_names has %d - correct one of them",
                       h->name, (long long)h->num_classes, h->class_count);
    return ok;
}

bool hub_read_text(HubConfig *out, const char *name, const char *text, size_t count, Err *err) {
    *out = (HubConfig){.name = mem_strdup(name), .num_classes = -1};
    Reader r = {.hub = out, .text = text};
    bool ok = json_open(&r.json, text, count, (JsonSource){.name = out->name, .code = EXIT_INPUT}, err) &&
              read_members(&r, err);
    json_close(&r.json);
    JsonWriter *writers[] = {&r.size, &r.test_size, &r.crop, &r.test_crop};
    for (size_t i = 0; i < COUNTOF(writers); i++) json_writer_free(writers[i]);
    return ok && class_names_check(out->classes, out->class_count, out->name, err);
}

bool hub_read(HubConfig *out, const char *folder, Err *err) {
    char *name = path_join(folder, "config.json");
    uint8_t *text = NULL;
    size_t count;
    *out = (HubConfig){0};
    bool ok = file_read(&text, &count, name, FILE_LIMIT, err);
    size_t mark = ok ? json_mark((const char *)text, count) : 0;
    ok = ok && hub_read_text(out, name, (const char *)text + mark, count - mark, err);
    free(text);
    free(name);
    return ok;
}

/* ---- against the weights beside it ---- */

bool hub_check_classes(const HubConfig *h, char *const *classes, int class_count, Err *err) {
    if (h->num_classes >= 0 && h->num_classes != class_count)
        return err_set(err, EXIT_INPUT, "%s: num_classes is %lld, but the weights have %d - correct it", h->name,
                       (long long)h->num_classes, class_count);
    for (int i = 0; i < MIN(h->class_count, class_count); i++)
        if (strcmp(h->classes[i], classes[i]) != 0)
            return err_set(err, EXIT_INPUT, "%s: label_names: class %d is \"%.100s\", but \"%.100s\" in the weights' "
                           "metadata - correct one of them", h->name, i, h->classes[i], classes[i]);
    return true;
}

/* The first option in which two configs mean another network or other pixels; NULL: none. */
static const char *difference(const Config *a, const Config *b) {
    const MavitConfig x = config_mavit(a, 0), y = config_mavit(b, 0);
    const struct {
        const char *option;
        const void *of_a, *of_b;
        size_t bytes;
    } same[] = {{"model.dims", x.dims, y.dims, sizeof x.dims},
                {"model.depths", x.depths, y.depths, sizeof x.depths},
                {"model.heads", x.heads, y.heads, sizeof x.heads},
                {"model.attention", x.attention, y.attention, sizeof x.attention},
                {"model.mlp_ratio", &x.mlp_ratio, &y.mlp_ratio, sizeof x.mlp_ratio},
                {"model.projection", &x.projection, &y.projection, sizeof x.projection},
                {"input.size", a->input.size, b->input.size, sizeof a->input.size},
                {"input.interpolation", &a->input.interpolation, &b->input.interpolation, sizeof(int)},
                {"input.mean", a->input.mean, b->input.mean, sizeof a->input.mean},
                {"input.std", a->input.std, b->input.std, sizeof a->input.std}};
    for (size_t i = 0; i < COUNTOF(same); i++)
        if (memcmp(same[i].of_a, same[i].of_b, same[i].bytes) != 0) return same[i].option;
    return config_crop_pct(a) != config_crop_pct(b) ? "input.crop_pct" : NULL;
}

bool hub_check_config(const HubConfig *h, const Config *inner, Err *err) {
    Config c;
    bool ok = config_load_values(&c, h->values, h->value_count, (Settings){0}, err);
    const char *what = ok ? difference(&c, inner) : NULL;
    if (what)
        ok = err_set(err, EXIT_INPUT, "%s: says another %s than the metadata of the weights beside it - correct one of "
                     "them, or export the folder anew", h->name, what);
    config_free(&c);
    return ok;
}

void hub_free(HubConfig *h) {
    for (int i = 0; i < h->value_count; i++) free(h->values[i].key), free(h->values[i].value), free(h->values[i].where);
    for (int i = 0; i < h->class_count; i++) free(h->classes[i]);
    free(h->values);
    free(h->classes);
    free(h->name);
    *h = (HubConfig){0};
}
