/* fuzz_json.c - libFuzzer: any bytes as JSON text; what is accepted is found by position and survives a round trip. */
#include "fuzz.h"

#include <string.h>

#include "base/json.h"

/* Writes a document from its tokens. */
static bool rewrite(JsonWriter *w, const char *text, size_t count, Err *err) {
    JsonReader r;
    JsonToken t;
    bool ok = json_open(&r, text, count, (JsonSource){.name = "fuzz", .code = EXIT_INPUT}, err);
    while (ok && (ok = json_next(&r, &t, err)) && t.kind != JSON_END) {
        if (t.kind == JSON_OBJECT) json_write_object(w);
        if (t.kind == JSON_ARRAY) json_write_array(w);
        if (t.kind == JSON_OBJECT_END || t.kind == JSON_ARRAY_END) json_write_end(w);
        if (t.kind == JSON_KEY) json_write_key(w, t.text);
        if (t.kind == JSON_STRING) json_write_string_n(w, t.text, t.count);
        if (t.kind == JSON_NUMBER && t.is_uint) json_write_uint(w, t.integer);
        if (t.kind == JSON_NUMBER && !t.is_uint) json_write_double(w, t.number);
        if (t.kind == JSON_TRUE || t.kind == JSON_FALSE) json_write_bool(w, t.kind == JSON_TRUE);
        if (t.kind == JSON_NULL) json_write_null(w);
    }
    json_close(&r);
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data;
    JsonWriter once = {0}, twice = {0};
    Err err = {0};
    if (rewrite(&once, text, size, &err)) {
        JsonPlace place;
        json_locate(&place, text, size, &(JsonStep){.index = 0}, 1);
        json_locate(&place, text, size, &(JsonStep){.key = "a"}, 1);
        CHECK(rewrite(&twice, json_writer_text(&once), once.count, &err), "%s", err.text);
        CHECK(once.count == twice.count && memcmp(once.text, twice.text, once.count) == 0, "%s", once.text);
    } else {
        CHECK(err.code == EXIT_INPUT && strncmp(err.text, "fuzz:", 5) == 0, "%s", err.text);
    }
    json_writer_free(&once);
    json_writer_free(&twice);
    return 0;
}
