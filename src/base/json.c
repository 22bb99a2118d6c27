/* json.c - the pull reader: a state machine over text in memory. Objects and arrays live on a stack of frames, so
 * depth costs no C stack. An object's keys live in a hash table of their offsets; the hash is SipHash-1-3 (Aumasson
 * and Bernstein, 2012) under a random key, so that a file cannot be made whose keys collide. */
#include "base/json.h"
#include "base/strings.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

enum { FIRST_KEY, NEXT_KEY, FIRST_ITEM, VALUE, AFTER_VALUE };

/* ---- errors ---- */

void json_position(int *line, int *column, const char *text, size_t offset) {
    *line = *column = 1;
    for (size_t i = 0; i < offset; i++) {
        if (text[i] == '\n')
            *line += 1, *column = 1;
        else
            *column += ((unsigned char)text[i] & 0xc0) != 0x80;
    }
}

static bool fail_at(const JsonReader *r, size_t offset, Err *err, const char *format, ...) PRINTF_LIKE(4, 5);

static bool fail_at_list(const JsonReader *r, size_t offset, Err *err, const char *format, va_list args) {
    char what[sizeof err->text];
    vsnprintf(what, sizeof what, format, args);
    const JsonSource *source = &r->source;
    if (source->bytes)
        return err_set(err, source->code, "%s: byte %zu: %s", source->name, source->first_byte + offset, what);
    int line, column;
    json_position(&line, &column, r->text, offset);
    return err_set(err, source->code, "%s:%d:%d: %s", source->name, line, column, what);
}

static bool fail_at(const JsonReader *r, size_t offset, Err *err, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fail_at_list(r, offset, err, format, args);
    va_end(args);
    return false;
}

bool json_fail(const JsonReader *r, const JsonToken *token, Err *err, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fail_at_list(r, token->offset, err, format, args);
    va_end(args);
    return false;
}

/* NaN, Infinity or inf, in any letters: what other programs write for numbers that are none. */
static bool is_no_number(const JsonReader *r) {
    const char *at = r->text + r->at;
    size_t left = r->count - r->at;
    return left >= 3 && (strncasecmp(at, "nan", 3) == 0 || strncasecmp(at, "inf", 3) == 0);
}

static bool fail_found(const JsonReader *r, Err *err, const char *expected) {
    unsigned char c = (unsigned char)r->text[r->at];
    const char *hint = c == '/' || c == '#' ? " - JSON has no comments"
                       : c == '\''          ? " - JSON strings are written in double quotes"
                       : is_no_number(r)    ? " - JSON has no NaN and no infinity"
                       : strchr("+.", c)    ? " - a number begins with a digit or '-'"
                                            : "";
    if (c > 0x20 && c < 0x7f) return fail_at(r, r->at, err, "expected %s, found '%c'%s", expected, c, hint);
    return fail_at(r, r->at, err, "expected %s, found byte 0x%02x", expected, c);
}

const char *json_kind_name(JsonKind kind) {
    static const char *const names[] = {
        [JSON_OBJECT] = "an object",
        [JSON_OBJECT_END] = "the end of an object",
        [JSON_ARRAY] = "an array",
        [JSON_ARRAY_END] = "the end of an array",
        [JSON_KEY] = "a key",
        [JSON_STRING] = "a string",
        [JSON_NUMBER] = "a number",
        [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",
        [JSON_NULL] = "null",
        [JSON_END] = "the end of the text",
    };
    return names[kind];
}

/* ---- strings ---- */

/* Memory here grows with the file: running out is the file's error, not the program's end. */
static bool grow(void **memory, size_t *capacity, size_t wanted, size_t size, Err *err) {
    if (wanted <= *capacity) return true;
    size_t bytes, count = MAX(wanted, *capacity + *capacity / 2);
    void *bigger = size_mul(count, size, &bytes) ? realloc(*memory, bytes) : NULL;
    if (!bigger) return err_set(err, EXIT_MEMORY, "memory: cannot allocate %zu items of %zu bytes", count, size);
    *memory = bigger;
    *capacity = count;
    return true;
}

static bool read_hex4(const JsonReader *r, size_t at, uint32_t *out) {
    if (r->count - at < 4) return false;
    *out = 0;
    for (size_t i = at; i < at + 4; i++) {
        char c = r->text[i];
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                : 16;
        if (digit == 16) return false;
        *out = *out << 4 | digit;
    }
    return true;
}

/* Decodes the escape whose backslash is at *at and steps over it. Returns its bytes, or 0 and the problem. */
static size_t read_escape(const JsonReader *r, size_t *at, char out[4], const char **problem) {
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    char c = *at + 1 < r->count ? r->text[*at + 1] : '\0';
    const char *letter = c ? strchr(letters, c) : NULL;
    if (letter) {
        out[0] = meanings[letter - letters];
        *at += 2;
        return 1;
    }
    uint32_t high, low;
    *problem = "unknown escape after '\\'";
    if (c != 'u') return 0;
    *problem = "\\u needs four hexadecimal digits";
    if (!read_hex4(r, *at + 2, &high)) return 0;
    *problem = "U+0000 is not allowed in a string";
    if (high == 0) return 0;
    *problem = "half of a surrogate pair";
    if (high >= 0xdc00 && high <= 0xdfff) return 0;
    *at += 6;
    if (high < 0xd800 || high > 0xdfff) return utf8_encode(out, high);
    bool paired = r->count - *at >= 6 && r->text[*at] == '\\' && r->text[*at + 1] == 'u' &&
                  read_hex4(r, *at + 2, &low) && low >= 0xdc00 && low <= 0xdfff;
    if (!paired) {
        *at -= 6;
        return 0;
    }
    *at += 6;
    return utf8_encode(out, 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
}

static bool append(JsonReader *r, size_t *count, const char *bytes, size_t added, Err *err) {
    if (!grow((void **)&r->decoded, &r->decoded_capacity, *count + added + 1, 1, err)) return false;
    memcpy(r->decoded + *count, bytes, added);
    *count += added;
    return true;
}

/* The string whose opening quote is at r->at, decoded into r->decoded. */
static bool read_string(JsonReader *r, JsonToken *out, JsonKind kind, Err *err) {
    size_t at = r->at + 1, count = 0;
    for (;;) {
        size_t run = at;
        while (run < r->count && r->text[run] != '"' && r->text[run] != '\\' && (unsigned char)r->text[run] >= 0x20) {
            size_t length = utf8_sequence(r->text + run, r->count - run);
            if (length == 0) return fail_at(r, run, err, "invalid UTF-8 in %s", json_kind_name(kind));
            run += length;
        }
        if (!append(r, &count, r->text + at, run - at, err)) return false;
        at = run;
        if (at == r->count) return fail_at(r, r->at, err, "the text ends inside %s", json_kind_name(kind));
        if (r->text[at] == '"') break;
        if (r->text[at] != '\\')
            return fail_at(r, at, err, "control character 0x%02x in %s - write it as an escape", (unsigned)r->text[at],
                           json_kind_name(kind));
        char bytes[4];
        const char *problem = NULL;
        size_t escape = at, length = read_escape(r, &at, bytes, &problem);
        if (length == 0) return fail_at(r, escape, err, "%s", problem);
        if (kind == JSON_KEY && length == 1 && (unsigned char)bytes[0] < 0x20)
            return fail_at(r, escape, err, "control character 0x%02x in a key", (unsigned)bytes[0]);
        if (!append(r, &count, bytes, length, err)) return false;
    }
    r->decoded[count] = '\0';
    r->at = at + 1;
    out->kind = kind, out->text = r->decoded, out->count = count;
    return true;
}

/* ---- keys ---- */

static uint64_t rotate(uint64_t x, int by) { return x << by | x >> (64 - by); }

static void sip_round(uint64_t v[4]) {
    v[0] += v[1], v[1] = rotate(v[1], 13) ^ v[0], v[0] = rotate(v[0], 32);
    v[2] += v[3], v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = rotate(v[1], 17) ^ v[2], v[2] = rotate(v[2], 32);
}

static uint64_t sip_hash(const uint64_t secret[2], const char *text, size_t count) {
    uint64_t v[4] = {secret[0] ^ 0x736f6d6570736575u, secret[1] ^ 0x646f72616e646f6du, secret[0] ^ 0x6c7967656e657261u,
                     secret[1] ^ 0x7465646279746573u};
    for (size_t i = 0; i <= count; i += 8) {
        uint64_t word = 0;
        size_t left = MIN(count - i, (size_t)8);
        memcpy(&word, text + i, left);
        if (left < 8) word |= (uint64_t)count << 56;
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++) sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* Does the string at this offset, read before, decode to these bytes? */
static bool key_is(const JsonReader *r, size_t offset, const char *text, size_t count) {
    size_t at = offset + 1, done = 0;
    while (r->text[at] != '"') {
        char bytes[4] = {r->text[at]};
        const char *problem;
        size_t length = 1;
        if (r->text[at] == '\\')
            length = read_escape(r, &at, bytes, &problem);
        else
            at++;
        if (count - done < length || memcmp(text + done, bytes, length)) return false;
        done += length;
    }
    return done == count;
}

static JsonKeyEntry *find_slot(const JsonReader *r, JsonFrame *frame, uint64_t hash, const char *text, size_t count) {
    size_t mask = frame->capacity - 1;
    for (size_t i = (size_t)hash & mask;; i = (i + 1) & mask) {
        JsonKeyEntry *entry = &frame->table[i];
        if (entry->serial != frame->serial) return entry;
        if (text && entry->hash == hash && key_is(r, entry->offset, text, count)) return entry;
    }
}

static bool table_double(const JsonReader *r, JsonFrame *frame, Err *err) {
    JsonFrame old = *frame;
    frame->capacity = MAX(old.capacity * 2, (size_t)16);
    frame->table = calloc(frame->capacity, sizeof *frame->table);
    if (!frame->table) {
        *frame = old;
        return err_set(err, EXIT_MEMORY, "memory: cannot allocate a table for %zu keys", old.keys);
    }
    for (size_t i = 0; i < old.capacity; i++)
        if (old.table[i].serial == old.serial) *find_slot(r, frame, old.table[i].hash, NULL, 0) = old.table[i];
    free(old.table);
    return true;
}

static bool remember_key(JsonReader *r, const JsonToken *key, Err *err) {
    JsonFrame *frame = &r->frames[r->depth - 1];
    if (frame->keys * 2 >= frame->capacity && !table_double(r, frame, err)) return false;
    uint64_t hash = sip_hash(r->secret, key->text, key->count);
    JsonKeyEntry *entry = find_slot(r, frame, hash, key->text, key->count);
    if (entry->serial == frame->serial) {
        if (r->source.bytes)
            return fail_at(r, key->offset, err, "key \"%.200s\" appears twice, first at byte %zu", key->text,
                           r->source.first_byte + entry->offset);
        int line, column;
        json_position(&line, &column, r->text, entry->offset);
        return fail_at(r, key->offset, err, "key \"%.200s\" appears twice, first at line %d, column %d - keep one",
                       key->text, line, column);
    }
    *entry = (JsonKeyEntry){.hash = hash, .offset = (uint32_t)key->offset, .serial = frame->serial};
    frame->keys++;
    return true;
}

/* ---- numbers and words ---- */

static bool is_digit(const JsonReader *r, size_t at) {
    return at < r->count && r->text[at] >= '0' && r->text[at] <= '9';
}

static size_t skip_digits(const JsonReader *r, size_t at) {
    while (is_digit(r, at)) at++;
    return at;
}

static bool is_word(const JsonReader *r, size_t at) {
    if (at >= r->count) return false;
    char c = r->text[at];
    return is_digit(r, at) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c && strchr("+-._", c));
}

/* All digits, below 2^64? */
static bool parse_uint(uint64_t *out, const char *text) {
    *out = 0;
    for (; *text >= '0' && *text <= '9'; text++)
        if (__builtin_mul_overflow(*out, 10, out) || __builtin_add_overflow(*out, (uint64_t)(*text - '0'), out))
            return false;
    return *text == '\0';
}

static bool read_number(JsonReader *r, JsonToken *out, Err *err) {
    size_t at = r->at + (r->text[r->at] == '-'), digits = at;
    if (!is_digit(r, at)) return fail_at(r, r->at, err, "a digit must follow '-'");
    at = skip_digits(r, at);
    if (r->text[digits] == '0' && at > digits + 1) return fail_at(r, r->at, err, "a number with a leading zero");
    if (at < r->count && r->text[at] == '.') {
        if (!is_digit(r, at + 1)) return fail_at(r, r->at, err, "a digit must follow the '.' of a number");
        at = skip_digits(r, at + 1);
    }
    size_t mantissa_end = at;
    if (at < r->count && (r->text[at] == 'e' || r->text[at] == 'E')) {
        at++;
        if (at < r->count && (r->text[at] == '+' || r->text[at] == '-')) at++;
        if (!is_digit(r, at)) return fail_at(r, r->at, err, "a digit must follow the exponent's 'e'");
        at = skip_digits(r, at);
    }
    if (is_word(r, at)) return fail_at(r, r->at, err, "malformed number");

    size_t count = 0;
    if (!append(r, &count, r->text + r->at, at - r->at, err)) return false;
    r->decoded[count] = '\0';
    out->kind = JSON_NUMBER, out->text = r->decoded, out->count = count;
    out->is_uint = parse_uint(&out->integer, r->decoded);
    if (!out->is_uint) out->integer = 0;
    out->number = out->is_uint ? (double)out->integer : number_parse(r->decoded);
    if (!isfinite(out->number)) return fail_at(r, r->at, err, "number %.40s is too large", r->decoded);
    if (out->number == 0)
        for (size_t i = r->at; i < mantissa_end; i++)
            if (r->text[i] >= '1' && r->text[i] <= '9')
                return fail_at(r, r->at, err, "number %.40s is too small: it would become 0", r->decoded);
    r->at = at;
    return true;
}

static bool read_word(JsonReader *r, JsonToken *out, Err *err) {
    static const struct {
        const char *text;
        JsonKind kind;
    } words[] = {{"true", JSON_TRUE}, {"false", JSON_FALSE}, {"null", JSON_NULL}};
    for (size_t i = 0; i < COUNTOF(words); i++) {
        size_t length = strlen(words[i].text);
        if (r->count - r->at < length || memcmp(r->text + r->at, words[i].text, length)) continue;
        if (is_word(r, r->at + length)) break;
        r->at += length;
        out->kind = words[i].kind;
        return true;
    }
    return fail_found(r, err, "a value");
}

/* ---- the machine ---- */

static bool begin_nested(JsonReader *r, JsonToken *out, bool is_object, Err *err) {
    if (r->depth == JSON_MAX_DEPTH) return fail_at(r, r->at, err, "nested deeper than %d levels", JSON_MAX_DEPTH);
    JsonFrame *frame = &r->frames[r->depth++];
    frame->is_object = is_object;
    frame->serial = ++r->serial; /* from 1: a zeroed entry belongs to no object */
    frame->keys = 0;
    r->state = is_object ? FIRST_KEY : FIRST_ITEM;
    r->at++;
    out->kind = is_object ? JSON_OBJECT : JSON_ARRAY;
    return true;
}

static bool end_nested(JsonReader *r, JsonToken *out) {
    out->kind = r->frames[--r->depth].is_object ? JSON_OBJECT_END : JSON_ARRAY_END;
    r->state = AFTER_VALUE;
    r->at++;
    return true;
}

static bool read_value(JsonReader *r, JsonToken *out, Err *err) {
    char c = r->text[r->at];
    if (c == '{' || c == '[') return begin_nested(r, out, c == '{', err);
    r->state = AFTER_VALUE;
    if (c == '"') return read_string(r, out, JSON_STRING, err);
    if (c == '-' || is_digit(r, r->at)) return read_number(r, out, err);
    return read_word(r, out, err);
}

static void skip_space(JsonReader *r) {
    while (r->at < r->count && r->text[r->at] && strchr(" \t\n\r", r->text[r->at])) r->at++;
}

static bool read_key(JsonReader *r, JsonToken *out, Err *err) {
    char c = r->text[r->at];
    if (c == '}' && r->state == FIRST_KEY) return end_nested(r, out);
    if (c == '}') return fail_at(r, r->at, err, "a comma before '}' - remove the comma");
    if (c != '"') return fail_found(r, err, "a key in double quotes");
    if (!read_string(r, out, JSON_KEY, err) || !remember_key(r, out, err)) return false;
    skip_space(r);
    if (r->at == r->count) return fail_at(r, r->at, err, "the text ends after a key");
    if (r->text[r->at] != ':') return fail_found(r, err, "':' after a key");
    r->at++;
    r->state = VALUE;
    return true;
}

bool json_next(JsonReader *r, JsonToken *out, Err *err) {
    skip_space(r);
    bool inside = r->depth > 0, is_object = inside && r->frames[r->depth - 1].is_object;
    if (r->state == AFTER_VALUE && inside && r->at < r->count && r->text[r->at] == ',') {
        r->at++;
        r->state = is_object ? NEXT_KEY : VALUE;
        skip_space(r);
    }
    *out = (JsonToken){.kind = JSON_END, .offset = r->at, .text = ""};
    if (r->at == r->count) {
        if (inside) return fail_at(r, r->at, err, "the text ends inside %s", is_object ? "an object" : "an array");
        if (r->state != AFTER_VALUE) return fail_at(r, r->at, err, "empty where JSON was expected");
        return true;
    }
    char c = r->text[r->at];
    switch (r->state) {
    case FIRST_KEY:
    case NEXT_KEY:
        return read_key(r, out, err);
    case FIRST_ITEM:
        return c == ']' ? end_nested(r, out) : read_value(r, out, err);
    case VALUE:
        if (c == ']' && inside && !is_object) return fail_at(r, r->at, err, "a comma before ']' - remove the comma");
        return read_value(r, out, err);
    default:
        break;
    }
    if (!inside) return fail_found(r, err, "the end of the text after the JSON document");
    if (c == (is_object ? '}' : ']')) return end_nested(r, out);
    return fail_found(r, err, is_object ? "',' or '}'" : "',' or ']'");
}

size_t json_mark(const char *text, size_t count) { return count >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0; }

bool json_open(JsonReader *r, const char *text, size_t count, JsonSource source, Err *err) {
    *r = (JsonReader){.source = source, .text = text, .count = count, .state = VALUE};
    if (getrandom(r->secret, sizeof r->secret, GRND_NONBLOCK) != (ssize_t)sizeof r->secret)
        r->secret[0] = (uint64_t)(uintptr_t)r; /* early at boot: the address is random enough */
    if (count > JSON_MAX_BYTES)
        return err_set(err, source.code, "%s: %zu bytes of JSON - the limit is %zu", source.name, count,
                       JSON_MAX_BYTES);
    if (json_mark(text, count))
        return fail_at(r, 0, err, "a byte order mark - save the file as UTF-8 without one");
    if (count >= 2 && (!memcmp(text, "\xff\xfe", 2) || !memcmp(text, "\xfe\xff", 2) || !text[0] || !text[1]))
        return fail_at(r, 0, err, "this looks like UTF-16 - save the file as UTF-8");
    return true;
}

void json_close(JsonReader *r) {
    for (size_t i = 0; i < COUNTOF(r->frames); i++) free(r->frames[i].table);
    free(r->decoded);
    *r = (JsonReader){0};
}
