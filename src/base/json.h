/* json.h - JSON text, strictly: a pull reader over text in memory, a finder of positions for messages, a writer.
 *
 * The reader accepts RFC 8259 and nothing else. On top of the grammar it refuses what two programs could read in two
 * ways: duplicate keys (compared after escapes are decoded), U+0000 anywhere, control characters in keys, invalid
 * UTF-8, lone surrogates, numbers that overflow to infinity or underflow to zero, bytes after the document, a byte
 * order mark. Nesting ends at depth 64. No recursion; time is linear in the text, also for a million keys chosen to
 * collide. It refuses to guess: there is no lenient mode. */
#ifndef MALA_JSON_H
#define MALA_JSON_H

#include "base/base.h"

#define JSON_MAX_DEPTH 64
#define JSON_MAX_BYTES ((size_t)INT32_MAX) /* longer texts are refused */

typedef enum {
    JSON_OBJECT,
    JSON_OBJECT_END,
    JSON_ARRAY,
    JSON_ARRAY_END,
    JSON_KEY, /* its value is the next token */
    JSON_STRING,
    JSON_NUMBER,
    JSON_TRUE,
    JSON_FALSE,
    JSON_NULL,
    JSON_END /* the document is over; given again on every further call */
} JsonKind;

typedef struct {
    JsonKind kind;
    size_t offset;    /* byte of its first character, from the start of the text */
    const char *text; /* KEY, STRING: decoded UTF-8; NUMBER: as written; '\0' follows; valid until the next call */
    size_t count;     /* bytes of text */
    double number;    /* NUMBER: always finite */
    bool is_uint;     /* NUMBER: only digits, below 2^64: integer holds it exactly */
    uint64_t integer;
} JsonToken;

/* Where a text comes from: how messages name it and how the program ends. */
typedef struct {
    const char *name;  /* file name, kept by reference */
    ExitCode code;     /* EXIT_USAGE for configs, EXIT_INPUT for data */
    bool bytes;        /* false: "name:line:column: what"; true: "name: byte N: what", for headers of binary files */
    size_t first_byte; /* added to N: where in the file the text begins */
} JsonSource;

typedef struct {
    uint64_t hash;
    uint32_t offset; /* of the key's opening quote */
    uint32_t serial; /* the object it belongs to; another object's entry counts as empty */
} JsonKeyEntry;

/* One open object or array. The table outlives its object: the next one at this depth uses it again uncleared. */
typedef struct {
    bool is_object;
    uint32_t serial;
    size_t keys;     /* of this object so far */
    size_t capacity; /* of table: a power of two, or 0 */
    JsonKeyEntry *table;
} JsonFrame;

/* Fields are private. */
typedef struct {
    JsonSource source;
    const char *text;
    size_t count, at;
    int depth, state;
    uint32_t serial;    /* objects begun so far */
    uint64_t secret[2]; /* keys the hash */
    char *decoded;
    size_t decoded_capacity;
    JsonFrame frames[JSON_MAX_DEPTH];
} JsonReader;

/* Begins reading count bytes of text, which stay owned by the caller and need no '\0'. Always followed by json_close,
 * also when it fails. False: too long, a byte order mark, UTF-16. */
bool json_open(JsonReader *r, const char *text, size_t count, JsonSource source, Err *err);
/* The next token. False: the first error, with its position; do not go on then. EXIT_MEMORY when memory ran out. */
bool json_next(JsonReader *r, JsonToken *out, Err *err);
/* The next token, which must be of this kind: "expected a string, found an array" otherwise. */
bool json_expect(JsonReader *r, JsonToken *out, JsonKind kind, Err *err);
/* Reads over one whole value: call it after a JSON_KEY, or where an array or a document begins its next value. */
bool json_skip(JsonReader *r, Err *err);
void json_close(JsonReader *r);

/* An error about a token, placed like the reader's own. Returns false. */
bool json_fail(const JsonReader *r, const JsonToken *token, Err *err, const char *format, ...) PRINTF_LIKE(4, 5);
/* "a string", "an object", ... */
const char *json_kind_name(JsonKind kind);

/* Reads the whole text for its errors alone. */
bool json_check(const char *text, size_t count, JsonSource source, Err *err);

/* Line and column, from 1, of a byte of a text; columns count characters, not bytes. Reads from the start: for
 * messages. */
void json_position(int *line, int *column, const char *text, size_t offset);

/* One step down into a document: a key of an object, or, with key NULL, an index of an array. */
typedef struct {
    const char *key;
    size_t index;
} JsonStep;

typedef struct {
    int key_line, key_column; /* of the last step's key; of the value when the last step is an index */
    int line, column;         /* of the value */
} JsonPlace;

/* Finds a value of a text that json_check accepted; false when there is none. It reads the text again, because only
 * messages want positions: nothing is recorded for the values that are fine. */
bool json_locate(JsonPlace *out, const char *text, size_t count, const JsonStep *steps, int step_count);

/* Are these bytes UTF-8 without U+0000, overlong forms and surrogates? */
bool json_utf8_valid(const char *text, size_t count);

/* ---- writing ----
 * Zero-initialise, write one value, take json_writer_text. With indent > 0 objects are broken over lines and whatever
 * lies inside an array stays on one line. Misuse (a value where a key belongs) is a programmer's mistake: CHECK. */
typedef struct {
    int indent; /* spaces per level; 0: compact, no spaces at all */
    char *text;
    size_t count, capacity;
    int depth;
    bool after_key, after_value;
    uint64_t arrays; /* bit d: level d is an array */
} JsonWriter;

void json_write_object(JsonWriter *w);
void json_write_array(JsonWriter *w);
void json_write_end(JsonWriter *w); /* of the innermost object or array */
void json_write_key(JsonWriter *w, const char *key);
void json_write_string(JsonWriter *w, const char *text);
/* Bytes that are not UTF-8 become U+FFFD: check with json_utf8_valid where that would matter. */
void json_write_string_n(JsonWriter *w, const char *text, size_t count);
/* A member whose value is a file's path, which may be any bytes: where they are not UTF-8, "KEY_bytes" has them in
 * hexadecimal, so that no two paths look alike. */
void json_write_path(JsonWriter *w, const char *key, const char *path);
void json_write_uint(JsonWriter *w, uint64_t value);
void json_write_int(JsonWriter *w, int64_t value);
/* The fewest digits that read back as the same value, '.' in every locale; JSON has no NaN or infinity: null. */
void json_write_double(JsonWriter *w, double value);
void json_write_float(JsonWriter *w, float value);
void json_write_bool(JsonWriter *w, bool value);
void json_write_null(JsonWriter *w);
/* A value that is JSON already: copied as it is. */
void json_write_raw(JsonWriter *w, const char *json);
/* The finished document, '\0'-terminated, w->count bytes; owned by w. */
const char *json_writer_text(JsonWriter *w);
void json_writer_free(JsonWriter *w);

/* Bytes of a byte order mark at the start of a text, 3 or 0: readers of files that people edit step over it, as some
 * editors write one unasked. json_open refuses it. */
size_t json_mark(const char *text, size_t count);

#endif
