/* json_use.c - what is built on the pull reader: expecting, skipping, checking a whole text, finding a value. */
#include "base/json.h"
#include "base/strings.h"

#include <string.h>

bool json_expect(JsonReader *r, JsonToken *out, JsonKind kind, Err *err) {
    if (!json_next(r, out, err)) return false;
    if (out->kind == kind) return true;
    return json_fail(r, out, err, "expected %s, found %s", json_kind_name(kind), json_kind_name(out->kind));
}

/* Reads on until the innermost `depth` objects and arrays are closed again. */
static bool read_until(JsonReader *r, int depth, Err *err) {
    JsonToken token;
    while (r->depth > depth)
        if (!json_next(r, &token, err)) return false;
    return true;
}

bool json_skip(JsonReader *r, Err *err) {
    int depth = r->depth;
    JsonToken token;
    return json_next(r, &token, err) && read_until(r, depth, err);
}

bool json_check(const char *text, size_t count, JsonSource source, Err *err) {
    JsonReader r;
    JsonToken token;
    bool ok = json_open(&r, text, count, source, err) && json_skip(&r, err) && json_expect(&r, &token, JSON_END, err);
    json_close(&r);
    return ok;
}

/* Enters the object or array that comes next and leaves *value at the step's value, already read. */
static bool take_step(JsonReader *r, JsonToken *key, JsonToken *value, const JsonStep *step) {
    bool is_key = step->key != NULL;
    if (value->kind != (is_key ? JSON_OBJECT : JSON_ARRAY)) return false;
    for (size_t i = 0;; i++) {
        if (!json_next(r, key, NULL) || key->kind == JSON_OBJECT_END || key->kind == JSON_ARRAY_END) return false;
        if (!is_key && i == step->index) {
            *value = *key;
            return true;
        }
        if (is_key && key->count == strlen(step->key) && !memcmp(key->text, step->key, key->count))
            return json_next(r, value, NULL);
        int depth = r->depth - (!is_key && (key->kind == JSON_OBJECT || key->kind == JSON_ARRAY));
        if (is_key ? !json_skip(r, NULL) : !read_until(r, depth, NULL)) return false;
    }
}

bool json_locate(JsonPlace *out, const char *text, size_t count, const JsonStep *steps, int step_count) {
    JsonReader r;
    JsonToken key, value = {0};
    bool found = json_open(&r, text, count, (JsonSource){.name = ""}, NULL) && json_next(&r, &value, NULL);
    key = value;
    for (int i = 0; found && i < step_count; i++) found = take_step(&r, &key, &value, &steps[i]);
    json_close(&r);
    if (!found) return false;
    json_position(&out->key_line, &out->key_column, text, key.offset);
    json_position(&out->line, &out->column, text, value.offset);
    return true;
}

bool json_utf8_valid(const char *text, size_t count) {
    for (size_t at = 0, length; at < count; at += length) {
        length = utf8_sequence(text + at, count - at);
        if (length == 0 || text[at] == '\0') return false;
    }
    return true;
}
