/* json_write.c - JSON text into a growing buffer. */
#include "base/json.h"
#include "base/strings.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put(JsonWriter *w, const char *bytes, size_t count) {
    if (w->capacity - w->count <= count) {
        w->capacity = MAX(w->count + count + 1, w->capacity * 2);
        w->text = mem_resize(w->text, w->capacity, 1);
    }
    memcpy(w->text + w->count, bytes, count);
    w->count += count;
    w->text[w->count] = '\0';
}

static void put_text(JsonWriter *w, const char *text) { put(w, text, strlen(text)); }

static bool in_array(const JsonWriter *w) { return w->depth > 0 && (w->arrays >> (w->depth - 1) & 1); }

static void new_line(JsonWriter *w) {
    put(w, "\n", 1);
    for (int i = 0; i < w->indent * w->depth; i++) put(w, " ", 1);
}

/* Whatever separates the next key or array item from what stands before it. An array anywhere around keeps the line. */
static void separate(JsonWriter *w) {
    bool one_line = w->indent == 0 || w->arrays != 0;
    if (w->after_value) put_text(w, one_line && w->indent > 0 ? ", " : ",");
    if (!one_line) new_line(w);
}

static void begin_value(JsonWriter *w) {
    CHECK(w->after_key || in_array(w) || (w->depth == 0 && w->count == 0), "a value where a key belongs");
    if (in_array(w)) separate(w);
    w->after_key = false;
    w->after_value = true;
}

static void begin_nested(JsonWriter *w, bool is_array) {
    begin_value(w);
    CHECK(w->depth < JSON_MAX_DEPTH, "JSON nested deeper than %d levels", JSON_MAX_DEPTH);
    put_text(w, is_array ? "[" : "{");
    w->arrays |= (uint64_t)is_array << w->depth;
    w->depth++;
    w->after_value = false;
}

void json_write_object(JsonWriter *w) { begin_nested(w, false); }
void json_write_array(JsonWriter *w) { begin_nested(w, true); }

void json_write_end(JsonWriter *w) {
    CHECK(w->depth > 0 && !w->after_key, "nothing to end");
    bool was_array = in_array(w), was_empty = !w->after_value, one_line = w->indent == 0 || w->arrays != 0;
    w->depth--;
    w->arrays &= ~((uint64_t)1 << w->depth);
    if (!one_line && !was_empty) new_line(w);
    put_text(w, was_array ? "]" : "}");
    w->after_value = true;
}

static void put_string(JsonWriter *w, const char *text, size_t count) {
    put(w, "\"", 1);
    for (size_t at = 0, length; at < count; at += length) {
        unsigned char c = (unsigned char)text[at];
        length = utf8_sequence(text + at, count - at);
        char escape[8];
        if (length == 0) {
            put_text(w, "\xef\xbf\xbd");
            length = 1;
        } else if (c == '"' || c == '\\') {
            put(w, (char[]){'\\', (char)c}, 2);
        } else if (c == '\n' || c == '\t' || c == '\r') {
            put_text(w, c == '\n' ? "\\n" : c == '\t' ? "\\t" : "\\r");
        } else if (c < 0x20 || c == 0x7f) {
            snprintf(escape, sizeof escape, "\\u%04x", c);
            put_text(w, escape);
        } else {
            put(w, text + at, length);
        }
    }
    put(w, "\"", 1);
}

void json_write_key(JsonWriter *w, const char *key) {
    CHECK(w->depth > 0 && !in_array(w) && !w->after_key, "key \"%s\" outside an object", key);
    separate(w);
    put_string(w, key, strlen(key));
    put_text(w, w->indent > 0 ? ": " : ":");
    w->after_key = true;
}

void json_write_string_n(JsonWriter *w, const char *text, size_t count) {
    begin_value(w);
    put_string(w, text, count);
}

void json_write_string(JsonWriter *w, const char *text) { json_write_string_n(w, text, strlen(text)); }

void json_write_path(JsonWriter *w, const char *key, const char *path) {
    size_t count = strlen(path);
    json_write_key(w, key), json_write_string_n(w, path, count);
    if (json_utf8_valid(path, count)) return;
    char name[64], *hex = mem_zalloc(2 * count + 1, 1);
    snprintf(name, sizeof name, "%s_bytes", key);
    for (size_t i = 0; i < count; i++) snprintf(hex + 2 * i, 3, "%02x", (unsigned char)path[i]);
    json_write_key(w, name), json_write_string_n(w, hex, 2 * count);
    free(hex);
}

void json_write_raw(JsonWriter *w, const char *json) {
    begin_value(w);
    put_text(w, json);
}

void json_write_uint(JsonWriter *w, uint64_t value) {
    char text[NUMBER_TEXT_SIZE];
    snprintf(text, sizeof text, "%" PRIu64, value);
    json_write_raw(w, text);
}

void json_write_int(JsonWriter *w, int64_t value) {
    char text[NUMBER_TEXT_SIZE];
    snprintf(text, sizeof text, "%" PRId64, value);
    json_write_raw(w, text);
}

void json_write_double(JsonWriter *w, double value) {
    char text[NUMBER_TEXT_SIZE] = "null";
    if (isfinite(value)) number_text(text, value);
    json_write_raw(w, text);
}

void json_write_float(JsonWriter *w, float value) {
    char text[NUMBER_TEXT_SIZE] = "null";
    if (isfinite(value)) number_text_float(text, value);
    json_write_raw(w, text);
}

void json_write_bool(JsonWriter *w, bool value) { json_write_raw(w, value ? "true" : "false"); }
void json_write_null(JsonWriter *w) { json_write_raw(w, "null"); }

const char *json_writer_text(JsonWriter *w) {
    CHECK(w->depth == 0 && w->count > 0, "the document is not finished");
    return w->text;
}

void json_writer_free(JsonWriter *w) {
    free(w->text);
    *w = (JsonWriter){0};
}
